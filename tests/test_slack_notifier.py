"""What is owed reaches people once, in order and true; what Slack does not take now is not forgotten."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sqlalchemy import text

from bot.exchange import Post, PostKind
from bot.model import Instance, Notice, Outcome, OutcomeCode, Place
from bot.ops.devices import CANCEL as CANCEL_DEVICE
from bot.ops.devices import RETRY
from bot.ops.firmware import HALT as HALT_FIRMWARE
from bot.ops.jobs import CANCEL, HALT, RATE
from bot.ports import Transition
from bot.proposals import Proposal, State
from bot.sandbox.slack_blocks import complaints
from bot.sandbox.workspace import Message
from bot.slack import views
from bot.slack.messages import Messages
from bot.slack.pace import Pace
from bot.slack.views import Pointed
from bot.storage.codec import from_json, to_json
from bot.storage.store import SqlStore
from tests.conftest import Clock, lapse
from tests.desk import INCIDENT, Desk, open_desk
from tests.test_slack_views import HOSTILE
from tests.values import AT, REPLY_TO, TARGET, counts, job, offer, part, preview, proposal

OURS = re.compile(r"<@[UW][A-Z0-9]+>|<!date\^\d+\^\{time_secs\}\|[0-9:]+ UTC>")

CARD, BUTTONS, PROGRESS = (Post(kind, "p1") for kind in (PostKind.CARD, PostKind.BUTTONS, PostKind.PROGRESS))
LINE = Post(PostKind.LINE, "p1", Notice("A line."))
FOLLOWED = proposal(
    state=State.FOLLOWING,
    offer=offer(),
    confirmed_by="U0ONCALLA1",
    approved_at=AT,
    called=preview(counts=counts(QUEUED=200)),
    progress={TARGET.job: counts(QUEUED=150, CANCELED=50)},
    followed_from=AT,
    follow_until=AT + timedelta(minutes=15),
)
TOLD = "no longer move"
NOTHING_YET = "how the devices move is told here."


@pytest.fixture
async def desk(clock: Clock, tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_desk(clock, tmp_path) as opened:
        yield opened


async def moved(desk: Desk, before: Proposal, **bent: object) -> Proposal:
    """The proposal as a later step leaves it."""
    after = replace(before, version=before.version + 1, **bent)  # type: ignore[arg-type]
    assert await desk.store.save(Transition(before, after, ()))
    return after


def ended() -> dict[str, object]:
    outcome = Outcome(OutcomeCode.STOPPED, Notice("Stopped 200."))
    return {"state": State.FINISHED, "outcome": outcome, "progress": {TARGET.job: counts(CANCELED=200)}}


def about_progress(desk: Desk) -> list[str]:
    return [text for text in desk.lines() if TOLD in text or NOTHING_YET in text]


async def test_card_buttons_and_progress_are_each_one_message_that_is_made_true(desk: Desk) -> None:
    first = await desk.keep(FOLLOWED)
    await desk.owe(CARD, BUTTONS, PROGRESS)
    assert "25 % of ≈200 asked to stop no longer move; up to 150 still do." in about_progress(desk)[0]
    await moved(desk, first, **ended())
    await desk.owe(CARD, BUTTONS, PROGRESS)
    card, buttons, progress = (one.text for one in desk.thread())
    assert card.startswith("🛑 stopped: Cancel")
    assert buttons.endswith("confirmed by <@U0ONCALLA1>.")
    assert progress.startswith("🛑 stopped: Cancel")
    assert "I no longer watch" in progress


async def test_progress_without_a_card_puts_the_card_first(desk: Desk) -> None:
    await desk.keep(FOLLOWED)
    await desk.owe(PROGRESS)
    assert [TOLD in one.text for one in desk.thread()] == [False, True]


async def test_progress_that_is_overtaken_is_not_said(desk: Desk) -> None:
    await desk.keep(FOLLOWED)
    await desk.owe(CARD)
    desk.meets("chat.update", error="internal_error", times=2)
    await desk.owe(PROGRESS, PROGRESS, PROGRESS)
    assert len(desk.slack.faults) == 1


async def test_progress_that_slack_does_not_take_now_keeps_no_line_waiting(desk: Desk, clock: Clock) -> None:
    await desk.keep(FOLLOWED)
    await desk.owe(CARD)
    desk.meets("chat.update", error="ratelimited", status=429, retry_after=30)
    await desk.owe(PROGRESS, LINE)
    assert clock.slept == []
    assert [NOTHING_YET in desk.lines()[0], desk.lines()[1]] == [True, "A line."]
    clock.pass_by(30)
    await desk.owe(PROGRESS)
    assert TOLD in about_progress(desk)[0]


async def test_the_last_progress_is_made_true_however_long_slack_is_busy(desk: Desk, clock: Clock) -> None:
    first = await desk.keep(FOLLOWED)
    await desk.owe(CARD, PROGRESS)
    await moved(desk, first, **ended())
    desk.meets("chat.update", error="ratelimited", status=429, retry_after=30, times=3)
    await desk.owe(PROGRESS)
    assert clock.slept == [30.0] * 3
    assert "I no longer watch" in about_progress(desk)[0]


async def test_a_second_copy_of_the_progress_message_claims_nothing(desk: Desk) -> None:
    first = await desk.keep(FOLLOWED)
    await desk.owe(CARD)
    desk.meets("chat.postMessage", status=500, is_carried_out=True)
    await desk.owe(PROGRESS)
    await moved(desk, first, **ended())
    await desk.owe(PROGRESS)
    left, true = sorted(about_progress(desk), key=lambda text: TOLD in text)
    assert left.endswith(NOTHING_YET)
    assert "I no longer watch" in true


async def test_a_message_that_somebody_deleted_blocks_nothing(desk: Desk) -> None:
    await desk.keep(FOLLOWED)
    await desk.owe(CARD, PROGRESS)
    desk.meets("chat.update", error="message_not_found")
    await desk.owe(PROGRESS, LINE)
    assert desk.lines()[-1] == "A line."


async def test_a_broadcast_says_in_the_channel_what_it_is_about(desk: Desk) -> None:
    await desk.keep(FOLLOWED)
    await desk.owe(CARD, Post(PostKind.BROADCAST, "p1", Notice("Stopped 200.")))
    [shown] = [one for one in desk.slack.workspace.messages(INCIDENT) if one.is_broadcast]
    assert shown.text == "Cancel 7glPHmaDYLAYMD1HHutT02 on prod-shanghai:\nStopped 200."


async def test_an_answer_for_one_person_is_never_said_to_others(desk: Desk) -> None:
    await desk.keep(FOLLOWED)
    await desk.owe(CARD, Post(PostKind.REPLY, "p1", Notice("A secret.")), LINE)
    assert desk.lines() == ["A line."]
    await desk.owe(Post(PostKind.REPLY, "d1", Notice("For you."), replace(REPLY_TO, address=None)))
    assert (desk.told(), desk.lines()) == (["For you."], ["A line."])


async def test_a_card_that_can_stand_nowhere_ends_its_proposal(desk: Desk) -> None:
    waiting = proposal(state=State.OFFERED, offer=offer(), place=Place("C0NEWINC01"))
    await desk.keep(waiting)
    desk.meets("conversations.open", error="missing_scope")
    await desk.owe(CARD)
    assert desk.unshown == ["p1: not_in_channel"]


async def test_a_card_that_cannot_stand_where_it_was_asked_for_stands_in_the_channel_of_its_instance(
    desk: Desk,
) -> None:
    desk.instances["prod-shanghai"] = Instance("prod-shanghai", "cn-shanghai", channel=INCIDENT)
    elsewhere = replace(REPLY_TO, place=Place("C0NEWINC01"), address=None)
    await desk.keep(proposal(state=State.OFFERED, offer=offer(), place=Place("C0NEWINC01"), reply_to=elsewhere))
    await desk.owe(CARD, BUTTONS)
    assert (len(desk.thread()), desk.unshown) == (2, [])
    assert '"actions"' in json.dumps(desk.thread()[1].blocks)


async def test_an_answer_goes_to_no_other_address_than_slacks(desk: Desk) -> None:
    elsewhere = replace(REPLY_TO, address="http://127.0.0.1:1/collect")
    await desk.owe(Post(PostKind.REPLY, "d1", Notice("For you."), elsewhere))
    assert desk.told() == ["For you."]


@pytest.mark.parametrize("address", ["http://[", "https://hooks.slack.com.evil.example/x", "file:///etc/passwd"])
async def test_an_address_that_is_none_is_not_used(desk: Desk, address: str) -> None:
    await desk.owe(Post(PostKind.REPLY, "d1", Notice("For you."), replace(REPLY_TO, address=address)))
    assert desk.told() == ["For you."]


async def test_an_answer_that_cannot_be_whispered_is_given_directly(desk: Desk) -> None:
    places = (Place("C0NEWINC01"), Place("C0ARCHIVE1"), Place("C0NOWHERE1"), Place(None))
    for place in places:
        await desk.owe(Post(PostKind.REPLY, "d1", Notice("For you."), replace(REPLY_TO, place=place, address=None)))
    assert [one.text for one in desk.direct()] == ["For you."] * len(places)


async def test_an_answer_goes_another_way_where_its_address_is_not_reached(desk: Desk) -> None:
    base = desk.notifier._messages._client.base_url
    for path in ("response/nobody", "response/%00"):
        to = replace(REPLY_TO, address=base.replace("api/", path))
        await desk.owe(Post(PostKind.REPLY, "d1", Notice("For you."), to))
    assert desk.told() == ["For you."] * 2


async def test_an_answer_is_whispered_where_its_address_does_not_answer_in_time(desk: Desk) -> None:
    client = desk.notifier._messages._client
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1e-9)) as impatient:
        messages = Messages(client, impatient, Pace(rates={}))
        address = client.base_url.replace("api/", "response/any")
        await messages.reply(replace(REPLY_TO, address=address), views.line(Notice("For you.")))
    assert desk.told() == ["For you."]


async def test_an_answer_to_somebody_who_has_left_the_channel_is_given_up(desk: Desk) -> None:
    gone = replace(REPLY_TO, user_id="U0FORMER01", address=None)
    await desk.owe(Post(PostKind.REPLY, "d1", Notice("For you."), gone))
    await desk.owe(Post(PostKind.REPLY, "d1", Notice("For you."), replace(gone, place=Place(None))))
    assert desk.told("U0FORMER01") == []


async def test_a_word_that_nobody_is_owed_is_said_once_and_lost_if_slack_refuses_it(desk: Desk) -> None:
    to = replace(REPLY_TO, address=None)
    desk.meets("chat.postEphemeral", error="internal_error")
    for word in ("Lost.", "Said."):
        desk.notifier.tell(to, views.line(Notice(word)))
        await desk.notifier.drain()
    assert desk.told() == ["Said."]


async def test_the_outbox_is_read_as_long_as_the_notifier_runs(desk: Desk) -> None:
    await desk.keep(FOLLOWED)
    await desk.store.record(posts=[CARD, LINE])
    async with desk.notifier:
        while await desk.store.fetch_owed():
            desk.notifier.wake()
    assert desk.lines() == ["A line."]


async def test_a_post_of_a_proposal_that_is_not_there_is_given_up(desk: Desk) -> None:
    await desk.owe(Post(PostKind.PROGRESS, "p9"))
    assert desk.slack.workspace.messages(INCIDENT) == ()


# Where nothing can be said any more.

WAITING = proposal(state=State.OFFERED, offer=offer())
ELSEWHERE = "C0GENERAL1"
NO_WAY_IN = ["channel_not_found", "is_archived", "not_in_channel", "restricted_action"]


def said_in(desk: Desk, channel: str) -> list[Message]:
    """Every message of a channel and its threads."""
    roots = [message for message in desk.slack.workspace.messages(channel) if message.thread_ts is None]
    return [message for root in roots for message in desk.slack.workspace.messages(channel, root.ts)]


def live_buttons(desk: Desk, *channels: str) -> list[str]:
    """Where buttons can be clicked."""
    return [
        channel
        for channel in channels
        for message in said_in(desk, channel)
        if '"actions"' in json.dumps(message.blocks)
    ]


def everything(desk: Desk, channel: str) -> list[str]:
    return [message.text for message in said_in(desk, channel)]


@pytest.fixture
def has_other_channel(desk: Desk) -> Desk:
    desk.instances["prod-shanghai"] = Instance("prod-shanghai", "cn-shanghai", channel=ELSEWHERE)
    return desk


@pytest.mark.parametrize("error", NO_WAY_IN)
async def test_a_card_stands_in_a_direct_message_if_no_channel_takes_it(desk: Desk, error: str) -> None:
    await desk.keep(replace(WAITING, reply_to=replace(REPLY_TO, address=None)))
    desk.meets("chat.postMessage", error=error)
    await desk.owe(CARD, BUTTONS)
    assert (live_buttons(desk, "D0ONCALLA1", INCIDENT), desk.unshown) == (["D0ONCALLA1"], [])
    assert "the card stands in our direct messages" in desk.told()[0]


@pytest.mark.parametrize("error", NO_WAY_IN)
@pytest.mark.parametrize("post", [CARD, BUTTONS, PROGRESS, LINE, Post(PostKind.BROADCAST, "p1", Notice("The end."))])
async def test_a_channel_that_is_closed_in_the_middle_of_it_silences_nobody(
    has_other_channel: Desk, error: str, post: Post
) -> None:
    desk = has_other_channel
    await desk.keep(replace(FOLLOWED, reply_to=replace(REPLY_TO, address=None)))
    await desk.owe(CARD, BUTTONS, PROGRESS)
    method = "chat.update" if post.notice is None else "chat.postMessage"
    desk.meets(method, error=error)
    await desk.owe(post, Post(PostKind.BROADCAST, "p1", Notice("Stopped 200.")))
    told = everything(desk, ELSEWHERE)
    assert told[0].startswith("🔴 stopping") or "Cancel" in told[0]
    assert "Stopped 200." in "".join(told)
    assert (post.notice is None) or any(post.notice.text in said for said in told)
    assert any("It goes on at a new card in the channel of prod-shanghai" in said for said in desk.told())
    assert live_buttons(desk, INCIDENT, ELSEWHERE) == []


async def test_a_waiting_card_that_moves_is_offered_anew_and_its_old_buttons_are_taken_away(
    has_other_channel: Desk,
) -> None:
    desk = has_other_channel
    await desk.keep(replace(WAITING, reply_to=replace(REPLY_TO, address=None)))
    await desk.owe(CARD, BUTTONS)
    assert live_buttons(desk, INCIDENT) == [INCIDENT]
    desk.meets("chat.update", error="not_in_channel")
    await desk.owe(CARD)
    assert desk.moved == ["p1"]
    assert live_buttons(desk, INCIDENT, ELSEWHERE) == [ELSEWHERE]


async def test_buttons_that_somebody_deleted_are_posted_anew_once(desk: Desk) -> None:
    await desk.keep(WAITING)
    await desk.owe(CARD, BUTTONS)
    desk.meets("chat.update", error="message_not_found")
    await desk.owe(BUTTONS)
    surface = await desk.store.fetch_surface("p1")
    anew = desk.slack.workspace.find(INCIDENT, surface.buttons or "")
    assert anew is not None
    assert anew in desk.slack.workspace.messages(INCIDENT, surface.card)
    assert '"actions"' in json.dumps(anew.blocks)
    assert desk.unshown == []


async def test_a_card_that_somebody_deleted_stands_anew_with_a_new_offer(desk: Desk) -> None:
    await desk.keep(WAITING)
    await desk.owe(CARD, BUTTONS)
    desk.meets("chat.update", error="message_not_found")
    await desk.owe(CARD)
    assert (desk.moved, live_buttons(desk, INCIDENT)) == (["p1"], [INCIDENT])


async def test_a_finished_card_that_somebody_deleted_stays_deleted(desk: Desk) -> None:
    first = await desk.keep(FOLLOWED)
    await desk.owe(CARD)
    await moved(desk, first, **ended())
    desk.meets("chat.update", error="message_not_found")
    await desk.owe(CARD)
    assert len(everything(desk, INCIDENT)) == 1


async def test_a_post_that_nobody_can_be_told_leaves_a_record(desk: Desk) -> None:
    await desk.keep(FOLLOWED)
    await desk.owe(CARD)
    desk.meets("chat.postMessage", error="is_archived")
    desk.meets("conversations.open", error="missing_scope")
    await desk.owe(LINE)
    assert desk.lines() == []
    failed = text("SELECT failure FROM outbox WHERE failure IS NOT NULL")
    assert await desk.database.read(lambda connection: connection.scalars(failed).all()) == ["is_archived"]


async def test_order_in_a_thread_is_kept_however_busy_slack_is(desk: Desk, clock: Clock) -> None:
    await desk.keep(FOLLOWED)
    await desk.owe(CARD)
    desk.meets("chat.postMessage", error="ratelimited", status=429, retry_after=7, times=2)
    lines = [Post(PostKind.LINE, "p1", Notice(f"Line {number}.")) for number in range(12)]
    await desk.owe(*lines)
    assert desk.lines() == [f"Line {number}." for number in range(12)]
    assert clock.slept[:2] == [7.0, 7.0]


async def test_a_card_whose_answer_was_lost_never_has_two_live_button_messages(desk: Desk) -> None:
    await desk.keep(WAITING)
    for method in ("chat.postMessage", "chat.update"):
        desk.meets(method, status=500, is_carried_out=True, times=2)
    await desk.owe(CARD, BUTTONS)
    assert len(live_buttons(desk, INCIDENT)) == 1


async def test_a_process_that_was_paused_while_it_posted_makes_no_second_live_buttons(desk: Desk) -> None:
    """Another process has shown the proposal meanwhile: what this one posted stays text that claims nothing."""
    await desk.keep(WAITING)
    await desk.owe(CARD)
    post = desk.notifier._messages.post

    async def paused(*arguments: Any, **more: Any) -> str:
        posted = await post(*arguments, **more)
        was = await desk.store.fetch_surface("p1")
        theirs = await post(*arguments, **more)
        assert await desk.store.save_surface("p1", replace(was, buttons=theirs), was=was)
        desk.notifier._messages.post = post  # type: ignore[method-assign]
        return posted

    desk.notifier._messages.post = paused  # type: ignore[method-assign]
    await desk.store.record(posts=[BUTTONS])
    await desk.notifier.drain()
    await lapse(desk.database)
    await desk.notifier.drain()
    assert len(live_buttons(desk, INCIDENT)) == 1


async def test_who_lost_its_lane_while_it_showed_a_card_owes_it_again(desk: Desk) -> None:
    first = await desk.keep(FOLLOWED)
    await desk.owe(CARD)
    update = desk.notifier._messages.update

    async def paused(*arguments: Any, **more: Any) -> None:
        await moved(desk, first, **ended())
        await lapse(desk.database)
        [theirs] = await SqlStore(desk.database, clock=desk.clock, owner="other").claim_lanes()
        await update(*arguments, **more)
        desk.notifier._messages.update = update  # type: ignore[method-assign]
        await desk.store.settle(theirs.posts[0], lease=theirs.lease, is_last=True)

    desk.notifier._messages.update = paused  # type: ignore[method-assign]
    await desk.owe(CARD)
    assert desk.thread()[0].text.startswith("🛑 stopped: Cancel")


async def test_who_asked_at_a_terminal_is_told_there_and_never_mentioned(desk: Desk) -> None:
    at_terminal = replace(REPLY_TO, user_id="alice@ops1", place=Place(None), address=None)
    await desk.keep(replace(WAITING, requester="alice@ops1", reply_to=at_terminal))
    await desk.owe(CARD, BUTTONS, Post(PostKind.REPLY, "p1", Notice("For you."), at_terminal))
    shown = json.dumps([message.blocks for message in desk.thread()])
    assert "alice@ops1" in shown
    assert "<@alice" not in shown


# A second command for what waits already shows the card that waits.

SAME = Post(
    PostKind.REPLY,
    "d2",
    Notice("The same is already waiting for a yes.", ("Its reason: it bricks",)),
    replace(REPLY_TO, address=None),
    WAITING.offer.preview if WAITING.offer else None,
    pointing_to="p1",
)


def told_blocks(desk: Desk) -> str:
    return json.dumps([one.blocks for one in desk.slack.workspace.ephemerals("U0ONCALLA1")])


async def test_who_asks_again_sees_the_card_that_waits_and_a_link_to_it(desk: Desk) -> None:
    await desk.keep(WAITING)
    await desk.owe(CARD, BUTTONS)
    await desk.owe(SAME)
    [card, *_] = desk.thread()
    link = f"https://sandbox.slack.com/archives/{INCIDENT}/p{card.ts.replace('.', '')}"
    [told] = desk.told()
    for words in (
        "The same is already waiting for a yes.",
        "Its reason: it bricks",
        "✋ waiting for a yes: Cancel 7glPHmaDYLAYMD1HHutT02 on prod-shanghai",
        "Will not start: ≈212 queued",
        "Probably stops: ≈30 notified",
        f"Open the card: {link}",
    ):
        assert words in told
    blocks = told_blocks(desk)
    assert f'{{"type": "link", "url": "{link}", "text": "Open the card"}}' in blocks
    assert ('"actions"' in blocks, '"button"' in blocks, "Asked by <@U0ONCALLA1>" in blocks) == (False, False, True)


async def test_it_is_shown_as_it_stands_when_the_answer_is_sent(desk: Desk) -> None:
    waiting = await desk.keep(WAITING)
    await desk.owe(CARD)
    await moved(desk, waiting, state=State.FINISHED, outcome=Outcome(OutcomeCode.EXPIRED, Notice("Nobody said yes.")))
    await desk.owe(SAME)
    assert "⌛ expired: Cancel" in desk.told()[0]


@pytest.mark.parametrize("error", ["message_not_found", "channel_not_found", "ratelimited", "internal_error"])
async def test_where_slack_tells_no_link_the_answer_comes_without_one(desk: Desk, error: str) -> None:
    await desk.keep(WAITING)
    await desk.owe(CARD)
    desk.meets("chat.getPermalink", error=error, status=429 if error == "ratelimited" else 200)
    await desk.owe(SAME)
    [told] = desk.told()
    assert ("Will not start" in told, "Open the card" in told + told_blocks(desk)) == (True, False)


@pytest.mark.parametrize("link", [None, 5, "javascript:alert(1)", "http://slack.example/x", "https://" + "x" * 4000])
async def test_a_link_that_is_none_is_left_out(desk: Desk, link: object) -> None:
    await desk.keep(WAITING)
    await desk.owe(CARD)

    async def answer(**asked: object) -> dict[str, object]:
        return {"permalink": link}

    desk.notifier._messages._client.chat_getPermalink = answer  # type: ignore[assignment, method-assign]
    await desk.owe(SAME)
    assert "Open the card" not in desk.told()[0] + told_blocks(desk)


async def test_a_card_that_does_not_stand_yet_or_is_not_known_is_not_linked_to(desk: Desk) -> None:
    await desk.owe(replace(SAME, pointing_to="p9"))
    await desk.keep(WAITING)
    await desk.owe(SAME)
    unknown, unposted = desk.told()
    assert ("Will not start" in unknown, "Will not start" in unposted) == (False, True)
    assert "Open the card" not in unknown + unposted


async def test_a_pointer_without_numbers_is_a_sentence_and_a_link(desk: Desk) -> None:
    await desk.keep(WAITING)
    await desk.owe(CARD)
    await desk.owe(replace(SAME, preview=None))
    [told] = desk.told()
    assert [line.partition(":")[0] for line in told.splitlines()] == [
        "The same is already waiting for a yes.",
        "Its reason",
        "Open the card",
    ]


@pytest.mark.parametrize("text", HOSTILE)
async def test_the_text_of_others_in_a_pending_card_stays_text_and_within_slacks_limits(desk: Desk, text: str) -> None:
    theirs = job(job_id=text, firmware=text, product=text, dest_version=text, description=text)
    shown = preview(part(job=theirs), target=replace(TARGET, job=text))
    hostile = proposal(state=State.OFFERED, offer=offer(preview=shown), reason=text, target=shown.target)
    for operation in (CANCEL, HALT, RATE, HALT_FIRMWARE, CANCEL_DEVICE, RETRY):
        pointed = Pointed(
            replace(hostile, operation=operation.name), operation, "https://sandbox.slack.com/archives/C/p1"
        )
        message = views.reply(replace(SAME, notice=Notice(text, (text,)), preview=shown), pointed)
        assert complaints(list(message.blocks)) == ()
        assert len(message.text) <= 4000
        written = OURS.sub("", message.text)
        assert "<" not in written
        marked = [each["text"] for each in _leaves(message.blocks) if each.get("type") == "mrkdwn"]
        assert "<" not in "".join(OURS.sub("", one) for one in marked)
        assert not [each for each in _leaves(message.blocks) if each.get("type") in ("button", "actions")]


def _leaves(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from _leaves(each)


def test_a_post_of_an_older_version_is_read_and_points_nowhere() -> None:
    body = json.loads(to_json(SAME))
    del body["pointing_to"]
    assert from_json(Post, json.dumps(body)) == replace(SAME, pointing_to=None)
    assert from_json(Post, to_json(SAME)) == SAME

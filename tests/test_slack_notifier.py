"""What is owed reaches people once, in order and true; what Slack does not take now is not forgotten."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from bot.exchange import Post, PostKind
from bot.model import Instance, Notice, Outcome, OutcomeCode, Place
from bot.ports import Transition
from bot.proposals import Proposal, State
from bot.sandbox.workspace import Message
from bot.slack import views
from bot.storage.store import SqlStore
from tests.conftest import Clock, lapse
from tests.desk import INCIDENT, Desk, open_desk
from tests.values import AT, REPLY_TO, TARGET, counts, offer, preview, proposal

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
    desk.meets("chat.update", error="message_not_found", times=2)
    await desk.owe(PROGRESS, PROGRESS, PROGRESS)
    assert len(desk.slack.faults) == 1


async def test_progress_that_slack_does_not_take_now_keeps_no_line_waiting(desk: Desk, clock: Clock) -> None:
    await desk.keep(FOLLOWED)
    await desk.owe(CARD)
    desk.meets("chat.update", error="ratelimited", status=429, retry_after=30)
    await desk.owe(PROGRESS, LINE)
    assert clock.slept == []
    assert [NOTHING_YET in desk.lines()[0], desk.lines()[1]] == [True, "A line."]
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
    assert "Stopped 200." in told[-1]
    assert (post.notice is None) or any(post.notice.text in said for said in told)
    assert any("the card stands in the channel of prod-shanghai" in said for said in desk.told())
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
    assert live_buttons(desk, INCIDENT, ELSEWHERE) == []
    await desk.owe(CARD, BUTTONS)
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
    assert (desk.moved, live_buttons(desk, INCIDENT)) == (["p1"], [])


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

    async def paused(*arguments: Any) -> None:
        await moved(desk, first, **ended())
        await lapse(desk.database)
        [theirs] = await SqlStore(desk.database, clock=desk.clock, owner="other").claim_lanes()
        await update(*arguments)
        desk.notifier._messages.update = update  # type: ignore[method-assign]
        await desk.store.settle(theirs.posts[0], lease=theirs.lease, is_last=True)

    desk.notifier._messages.update = paused  # type: ignore[method-assign]
    await desk.owe(CARD)
    assert desk.thread()[0].text.startswith("🛑 stopped: Cancel")


async def test_a_reply_points_to_the_card_that_is_pending(desk: Desk) -> None:
    await desk.keep(WAITING)
    await desk.owe(CARD, BUTTONS)
    pointing = Post(PostKind.REPLY, "d1", Notice("Already waiting."), replace(REPLY_TO, address=None), pointing_to="p1")
    await desk.owe(pointing)
    [shown] = desk.slack.workspace.ephemerals("U0ONCALLA1")
    assert "|Open the card>" in json.dumps(shown.blocks)
    assert f"/archives/{INCIDENT}/p" in shown.text
    assert '"actions"' not in json.dumps(shown.blocks)
    desk.meets("chat.getPermalink", error="internal_error")
    await desk.owe(pointing, replace(pointing, pointing_to="p9"))
    assert [told for told in desk.told() if "archives" in told] == [shown.text]


async def test_who_asked_at_a_terminal_is_told_there_and_never_mentioned(desk: Desk) -> None:
    at_terminal = replace(REPLY_TO, user_id="alice@ops1", place=Place(None), address=None)
    await desk.keep(replace(WAITING, requester="alice@ops1", reply_to=at_terminal))
    await desk.owe(CARD, BUTTONS, Post(PostKind.REPLY, "p1", Notice("For you."), at_terminal))
    shown = json.dumps([message.blocks for message in desk.thread()])
    assert "alice@ops1" in shown
    assert "<@alice" not in shown

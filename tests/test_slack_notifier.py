"""What is owed reaches people once, in order and true; what Slack does not take now is not forgotten."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from bot.exchange import Post, PostKind
from bot.model import Instance, Notice, Outcome, OutcomeCode, Place
from bot.ports import Transition
from bot.proposals import Proposal, State
from bot.slack import views
from tests.conftest import Clock
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
    for text in ("Lost.", "Said."):
        desk.notifier.tell(to, views.line(Notice(text)))
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

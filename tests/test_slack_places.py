"""A card whose place is lost goes on elsewhere and says so; whatever happens, one message at most can be clicked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select

from bot.exchange import File, FileKind, Post, PostKind
from bot.model import Instance, Notice, Outcome, OutcomeCode, Place, TaskState
from bot.ports import Transition
from bot.proposals import Proposal, State
from bot.sandbox.slack_blocks import buttons
from bot.sandbox.slack_fake import Fault
from bot.sandbox.workspace import Message
from bot.storage.store import SqlStore
from bot.storage.tables import leases, outbox
from tests.conftest import Clock
from tests.desk import INCIDENT, Desk, open_desk
from tests.values import AT, REPLY_TO, TARGET, counts, offer, preview, proposal

OTHER, DIRECT = "C0GENERAL1", "D0ONCALLA1"
PERMANENT = [
    "channel_not_found",
    "is_archived",
    "is_inactive",
    "not_in_channel",
    "no_permission",
    "restricted_action",
    "restricted_action_read_only_channel",
    "ekm_access_denied",
]
CARD, BUTTONS, PROGRESS = (Post(kind, "p1") for kind in (PostKind.CARD, PostKind.BUTTONS, PostKind.PROGRESS))
LINE = Post(PostKind.LINE, "p1", Notice("A line."))
LAST = Post(PostKind.BROADCAST, "p1", Notice("Stopped 200."))
FILE = Post(PostKind.FILE, "p1", file=File(FileKind.MOVING, TARGET))
KINDS = [CARD, BUTTONS, PROGRESS, LINE, LAST, FILE]
REPLY = replace(REPLY_TO, address=None)
OFFERED = proposal(state=State.OFFERED, offer=offer(), reply_to=REPLY)
FOLLOWED = replace(
    OFFERED,
    state=State.FOLLOWING,
    confirmed_by="U0ONCALLA1",
    approved_at=AT,
    called=preview(counts=counts(QUEUED=200)),
    progress={TARGET.job: counts(QUEUED=150, CANCELED=50)},
)


@pytest.fixture
async def desk(clock: Clock, tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_desk(clock, tmp_path) as opened:
        opened.instances["prod-shanghai"] = Instance("prod-shanghai", "cn-shanghai", channel=OTHER)
        opened.listing.tasks = {TaskState.QUEUED: 3}
        yield opened


def lose(desk: Desk, *channels: str, error: str = "is_archived") -> None:
    """From now on Slack takes nothing in these channels."""
    for channel in channels:
        for method in ("chat.postMessage", "chat.update", "chat.postEphemeral", "files.completeUploadExternal"):
            desk.slack.faults.append(Fault(method=method, error=error, times=1000, channel=channel))


def archive(desk: Desk, channel: str) -> None:
    workspace = desk.slack.workspace
    workspace.put_channel(replace(workspace.channels[channel], is_archived=True))


def everything(desk: Desk) -> list[Message]:
    """What everybody sees, in all channels and threads."""
    workspace = desk.slack.workspace
    roots = [one for channel in workspace.channels for one in workspace.messages(channel) if one.thread_ts is None]
    return [one for root in roots for one in workspace.messages(root.channel, root.ts)]


def clickable(desk: Desk, offer_id: str) -> list[Message]:
    """The messages where somebody could say yes to this offer."""
    return [one for one in everything(desk) if any(each["value"] == offer_id for _, each in buttons(one.blocks))]


async def standing(desk: Desk) -> Proposal:
    found = await desk.store.fetch_proposal("p1")
    assert found is not None
    return found


async def yes_at(desk: Desk) -> list[str]:
    """The channels of the messages where a yes counts."""
    now = await standing(desk)
    return [one.channel for one in clickable(desk, now.offer.offer_id if now.offer else "")]


def thread_in(desk: Desk, channel: str) -> list[Message]:
    roots = [one for one in desk.slack.workspace.messages(channel) if one.thread_ts is None]
    return list(desk.slack.workspace.messages(channel, roots[-1].ts)) if roots else []


def texts(messages: list[Message]) -> str:
    return "\n".join(one.text for one in messages)


async def failures(desk: Desk) -> list[str]:
    statement = select(outbox.c.failure).where(outbox.c.failure.is_not(None))
    return list(await desk.store._database.read(lambda connection: connection.scalars(statement).all()))


async def ends(desk: Desk) -> None:
    now = await standing(desk)
    outcome = Outcome(OutcomeCode.STOPPED, Notice("Stopped 200."))
    over = replace(now, version=now.version + 1, state=State.FINISHED, outcome=outcome)
    assert await desk.store.save(Transition(now, over, ()))


# A place that takes nothing from the beginning, or from the middle on.


@pytest.mark.parametrize("error", ["not_in_channel", "channel_not_found"])
@pytest.mark.parametrize("post", KINDS, ids=lambda post: post.kind.value)
async def test_what_cannot_stand_where_it_was_asked_for_stands_in_the_channel_of_its_instance(
    desk: Desk, post: Post, error: str
) -> None:
    await desk.keep(FOLLOWED)
    lose(desk, INCIDENT, error=error)
    await desk.owe(post)
    assert [len(thread_in(desk, INCIDENT)), desk.unshown, await failures(desk)] == [0, [], []]
    assert thread_in(desk, OTHER)[0].text.startswith("👀")
    assert len(thread_in(desk, OTHER)) == (1 if post is CARD else 2)


@pytest.mark.parametrize("error", PERMANENT)
@pytest.mark.parametrize("post", KINDS, ids=lambda post: post.kind.value)
async def test_where_the_place_is_lost_on_the_way_each_post_goes_on_elsewhere_and_says_so(
    desk: Desk, post: Post, error: str
) -> None:
    await desk.keep(FOLLOWED)
    await desk.owe(CARD, BUTTONS, PROGRESS)
    lose(desk, INCIDENT, error=error)
    await desk.owe(post)
    there = thread_in(desk, OTHER)
    assert there[0].text.startswith("👀")
    assert "This began in another channel, which takes nothing from me any more" in texts(there)
    assert {CARD: "👀", BUTTONS: "confirmed by", PROGRESS: "no longer move", FILE: "could not be sent"}.get(
        post, post.notice.text if post.notice else ""
    ) in texts(there)
    assert [each.partition(":")[0] for each in await failures(desk)] == ["completing the upload"] * (post is FILE)


@pytest.mark.parametrize("error", PERMANENT)
@pytest.mark.parametrize("post", [CARD, BUTTONS, LINE, LAST], ids=lambda post: post.kind.value)
async def test_buttons_that_move_count_in_one_place(desk: Desk, post: Post, error: str) -> None:
    await desk.keep(OFFERED)
    await desk.owe(CARD, BUTTONS)
    assert await yes_at(desk) == [INCIDENT]
    lose(desk, INCIDENT, error=error)
    await desk.owe(post)
    assert await yes_at(desk) == [OTHER]
    assert (await standing(desk)).offer != OFFERED.offer


@pytest.mark.parametrize("error", ["not_in_channel", "restricted_action_read_only_channel"])
async def test_what_stood_where_it_was_asked_for_is_cleared_away_where_slack_lets_us(desk: Desk, error: str) -> None:
    await desk.keep(OFFERED)
    await desk.owe(CARD, BUTTONS)
    desk.meets("chat.postMessage", error=error, channel=INCIDENT, times=1000)
    await desk.owe(LINE)
    assert (await yes_at(desk), clickable(desk, "0" * 32)) == ([OTHER], [])
    assert [one.text.endswith("this goes on at a new card.") for one in thread_in(desk, INCIDENT)] == [True, True]


@pytest.mark.parametrize("post", KINDS[:5], ids=lambda post: post.kind.value)
async def test_what_can_stand_nowhere_is_given_up_with_a_record(desk: Desk, post: Post) -> None:
    await desk.keep(FOLLOWED)
    lose(desk, INCIDENT, error="not_in_channel")
    lose(desk, OTHER, DIRECT)
    await desk.owe(post)
    assert (everything(desk), await failures(desk)) == ([], ["not_in_channel"])


@pytest.mark.parametrize("post", [CARD, BUTTONS], ids=lambda post: post.kind.value)
async def test_a_proposal_whose_card_or_buttons_can_stand_nowhere_ends(desk: Desk, post: Post) -> None:
    await desk.keep(OFFERED)
    lose(desk, INCIDENT, error="not_in_channel")
    lose(desk, OTHER, DIRECT)
    await desk.owe(post)
    assert desk.unshown == ["p1: not_in_channel"]


async def test_where_every_place_is_lost_on_the_way_it_ends_and_nothing_goes_in_circles(desk: Desk) -> None:
    await desk.keep(OFFERED)
    await desk.owe(CARD, BUTTONS)
    lose(desk, INCIDENT, OTHER, DIRECT)
    await desk.owe(CARD, BUTTONS, LINE, LAST)
    assert await failures(desk) == ["is_archived"] * 4
    assert desk.unshown == ["p1: is_archived"] * 2


def refuse_threads(desk: Desk, *channels: str) -> list[str]:
    """These channels take no replies; the channels of the cards that are posted, as they come."""
    real = desk.notifier._messages.post
    roots: list[str] = []

    async def post(channel: Any, message: Any, thread: Any = None, **bent: Any) -> str:
        roots.extend([channel] if thread is None else [])
        if thread is not None and channel in channels:
            desk.meets("chat.postMessage", error="restricted_action_non_threadable_channel")
        return await real(channel, message, thread, **bent)

    desk.notifier._messages.post = post  # type: ignore[method-assign]
    return roots


async def test_a_place_that_takes_cards_but_no_threads_is_left_for_the_next_one(desk: Desk) -> None:
    """Each place is tried once: no card goes back to where its buttons were refused."""
    await desk.keep(OFFERED)
    roots = refuse_threads(desk, INCIDENT, OTHER)
    await desk.owe(CARD, BUTTONS)
    assert (roots, await yes_at(desk)) == ([INCIDENT, OTHER, DIRECT], [DIRECT])


@pytest.mark.parametrize("post", [LINE, BUTTONS], ids=lambda post: post.kind.value)
async def test_where_no_place_takes_a_thread_each_gets_one_card_and_that_is_all(desk: Desk, post: Post) -> None:
    await desk.keep(OFFERED)
    roots = refuse_threads(desk, INCIDENT, OTHER, DIRECT)
    await desk.owe(post)
    assert roots == [INCIDENT, OTHER, DIRECT]
    assert "restricted_action_non_threadable_channel" in await failures(desk)
    assert await yes_at(desk) == []


async def test_a_direct_message_that_is_lost_is_the_last_place(desk: Desk) -> None:
    desk.instances.clear()
    await desk.keep(replace(OFFERED, place=Place("C0NEWINC01")))
    await desk.owe(CARD, BUTTONS)
    desk.instances["prod-shanghai"] = Instance("prod-shanghai", "cn-shanghai", channel=OTHER)
    lose(desk, DIRECT, error="user_disabled")
    await desk.owe(LAST)
    assert (await failures(desk), thread_in(desk, OTHER)) == (["user_disabled"], [])


async def test_a_card_that_cannot_be_changed_any_more_stays_and_the_rest_goes_on(desk: Desk) -> None:
    await desk.keep(FOLLOWED)
    await desk.owe(CARD)
    desk.meets("chat.update", error="edit_window_closed")
    await desk.owe(CARD, LAST)
    assert await failures(desk) == ["edit_window_closed"]
    assert desk.lines()[-1].endswith("Stopped 200.")


@pytest.mark.parametrize("error", ["edit_window_closed", "channel_not_found", "cant_update_message"])
async def test_old_buttons_that_cannot_be_taken_away_count_for_nothing(desk: Desk, error: str) -> None:
    await desk.keep(OFFERED)
    await desk.owe(CARD, BUTTONS)
    desk.meets("chat.postMessage", error="not_in_channel", channel=INCIDENT, times=1000)
    desk.meets("chat.update", error=error, channel=INCIDENT, times=1000)
    await desk.owe(LINE)
    assert (await yes_at(desk), len(clickable(desk, "0" * 32))) == ([OTHER], 1)


# The last places: a direct message; and people at terminals, who have none.


async def test_where_no_channel_takes_it_the_card_stands_in_a_direct_message(desk: Desk) -> None:
    desk.instances.clear()
    asker = replace(REPLY, user_id="U0ONCALLB2", place=Place("C0NEWINC01"))
    await desk.keep(replace(OFFERED, requester="U0ONCALLB2", reply_to=asker, place=Place("C0NEWINC01")))
    await desk.owe(CARD, BUTTONS, LINE)
    assert (await yes_at(desk), desk.unshown) == (["D0ONCALLB2"], [])
    said = texts(list(desk.slack.workspace.messages("D0ONCALLB2")))
    assert "I cannot post here, so the card stands in our direct messages" in said
    assert "Open the card: https://sandbox.slack.com/archives/D0ONCALLB2/p" in said


@pytest.mark.parametrize("error", ["missing_scope", "messages_tab_disabled", "user_disabled"])
async def test_a_direct_message_that_is_refused_is_no_place(desk: Desk, error: str) -> None:
    desk.instances.clear()
    await desk.keep(replace(OFFERED, place=Place("C0NEWINC01")))
    desk.meets("conversations.open", error=error, times=1000)
    await desk.owe(CARD)
    assert desk.unshown == ["p1: not_in_channel"]


async def test_the_asker_is_pointed_to_where_the_card_stands_with_a_link(desk: Desk) -> None:
    await desk.keep(replace(OFFERED, place=Place("C0NEWINC01"), reply_to=replace(REPLY, place=Place(INCIDENT))))
    await desk.owe(CARD)
    [told] = desk.told()
    assert told.startswith("I cannot post here, so the card stands in the channel of prod-shanghai")
    [card] = thread_in(desk, OTHER)
    assert told.endswith(f"Open the card: https://sandbox.slack.com/archives/{OTHER}/p{card.ts.replace('.', '')}")


async def test_the_asker_is_told_where_a_card_goes_on(desk: Desk) -> None:
    await desk.keep(OFFERED)
    await desk.owe(CARD, BUTTONS)
    archive(desk, INCIDENT)
    await desk.owe(LINE)
    [told] = [one.text for one in desk.direct()]
    assert "The channel of your card takes nothing from me (it is archived). It goes on at a new card" in told


ALICE = replace(REPLY_TO, user_id="alice@ops1", place=Place(None), address=None)
TYPED = replace(OFFERED, requester="alice@ops1", reply_to=ALICE, place=Place(OTHER))


async def test_a_card_that_was_asked_for_at_a_terminal_stands_in_the_channel_of_its_instance(desk: Desk) -> None:
    await desk.keep(replace(TYPED, place=Place(None)))
    await desk.owe(CARD, BUTTONS)
    assert await yes_at(desk) == [OTHER]
    assert "Asked by alice@ops1 " in json.dumps(list(thread_in(desk, OTHER)[0].blocks))


@pytest.mark.parametrize(
    "user", ["alice@ops1", "<!channel>@ops1", "<@U0VICTIM01>@x", "DOM\\al_ice.b+c$@ops1", "*b*`c`@" + "x" * 4000]
)
async def test_somebody_at_a_terminal_is_shown_as_text_and_never_as_a_mention(desk: Desk, user: str) -> None:
    over = Outcome(OutcomeCode.DISMISSED, Notice("Dismissed."))
    people: dict[str, Any] = {"requester": user, "reply_to": replace(ALICE, user_id=user)}
    typed = replace(TYPED, **people, confirmed_by=user, approved_at=AT, dismissed_by=user)
    await desk.keep(replace(typed, state=State.FINISHED, outcome=over))
    await desk.owe(CARD, BUTTONS)
    shown = json.dumps([[one.text, list(one.blocks)] for one in thread_in(desk, OTHER)])
    assert ("<@" in shown, "<!channel" in shown) == (False, False)
    assert user[-2:] in shown or "…" in shown


async def test_what_is_owed_to_a_terminal_is_left_to_it(desk: Desk) -> None:
    lost = replace(TYPED, place=Place("C0NEWINC01"))
    await desk.keep(lost)
    file = File(FileKind.TASKS, TARGET)
    await desk.owe(CARD, Post(PostKind.REPLY, "d1", Notice("For you."), ALICE))
    await desk.owe(Post(PostKind.FILE, "d1", reply_to=ALICE, file=file))
    assert (await failures(desk), desk.direct(), "For you." in texts(everything(desk))) == ([], [], False)


async def test_a_card_of_a_terminal_that_finds_no_channel_ends_its_proposal(desk: Desk) -> None:
    lose(desk, OTHER, error="not_in_channel")
    await desk.keep(TYPED)
    await desk.owe(CARD)
    assert (desk.unshown, desk.direct()) == (["p1: not_in_channel"], [])


# Channels that are archived, and messages that somebody deletes.


async def test_the_last_line_of_a_channel_that_was_archived_reaches_people_elsewhere(desk: Desk) -> None:
    await desk.keep(FOLLOWED)
    await desk.owe(CARD, BUTTONS, PROGRESS)
    archive(desk, INCIDENT)
    await ends(desk)
    await desk.owe(LAST, CARD, BUTTONS, PROGRESS)
    card, last, *rest = thread_in(desk, OTHER)
    assert card.text.startswith("🛑 stopped: Cancel")
    assert (last.is_broadcast, last.text.splitlines()[1:]) == (
        True,
        ["Stopped 200.", "This began in another channel, which takes nothing from me any more: it is archived."],
    )
    assert "I no longer watch" in texts(rest)


async def test_a_file_in_a_channel_that_was_archived_is_told_of_elsewhere(desk: Desk) -> None:
    await desk.keep(FOLLOWED)
    await desk.owe(CARD)
    archive(desk, INCIDENT)
    await desk.owe(FILE)
    assert "could not be sent: nobody may post in that channel now; it may be archived" in texts(thread_in(desk, OTHER))


def remove(desk: Desk, *positions: int) -> None:
    messages = desk.thread()
    for position in positions:
        desk.slack.workspace.remove(messages[position])


@pytest.mark.parametrize("position", [0, 1, 2], ids=["card", "buttons", "progress"])
@pytest.mark.parametrize("is_offered", [True, False], ids=["offered", "followed"])
async def test_a_message_that_somebody_deleted_is_posted_anew_once(desk: Desk, position: int, is_offered: bool) -> None:
    await desk.keep(replace(FOLLOWED, state=State.OFFERED if is_offered else State.FOLLOWING))
    await desk.owe(CARD, BUTTONS, PROGRESS)
    remove(desk, position)
    for _ in range(2):
        desk.clock.pass_by(60)
        await desk.owe(CARD, BUTTONS, PROGRESS)
    thread = thread_in(desk, INCIDENT)
    assert await yes_at(desk) == ([INCIDENT] if is_offered else [])
    is_missed = is_offered or position != 1
    assert len(thread) == (4 if position == 0 else 3 if is_missed else 2)
    assert ("The first card of this was deleted" in texts(thread)) is (position == 0)
    assert sum("no longer move" in one.text for one in thread) == 1


@pytest.mark.parametrize("position", [0, 1, 2], ids=["card", "buttons", "progress"])
async def test_what_somebody_deleted_after_the_end_stays_deleted(desk: Desk, position: int) -> None:
    await desk.keep(FOLLOWED)
    await desk.owe(CARD, BUTTONS, PROGRESS)
    await ends(desk)
    remove(desk, position)
    await desk.owe(CARD, BUTTONS, PROGRESS)
    assert len(everything(desk)) == (2 if position else 0)


@pytest.mark.parametrize("post", [LINE, LAST, BUTTONS], ids=lambda post: post.kind.value)
async def test_a_thread_without_its_card_gets_a_new_one_and_keeps_one_place_for_the_yes(desk: Desk, post: Post) -> None:
    await desk.keep(OFFERED)
    await desk.owe(CARD, BUTTONS)
    orphan = desk.thread()[1]
    remove(desk, 0)
    await desk.owe(post, CARD, BUTTONS)
    now = desk.slack.workspace.find(INCIDENT, orphan.ts)
    if post is not BUTTONS:
        assert "Stopped 200." in texts(thread_in(desk, INCIDENT)) or "A line." in texts(thread_in(desk, INCIDENT))
    assert now is not None
    assert now.text.endswith("this goes on at a new card.")
    assert await yes_at(desk) == [INCIDENT]


async def test_a_locked_thread_goes_on_at_a_new_card_of_the_same_channel(desk: Desk) -> None:
    await desk.keep(OFFERED)
    await desk.owe(CARD, BUTTONS)
    desk.meets("chat.postMessage", error="restricted_action_thread_locked")
    await desk.owe(LAST)
    roots = [one for one in desk.slack.workspace.messages(INCIDENT) if one.thread_ts is None]
    assert (len(roots), await yes_at(desk)) == (2, [INCIDENT])


async def test_a_button_message_that_is_not_ours_any_more_is_posted_anew_under_a_new_offer(desk: Desk) -> None:
    await desk.keep(OFFERED)
    await desk.owe(CARD, BUTTONS)
    desk.meets("chat.update", error="cant_update_message")
    await desk.owe(BUTTONS)
    assert (await yes_at(desk), len(clickable(desk, "0" * 32))) == ([INCIDENT], 1)
    assert (await standing(desk)).offer != OFFERED.offer


async def test_buttons_that_never_stay_are_given_up_and_the_proposal_ends(desk: Desk) -> None:
    await desk.keep(OFFERED)
    await desk.owe(CARD)
    desk.meets("chat.update", error="message_not_found", times=1000)
    await desk.owe(BUTTONS)
    assert (desk.unshown, await failures(desk)) == (["p1: message_not_found"], ["message_not_found"])
    assert await yes_at(desk) == []


# Answers that are lost, and processes that die.


@pytest.mark.parametrize("lost", range(1, 9))
async def test_however_many_answers_are_lost_one_message_can_be_clicked(desk: Desk, lost: int) -> None:
    await desk.keep(OFFERED)
    desk.meets("*", status=500, is_carried_out=True, times=lost)
    await desk.owe(CARD, BUTTONS)
    assert await yes_at(desk) == [INCIDENT]
    desk.meets("*", status=500, is_carried_out=True, times=lost)
    await ends(desk)
    await desk.owe(LAST, CARD, BUTTONS)
    assert (await yes_at(desk), [one for one in everything(desk) if '"actions"' in json.dumps(one.blocks)]) == ([], [])


@pytest.mark.parametrize("lost", range(1, 9))
async def test_however_many_answers_are_lost_while_it_moves_one_message_can_be_clicked(desk: Desk, lost: int) -> None:
    await desk.keep(OFFERED)
    await desk.owe(CARD, BUTTONS)
    archive(desk, INCIDENT)
    desk.meets("*", status=500, is_carried_out=True, times=lost)
    await desk.owe(LINE)
    assert await yes_at(desk) == [OTHER]


class Mortal:
    """A store whose process dies at one of its units of work: before it is carried out, or after."""

    def __init__(self, store: SqlStore, *, dies_at: int, is_after: bool) -> None:
        self._store = store
        self._dies_at = dies_at
        self._is_after = is_after
        self.units = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)

        async def unit(*args: Any, **kwargs: Any) -> Any:
            self.units += 1
            is_last = self.units == self._dies_at
            if is_last and not self._is_after:
                raise asyncio.CancelledError
            answer = await found(*args, **kwargs)
            if is_last:
                raise asyncio.CancelledError
            return answer

        return found if name == "claim_lanes" else unit


async def die(desk: Desk, *, at: int, is_after: bool, posts: tuple[Post, ...]) -> int:
    """Owes these posts to a process that dies at its unit `at`, and lets another go on when the leases have lapsed.

    How many units it came to.
    """
    await desk.store.record(posts=posts)
    mortal = Mortal(desk.store, dies_at=at, is_after=is_after)
    for part in (desk.notifier, desk.notifier._surfaces):
        part._store = mortal
    await desk.notifier.drain()
    await desk.store._database.run(lambda connection: connection.execute(delete(leases)) and None)
    desk.start_anew()
    await desk.owe()
    return mortal.units


UNITS, UNITS_OF_A_MOVE = 18, 32
"""More than the stories take."""


async def test_the_stories_of_dying_processes_reach_every_unit(desk: Desk) -> None:
    await desk.keep(OFFERED)
    lengths = [await die(desk, at=0, is_after=False, posts=(CARD, BUTTONS, LINE))]
    await ends(desk)
    lengths.append(await die(desk, at=0, is_after=False, posts=(LAST, CARD, BUTTONS)))
    archive(desk, INCIDENT)
    moved = await die(desk, at=0, is_after=False, posts=(LINE, CARD, BUTTONS))
    assert 10 < max(lengths) < UNITS
    assert UNITS < moved < UNITS_OF_A_MOVE


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(1, UNITS))
async def test_wherever_a_process_dies_another_shows_one_message_to_click(desk: Desk, at: int, is_after: bool) -> None:
    await desk.keep(OFFERED)
    await die(desk, at=at, is_after=is_after, posts=(CARD, BUTTONS, LINE))
    assert await yes_at(desk) == [INCIDENT]
    assert any(one.text == "A line." for one in everything(desk))
    await ends(desk)
    await die(desk, at=at, is_after=is_after, posts=(LAST, CARD, BUTTONS))
    assert await yes_at(desk) == []
    assert [one.text for one in everything(desk) if one.is_broadcast]


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(1, UNITS_OF_A_MOVE))
async def test_wherever_a_process_dies_while_a_card_moves_one_message_can_be_clicked(
    desk: Desk, at: int, is_after: bool
) -> None:
    await desk.keep(OFFERED)
    await desk.owe(CARD, BUTTONS)
    archive(desk, INCIDENT)
    await die(desk, at=at, is_after=is_after, posts=(LINE, CARD, BUTTONS))
    assert await yes_at(desk) == [OTHER]
    assert "A line." in texts(everything(desk))


async def test_a_process_that_was_away_while_another_moved_the_card_writes_nothing(desk: Desk) -> None:
    """Its surface is out of date, so what it posted stays a text that claims nothing."""
    await desk.keep(OFFERED)
    await desk.owe(CARD)
    surfaces = desk.notifier._surfaces
    real = desk.notifier._messages.post

    async def post(*args: Any, **kwargs: Any) -> str:
        posted = await real(*args, **kwargs)
        desk.start_anew()
        await desk.notifier.drain()
        desk.notifier._messages.post = real  # type: ignore[method-assign]
        await desk.notifier._surfaces.show_buttons(OFFERED)
        return posted

    desk.notifier._messages.post = post  # type: ignore[method-assign]
    with pytest.raises(Exception, match="another process"):
        await surfaces.show_buttons(OFFERED)
    assert await yes_at(desk) == [INCIDENT]

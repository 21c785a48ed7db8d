"""Posts leave as fast as Slack takes them, the urgent ones first; what Slack asks for is done by everybody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slack_sdk.errors import SlackApiError

from bot.exchange import Post, PostKind
from bot.model import Notice, Outcome, OutcomeCode
from bot.ports import Transition
from bot.proposals import State
from bot.sandbox.slack_pace import PostingPace
from bot.slack import views
from bot.slack.pace import LINES_KEPT, RATES, Method, NoSpareTurn, Pace, Rate, Urgency
from tests.conftest import Clock
from tests.desk import INCIDENT, Desk, open_desk
from tests.values import REPLY_TO, TARGET, counts, offer, preview, proposal

TWO = {Method.POST: Rate(2, 1.0), Method.UPDATE: Rate(2, 1.0)}


@pytest.fixture
async def desk(clock: Clock, tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_desk(clock, tmp_path) as opened:
        yield opened


class Watch:
    """A clock in seconds that stands until everybody sleeps, then goes on to who wakes first."""

    def __init__(self) -> None:
        self.at = 1000.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def __call__(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.at + seconds, woken))
        await woken

    async def run(self, *tasks: asyncio.Task[None]) -> None:
        while not all(task.done() for task in tasks):
            for _ in range(10):
                await asyncio.sleep(0)
            self._sleepers = [each for each in self._sleepers if not each[1].done()]
            if self._sleepers:
                self.at, woken = min(self._sleepers, key=lambda each: each[0])
                woken.set_result(None)


def paced(watch: Watch, rates: Mapping[Method, Rate] = TWO) -> Pace:
    return Pace(now=watch, sleep=watch.sleep, rates=rates)


class Left:
    """Who left when, in the order of leaving."""

    def __init__(self, watch: Watch, pace: Pace) -> None:
        self.watch = watch
        self.pace = pace
        self.names: list[str] = []
        self.at: list[float] = []

    def go(
        self, name: str, *, urgency: Urgency = Urgency.SOON, channel: str = "C1", method: Method = Method.POST
    ) -> asyncio.Task[None]:
        async def leave() -> None:
            await self.pace.turn(method, channel, urgency)
            self.names.append(name)
            self.at.append(self.watch.at - 1000)

        return asyncio.ensure_future(leave())


async def test_a_burst_leaves_at_once_and_then_one_message_a_second() -> None:
    watch = Watch()
    left = Left(watch, paced(watch))
    await watch.run(*(left.go(str(number)) for number in range(5)))
    assert left.names == ["0", "1", "2", "3", "4"]
    assert left.at == pytest.approx([0, 0, 1, 2, 3], abs=0.01)


async def test_channels_do_not_wait_for_each_other() -> None:
    watch = Watch()
    left = Left(watch, paced(watch))
    await watch.run(*(left.go(f"{channel}{number}", channel=channel) for channel in ("C1", "C2") for number in "12"))
    assert left.at == [0, 0, 0, 0]


async def test_updates_wait_for_nobody_but_what_can_be_said_later_leaves_them_room_in_all_channels() -> None:
    watch = Watch()
    left = Left(watch, paced(watch, {Method.UPDATE: Rate(4, 1.0, is_loose=True)}))
    await watch.run(*(left.go(f"C{number}", channel=f"C{number}", method=Method.UPDATE) for number in range(6)))
    assert left.at == [0] * 6
    with pytest.raises(NoSpareTurn):
        await left.pace.turn(Method.UPDATE, "C9", Urgency.SPARE)
    watch.at += 3
    await left.pace.turn(Method.UPDATE, "C9", Urgency.SPARE)
    with pytest.raises(NoSpareTurn):
        await left.pace.turn(Method.UPDATE, "C9", Urgency.SPARE)


async def test_what_people_wait_for_goes_first_also_when_others_came_before() -> None:
    watch = Watch()
    left = Left(watch, paced(watch))
    tasks = [left.go("burst"), left.go("burst"), left.go("late", urgency=Urgency.LATE), left.go("line")]
    await asyncio.sleep(0)
    tasks += [left.go("card", urgency=Urgency.NOW), left.go("line 2"), left.go("buttons", urgency=Urgency.NOW)]
    await watch.run(*tasks)
    assert left.names == ["burst", "burst", "card", "buttons", "line", "line 2", "late"]


async def test_what_can_be_said_later_takes_no_turn_that_others_may_need() -> None:
    watch = Watch()
    pace = paced(watch, {Method.POST: Rate(4, 1.0)})
    await pace.turn(Method.POST, "C1", Urgency.SPARE)
    await pace.turn(Method.POST, "C1", Urgency.SPARE)
    with pytest.raises(NoSpareTurn):
        await pace.turn(Method.POST, "C1", Urgency.SPARE)
    left = Left(watch, pace)
    await watch.run(left.go("card", urgency=Urgency.NOW), left.go("line"))
    assert left.at == [0, 0]


async def test_while_others_wait_nothing_is_spared() -> None:
    watch = Watch()
    pace = paced(watch)
    left = Left(watch, pace)
    tasks = [left.go(str(number)) for number in range(3)]
    await asyncio.sleep(0)
    watch.at += 60
    with pytest.raises(NoSpareTurn):
        await pace.turn(Method.POST, "C1", Urgency.SPARE)
    await watch.run(*tasks)


async def test_a_rest_that_slack_asks_for_is_everybodys_in_every_channel_but_of_that_method_alone() -> None:
    watch = Watch()
    left = Left(watch, paced(watch))
    left.pace.rest(Method.POST, 30)
    left.pace.rest(Method.POST, 5)  # a shorter one does not end it
    with pytest.raises(NoSpareTurn):
        await left.pace.turn(Method.POST, "C9", Urgency.SPARE)
    await watch.run(left.go("C1"), left.go("C2", channel="C2"), left.go("update", method=Method.UPDATE))
    assert sorted(zip(left.names, left.at, strict=True)) == [("C1", 30), ("C2", 30), ("update", 0)]


async def test_a_rest_that_begins_while_somebody_waits_holds_for_who_waits() -> None:
    watch = Watch()
    left = Left(watch, paced(watch))
    tasks = [left.go(str(number)) for number in range(3)]
    await asyncio.sleep(0)
    left.pace.rest(Method.POST, 10)
    await watch.run(*tasks)
    assert left.at == [0, 0, 10]


async def test_who_gives_up_waiting_keeps_nobody_waiting() -> None:
    watch = Watch()
    left = Left(watch, paced(watch))
    first, second, third, fourth = (left.go(str(number)) for number in range(4))
    await asyncio.sleep(0)
    third.cancel()
    await watch.run(first, second, third, fourth)
    assert (left.names, left.at) == (["0", "1", "3"], pytest.approx([0, 0, 1], abs=0.01))


async def test_a_clock_that_jumps_back_stops_nobody_for_longer_than_slack_asked_for() -> None:
    watch = Watch()
    left = Left(watch, paced(watch))
    await watch.run(left.go("0"), left.go("1"))
    left.pace.rest(Method.POST, 10)
    watch.at -= 3600
    await watch.run(left.go("after"))
    assert watch.at == pytest.approx(1000 - 3600 + 10)


async def test_who_waits_gets_on_also_where_the_clock_stands() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    pace = Pace(now=lambda: 1000.0, sleep=sleep, rates=TWO)
    for _ in range(4):
        await pace.turn(Method.POST, "C1", Urgency.NOW)
    pace.rest(Method.POST, 30)
    await pace.turn(Method.POST, "C1", Urgency.NOW)
    assert slept == pytest.approx([1, 1, 30], abs=0.01)


async def test_without_rates_only_what_slack_asks_for_is_waited_for() -> None:
    watch = Watch()
    left = Left(watch, paced(watch, {}))
    await watch.run(*(left.go(str(number)) for number in range(50)))
    await left.pace.turn(Method.POST, "C1", Urgency.SPARE)
    left.pace.rest(Method.POST, 3)
    await watch.run(left.go("after"))
    assert (set(left.at[:50]), left.at[50]) == ({0}, 3)


async def test_many_channels_leave_no_memory_of_those_that_are_quiet() -> None:
    watch = Watch()
    pace = paced(watch)
    for number in range(LINES_KEPT):
        await pace.turn(Method.POST, f"C{number}", Urgency.NOW)
    watch.at += 60
    await pace.turn(Method.POST, "C0", Urgency.NOW)
    await pace.turn(Method.POST, "Cnew", Urgency.NOW)
    assert len(pace._lines) == 2


@given(
    arrivals=st.lists(st.tuples(st.floats(0, 30), st.sampled_from(list(Urgency)[:3])), max_size=25),
    burst=st.integers(1, 5),
    seconds=st.floats(0.1, 3),
)
def test_no_span_ever_sees_more_than_a_burst_and_what_its_length_allows(
    arrivals: list[tuple[float, Urgency]], burst: int, seconds: float
) -> None:
    watch = Watch()
    left = Left(watch, paced(watch, {Method.POST: Rate(burst, seconds)}))

    async def arrive(after: float, urgency: Urgency) -> None:
        await watch.sleep(after)
        await left.go("one", urgency=urgency)

    async def all_of_them() -> None:
        await watch.run(*(asyncio.ensure_future(arrive(after, urgency)) for after, urgency in arrivals))

    asyncio.run(all_of_them())
    assert len(left.at) == len(arrivals)
    for first, began in enumerate(left.at):
        for last, ended in enumerate(left.at[first:], first):
            assert last - first + 1 <= burst + (ended - began) / seconds + 0.01


# With the outbox: the fake Slack keeps a pace of its own, by the same clock.

FOLLOWED = proposal(
    state=State.FOLLOWING,
    offer=offer(),
    called=preview(counts=counts(QUEUED=200)),
    progress={TARGET.job: counts(QUEUED=150, CANCELED=50)},
)
CARD, PROGRESS = Post(PostKind.CARD, "p1"), Post(PostKind.PROGRESS, "p1")
TOLD = "{} % of ≈200 asked to stop no longer move"


def line(number: int, *, lane: str = "p1") -> Post:
    return Post(PostKind.LINE, lane, Notice(f"Line {number} of {lane}."))


def slack_takes(desk: Desk, *, burst: int, seconds: float = 1.0) -> PostingPace:
    desk.slack.pace = PostingPace(burst=burst, seconds=seconds, now=lambda: desk.clock().timestamp())
    return desk.slack.pace


async def test_a_slack_with_the_documented_rate_never_has_to_refuse(desk: Desk, clock: Clock) -> None:
    taken = slack_takes(desk, burst=RATES[Method.POST].burst)
    await desk.keep(FOLLOWED)
    began = clock.at
    await desk.owe(CARD, *(line(number) for number in range(30)))
    assert taken.refused == 0
    assert desk.lines() == [f"Line {number} of p1." for number in range(30)]
    assert (clock.at - began).total_seconds() == pytest.approx(31 - RATES[Method.POST].burst, abs=0.1)


async def test_a_stricter_slack_is_obeyed_and_each_thread_keeps_its_order(desk: Desk) -> None:
    taken = slack_takes(desk, burst=2, seconds=3.0)
    lanes = ["p1", "p2", "p3"]
    for number, lane in enumerate(lanes):
        made = offer(offer_id=lane * 16)
        await desk.keep(
            proposal(proposal_id=lane, target=replace(TARGET, job=f"J{number}"), state=State.OFFERED, offer=made)
        )
    posts = [line(number, lane=lane) for number in range(6) for lane in lanes]
    await desk.owe(*posts)
    threads = [one for one in desk.slack.workspace.messages(INCIDENT) if one.thread_ts is None]
    assert taken.refused > 0
    assert len(threads) == 3
    for root in threads:
        texts = [one.text for one in desk.slack.workspace.messages(INCIDENT, root.ts)[1:]]
        [lane] = {text[-3:] for text in texts}
        assert texts == [f"Line {number} of {lane}" for number in range(6)]


async def test_retry_after_is_waited_for_by_who_posts_elsewhere_too(desk: Desk, clock: Clock) -> None:
    messages, hello = desk.notifier._messages, views.line(Notice("Hello."))
    desk.meets("chat.postMessage", error="ratelimited", status=429, retry_after=30)
    with pytest.raises(SlackApiError):
        await messages.post(INCIDENT, hello)
    await messages.post("C0GENERAL1", hello)
    assert clock.slept == [30.0]


async def test_a_429_without_a_number_is_waited_for_as_well(desk: Desk, clock: Clock) -> None:
    desk.meets("chat.postMessage", error="rate_limited", status=429)
    await desk.keep(FOLLOWED)
    await desk.owe(CARD)
    assert sum(clock.slept) >= 1
    assert len(desk.thread()) == 1


async def test_progress_takes_no_turn_that_a_card_may_need_but_the_last_one_comes(desk: Desk, clock: Clock) -> None:
    first = await desk.keep(FOLLOWED)
    await desk.owe(CARD, PROGRESS)
    for _ in range(RATES[Method.UPDATE].burst // 2):
        await desk.owe(CARD)
    second = replace(first, version=1, progress={TARGET.job: counts(QUEUED=50, CANCELED=150)})
    assert await desk.store.save(Transition(first, second, ()))
    await desk.owe(PROGRESS, line(1))
    assert [TOLD.format(25) in desk.lines()[0], desk.lines()[1]] == [True, "Line 1 of p1."]
    outcome = Outcome(OutcomeCode.STOPPED, Notice("Stopped 200."))
    ended = replace(second, version=2, state=State.FINISHED, outcome=outcome)
    assert await desk.store.save(Transition(second, ended, ()))
    await desk.owe(PROGRESS)
    assert (TOLD.format(75) in desk.lines()[0], clock.slept) == (True, [])


async def test_what_waited_for_its_turn_is_shown_as_it_stands_then(desk: Desk) -> None:
    first = await desk.keep(proposal(state=State.OFFERED, offer=offer()))
    await desk.owe(CARD)
    pace = desk.notifier._messages._pace
    real = pace.turn

    async def turn(method: Method, channel: str, urgency: Urgency) -> None:
        await real(method, channel, urgency)
        if method is Method.UPDATE:
            outcome = Outcome(OutcomeCode.DISMISSED, Notice("Dismissed."))
            over = replace(first, version=1, state=State.FINISHED, outcome=outcome)
            assert await desk.store.save(Transition(first, over, ()))

    pace.turn = turn  # type: ignore[method-assign]
    await desk.owe(Post(PostKind.BUTTONS, "p1"))
    assert desk.lines()[0].endswith("⚪ dismissed.")


async def test_an_answer_for_one_person_is_put_off_as_long_as_slack_asks(desk: Desk, clock: Clock) -> None:
    desk.meets("chat.postEphemeral", error="ratelimited", status=429, retry_after=7)
    await desk.owe(Post(PostKind.REPLY, "d1", Notice("For you."), replace(REPLY_TO, address=None)))
    assert (desk.told(), clock.slept) == (["For you."], [7.0])

"""The budget of calls, on a clock that stands until it is moved."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Callable
from itertools import count

import pytest

from bot.alibaba.budget import LIMITS, Budget, CallClass
from bot.errors import CloudLost, CloudRefused, CloudThrottled, CloudUnreachable

ACTION = "CancelOTATaskByJob"
LIMIT = LIMITS[ACTION]


class Hours:
    """A timer that fires only when its time is moved."""

    def __init__(self) -> None:
        self.now = 100.0
        self._due: list[tuple[float, int, Callable[..., object], tuple[object, ...]]] = []
        self._order = count()

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[..., object], *args: object) -> None:
        heapq.heappush(self._due, (when, next(self._order), callback, args))

    async def pass_by(self, seconds: float) -> None:
        until = self.now + seconds
        while self._due and self._due[0][0] <= until:
            when, _, callback, args = heapq.heappop(self._due)
            self.now = max(self.now, when)
            callback(*args)
            await settle()
        self.now = until
        await settle()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def hours() -> Hours:
    return Hours()


@pytest.fixture
def budget(hours: Hours) -> Budget:
    return Budget(timer=hours)


class Calls:
    """Calls that start as soon as the budget lets them, last `seconds` and note when they started."""

    def __init__(self, budget: Budget, hours: Hours) -> None:
        self.budget, self.hours = budget, hours
        self.started: list[tuple[str, float]] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def make(
        self,
        name: str = "",
        call_class: CallClass = CallClass.STOP,
        *,
        seconds: float = 0.0,
        error: Exception | None = None,
        account: str = "prod",
        action: str = ACTION,
    ) -> asyncio.Task[None]:
        async def call() -> None:
            async with self.budget.slot(account, action, call_class, timeout_seconds=10):
                self.started.append((name, self.hours.now))
                if seconds:
                    answered = asyncio.get_running_loop().create_future()
                    self.hours.call_at(self.hours.now + seconds, answered.set_result, None)
                    await answered
                if error is not None:
                    raise error

        task = asyncio.create_task(call())
        self.tasks.append(task)
        await settle()
        return task

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.started]


@pytest.fixture
async def calls(budget: Budget, hours: Hours) -> AsyncIterator[Calls]:
    calls = Calls(budget, hours)
    yield calls
    for task in calls.tasks:
        task.cancel()
    await asyncio.gather(*calls.tasks, return_exceptions=True)


async def finish(calls: Calls, hours: Hours) -> None:
    await hours.pass_by(100)
    await asyncio.gather(*calls.tasks, return_exceptions=True)


async def test_no_sliding_second_holds_more_calls_than_the_limit(calls: Calls, hours: Hours) -> None:
    for number in range(17):
        await calls.make(seconds=0.1 * (number % 4))
    await finish(calls, hours)
    starts = [at for _, at in calls.started]
    assert len(starts) == 17
    assert all(later - earlier > 1 for earlier, later in zip(starts, starts[LIMIT:], strict=False))


async def test_a_slot_is_free_again_a_second_after_its_call_completed(calls: Calls, hours: Hours) -> None:
    for _ in range(LIMIT):
        await calls.make(seconds=2)
    await calls.make("waits")
    await hours.pass_by(3.0)
    assert "waits" not in calls.names
    await hours.pass_by(0.1)
    assert "waits" in calls.names


async def test_a_slot_whose_answer_was_lost_is_held_until_the_time_out_and_a_second(calls: Calls, hours: Hours) -> None:
    for _ in range(LIMIT):
        await calls.make(error=CloudLost("reset"))
    await calls.make("waits")
    await hours.pass_by(10.9)
    assert "waits" not in calls.names
    await hours.pass_by(0.2)
    assert "waits" in calls.names


@pytest.mark.parametrize("error", [CloudRefused("c", "m"), CloudUnreachable("down")], ids=["refused", "not sent"])
async def test_a_refused_or_unsent_call_gives_its_slot_back_after_a_second(
    calls: Calls, hours: Hours, error: Exception
) -> None:
    for _ in range(LIMIT):
        await calls.make(error=error)
    await calls.make("waits")
    await hours.pass_by(1.1)
    assert "waits" in calls.names


async def test_stops_go_before_previews_and_those_before_followers(calls: Calls, hours: Hours) -> None:
    for _ in range(LIMIT):
        await calls.make("first", seconds=1)
    for name, call_class in [
        ("follow", CallClass.FOLLOW),
        ("preview 1", CallClass.PREVIEW),
        ("stop 1", CallClass.STOP),
        ("preview 2", CallClass.PREVIEW),
        ("stop 2", CallClass.STOP),
    ]:
        await calls.make(name, call_class)
    await finish(calls, hours)
    assert calls.names[LIMIT:] == ["stop 1", "stop 2", "preview 1", "preview 2", "follow"]


async def test_followers_hold_at_most_half_of_the_slots(calls: Calls) -> None:
    for _ in range(LIMIT):
        await calls.make("follow", CallClass.FOLLOW, seconds=1)
    await calls.make("stop", seconds=1)
    assert calls.names == ["follow"] * (LIMIT // 2) + ["stop"]


async def test_throttling_makes_later_calls_of_that_operation_wait(calls: Calls, hours: Hours) -> None:
    await calls.make(error=CloudThrottled("Throttling", "slow", retry_after_seconds=3))
    await calls.make("waits")
    await calls.make("another operation", action="QueryOTAJob")
    await calls.make("another account", account="test")
    assert calls.names[1:] == ["another operation", "another account"]
    await hours.pass_by(2.9)
    assert "waits" not in calls.names
    await hours.pass_by(0.2)
    assert "waits" in calls.names


async def test_a_pause_that_was_not_named_is_a_second(calls: Calls, hours: Hours) -> None:
    await calls.make(error=CloudThrottled("Throttling", "slow"))
    await calls.make("waits")
    await hours.pass_by(0.9)
    assert "waits" not in calls.names
    await hours.pass_by(0.2)
    assert "waits" in calls.names


async def test_the_longer_of_two_pauses_counts(calls: Calls, hours: Hours) -> None:
    await calls.make(seconds=0.5, error=CloudThrottled("Throttling", "slow", retry_after_seconds=3.5))
    await calls.make(error=CloudThrottled("Throttling", "slow", retry_after_seconds=1))
    await hours.pass_by(0.6)
    await calls.make("waits")
    await hours.pass_by(3)
    assert "waits" not in calls.names
    await hours.pass_by(0.5)
    assert "waits" in calls.names


async def test_a_pause_ends_even_if_the_timer_fires_a_little_early(calls: Calls, hours: Hours) -> None:
    await calls.make(error=CloudThrottled("Throttling", "slow", retry_after_seconds=1))
    await calls.make("waits")
    when, _, callback, args = next(due for due in sorted(hours._due) if due[0] == 101.0)
    hours.now = when - 1e-9
    callback(*args)
    await settle()
    assert "waits" in calls.names


async def test_who_gives_up_waiting_takes_no_slot(calls: Calls, hours: Hours) -> None:
    for _ in range(LIMIT):
        await calls.make(seconds=1)
    gone = await calls.make("gone")
    await calls.make("stays")
    gone.cancel()
    await finish(calls, hours)
    assert calls.names[LIMIT:] == ["stays"]


async def test_who_gives_up_in_the_moment_of_being_let_in_gives_the_slot_back(
    calls: Calls, hours: Hours, budget: Budget
) -> None:
    for _ in range(LIMIT):
        await calls.make()
    gone = await calls.make("gone")
    hours.now += 2
    lane = budget._lanes["prod", ACTION]
    for _ in range(LIMIT):
        lane.release(CallClass.STOP)  # lets "gone" in …
    gone.cancel()  # … which is cancelled before it runs
    hours._due.clear()
    for number in range(LIMIT):
        await calls.make(f"later {number}", seconds=1)
    assert calls.names[LIMIT:] == [f"later {number}" for number in range(LIMIT)]


async def test_a_cancelled_call_is_held_like_a_lost_one(calls: Calls, hours: Hours) -> None:
    for _ in range(LIMIT):
        (await calls.make(seconds=50)).cancel()
    await calls.make("waits")
    await hours.pass_by(10.9)
    assert "waits" not in calls.names
    await hours.pass_by(0.2)
    assert "waits" in calls.names


async def test_the_running_loop_is_the_timer_by_default() -> None:
    budget = Budget()
    async with budget.slot("prod", "SomethingElse", CallClass.PREVIEW):
        pass

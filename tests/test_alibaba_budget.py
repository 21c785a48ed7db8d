"""The budget of calls on the statements that it really runs, with a clock that stands until it is moved."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.alibaba.budget import LIMITS, LONGEST_CALL_SECONDS, Budget, CallClass
from bot.errors import CloudError, CloudLost, CloudRefused, CloudThrottled, CloudUnreachable, StoreUnavailable
from bot.ports import Claim, Freed, Lane, Purpose
from bot.storage.slots import SqlSlots
from tests.slots import OpenSlots
from tests.standing import Hours, StandingDatabase, settle

ACTION = "CancelOTATaskByJob"
LIMIT = LIMITS[ACTION]
HALF = LIMIT // 2
BACKGROUND = [CallClass.FOLLOW, CallClass.EXPORT, CallClass.DISCOVERY]
THROTTLED = CloudThrottled("Throttling", "slow")


@pytest.fixture
def hours() -> Hours:
    return Hours()


@pytest.fixture
async def database(hours: Hours) -> AsyncIterator[StandingDatabase]:
    made = StandingDatabase(hours)
    yield made
    made.close()


@pytest.fixture
async def budgets(hours: Hours, database: StandingDatabase) -> AsyncIterator[list[Budget]]:
    """Two, as in two processes on one database."""
    async with new_budget(database, hours) as first, new_budget(database, hours) as second:
        yield [first, second]


@pytest.fixture
def budget(budgets: list[Budget]) -> Budget:
    return budgets[0]


def new_budget(database: StandingDatabase, hours: Hours) -> Budget:
    return Budget(SqlSlots(database, seconds=hours.time), timer=hours)


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
        budget: Budget | None = None,
    ) -> asyncio.Task[None]:
        async def call() -> None:
            async with (budget or self.budget).slot(account, action, call_class, timeout_seconds=10):
                self.started.append((name, self.hours.now))
                if seconds:
                    await self.hours.sleep(seconds)
                if error is not None:
                    raise error

        task = asyncio.create_task(call())
        self.tasks.append(task)
        await settle()
        return task

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.started]

    async def fill(self, *, seconds: float = 50) -> list[asyncio.Task[None]]:
        """Calls that take every slot there is."""
        return [await self.make(seconds=seconds) for _ in range(LIMIT)]


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


async def test_fifty_calls_are_drained_close_to_the_ideal_time(calls: Calls, hours: Hours) -> None:
    began = hours.now
    for _ in range(50):
        await calls.make(seconds=0.02)
    await finish(calls, hours)
    assert calls.started[-1][1] - began < 9.0 * 1.03


async def test_waiting_costs_few_transactions(calls: Calls, hours: Hours, database: StandingDatabase) -> None:
    for _ in range(LIMIT + 1):
        await calls.make(seconds=5)
    before = database.units
    await hours.pass_by(4.9)
    assert database.units - before <= 6


async def test_those_who_come_together_share_one_transaction(hours: Hours, database: StandingDatabase) -> None:
    async with new_budget(database, hours) as budget:
        reservations = [budget.reserve("prod", ACTION, CallClass.PREVIEW) for _ in range(LIMIT)]
        await settle()
        assert database.units == 1
        for each in reservations:
            each.drop()


async def test_a_slot_is_free_again_a_second_after_its_call_completed(calls: Calls, hours: Hours) -> None:
    await calls.fill(seconds=2)
    await calls.make("waits")
    await hours.pass_by(3.0)
    assert "waits" not in calls.names
    await hours.pass_by(0.01)
    assert "waits" in calls.names


async def test_a_slot_whose_answer_was_lost_is_held_until_the_time_out_and_a_second(calls: Calls, hours: Hours) -> None:
    for _ in range(LIMIT):
        await calls.make(error=CloudLost("reset"))
    await calls.make("waits")
    await hours.pass_by(11.0)
    assert "waits" not in calls.names
    await hours.pass_by(0.01)
    assert "waits" in calls.names


@pytest.mark.parametrize("error", [CloudRefused("c", "m"), CloudUnreachable("down")], ids=["refused", "not sent"])
async def test_a_refused_or_unsent_call_gives_its_slot_back_after_a_second(
    calls: Calls, hours: Hours, error: Exception
) -> None:
    for _ in range(LIMIT):
        await calls.make(error=error)
    await calls.make("waits")
    await hours.pass_by(1.02)
    assert "waits" in calls.names


async def test_a_cancelled_call_is_held_like_a_lost_one(calls: Calls, hours: Hours) -> None:
    for task in await calls.fill():
        task.cancel()
    await calls.make("waits")
    await hours.pass_by(11.0)
    assert "waits" not in calls.names
    await hours.pass_by(0.01)
    assert "waits" in calls.names


async def test_each_class_goes_before_the_next_and_in_it_who_came_first(calls: Calls, hours: Hours) -> None:
    await calls.fill(seconds=1)
    for name in ("discovery", "export", "follow", "preview 1", "stop 1", "preview 2", "stop 2"):
        await calls.make(name, CallClass[name.split()[0].upper()])
    await finish(calls, hours)
    assert calls.names[LIMIT:] == ["stop 1", "stop 2", "preview 1", "preview 2", "follow", "export", "discovery"]


def test_every_purpose_has_its_class() -> None:
    assert [each.name for each in Purpose] == [each.name for each in CallClass]


async def test_the_background_holds_at_most_half_of_the_slots_whoever_it_is(
    budgets: list[Budget], calls: Calls
) -> None:
    for number in range(LIMIT):
        await calls.make("background", BACKGROUND[number % 3], seconds=1, budget=budgets[number % 2])
    assert calls.names == ["background"] * HALF


async def test_an_export_never_starves_the_brake(budgets: list[Budget], calls: Calls, hours: Hours) -> None:
    for _ in range(40):
        await calls.make("export", CallClass.EXPORT, seconds=0.1)
    for at in range(20):
        await hours.pass_by(1.1)
        for number in range(2):
            await calls.make(f"stop {at}", budget=budgets[number])
        assert calls.names[-2:] == [f"stop {at}"] * 2


async def test_a_stop_that_comes_while_only_the_background_waits_goes_at_once(calls: Calls) -> None:
    for _ in range(LIMIT):
        await calls.make("export", CallClass.EXPORT, seconds=1)
    await calls.make("stop", seconds=1)
    assert calls.names[-1] == "stop"


async def test_a_stop_looks_for_a_slot_before_a_preview_of_another_process(
    budgets: list[Budget], calls: Calls, hours: Hours
) -> None:
    await calls.fill(seconds=1)
    for _ in range(LIMIT):
        await calls.make("preview", CallClass.PREVIEW, budget=budgets[1])
    await calls.make("stop")
    await finish(calls, hours)
    assert "stop" in calls.names[LIMIT : 2 * LIMIT]


async def test_a_process_that_was_served_a_moment_ago_lets_the_others_look_first(
    budgets: list[Budget], calls: Calls, hours: Hours
) -> None:
    for _ in range(20 * LIMIT):
        await calls.make("many", seconds=0.05)
    for number in range(6):
        await hours.pass_by(1.4)
        await calls.make(f"one {number}", budget=budgets[1])
        await hours.pass_by(1.1)
        assert f"one {number}" in calls.names


async def test_throttling_makes_later_calls_of_that_operation_wait_in_all_processes(
    budgets: list[Budget], calls: Calls, hours: Hours
) -> None:
    await calls.make(error=CloudThrottled("Throttling", "slow", retry_after_seconds=3))
    for budget in budgets:
        await calls.make("waits", budget=budget)
    await calls.make("another operation", action="QueryOTAJob")
    await calls.make("another account", account="test")
    assert calls.names[1:] == ["another operation", "another account"]
    await hours.pass_by(2.9)
    assert "waits" not in calls.names
    await hours.pass_by(0.2)
    assert calls.names.count("waits") == 2


async def test_an_unnamed_pause_is_a_second_and_longer_each_time_until_a_call_is_taken(
    calls: Calls, hours: Hours
) -> None:
    answers = [THROTTLED, THROTTLED, THROTTLED, CloudRefused("c", "m"), THROTTLED, None, THROTTLED, THROTTLED]
    for answer in answers:
        await calls.make(error=answer)
        while not calls.tasks[-1].done():
            await hours.pass_by(0.01)
    spans = [later - at for (_, at), (_, later) in zip(calls.started, calls.started[1:], strict=False)]
    assert [round(span) for span in spans] == [1, 2, 4, 0, 1, 0, 1]


async def test_calls_that_were_under_way_together_are_throttled_once(calls: Calls, hours: Hours) -> None:
    for _ in range(LIMIT):
        await calls.make(seconds=0.1, error=THROTTLED)
    await hours.pass_by(0.1)
    await calls.make("waits")
    await hours.pass_by(1.1)
    assert "waits" in calls.names


async def test_a_pause_is_a_minute_at_most(calls: Calls, hours: Hours) -> None:
    await calls.make(error=CloudThrottled("Throttling", "slow", retry_after_seconds=86_400))
    await calls.make("waits")
    await hours.pass_by(59.9)
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


async def test_who_gives_up_waiting_takes_no_slot(calls: Calls, hours: Hours) -> None:
    await calls.fill(seconds=1)
    gone = await calls.make("gone")
    await calls.make("stays")
    gone.cancel()
    await finish(calls, hours)
    assert calls.names[LIMIT:] == ["stays"]


async def test_who_gives_up_while_the_slot_is_claimed_gives_it_back(
    hours: Hours, database: StandingDatabase, calls: Calls
) -> None:
    slots = SlowSlots(database, hours)
    async with Budget(slots, timer=hours) as slow:
        gone = await calls.make("gone", budget=slow)
        gone.cancel()
        slots.may_answer.set()
        await settle()
    await calls.fill()
    assert len(calls.names) == LIMIT


async def test_who_gives_up_in_the_moment_of_being_let_in_gives_the_slot_to_the_next(
    hours: Hours, database: StandingDatabase, calls: Calls
) -> None:
    slots = SlowSlots(database, hours)
    async with Budget(slots, timer=hours) as slow:
        first = slow.reserve("prod", ACTION, CallClass.STOP)
        first._turn.add_done_callback(lambda _: entering.cancel())
        entering = asyncio.create_task(first.__aenter__())
        await settle()
        slots.may_answer.set()
        await asyncio.gather(entering, return_exceptions=True)
        assert entering.cancelled()
        await settle()
        await calls.fill()
        assert len(calls.names) == LIMIT


class SlowSlots(SqlSlots):
    """Answers a claim only when it may."""

    def __init__(self, database: StandingDatabase, hours: Hours) -> None:
        super().__init__(database, seconds=hours.time)  # type: ignore[arg-type]
        self.may_answer = asyncio.Event()

    async def claim(self, lane: Lane, *, foreground: int, background: int, hold_seconds: float) -> Claim:
        claim = await super().claim(lane, foreground=foreground, background=background, hold_seconds=hold_seconds)
        await self.may_answer.wait()
        return claim


async def test_a_slot_is_taken_early_by_a_reservation(budget: Budget, calls: Calls, hours: Hours) -> None:
    reserved = budget.reserve("prod", ACTION, CallClass.STOP)
    await settle()
    await calls.fill()
    assert len(calls.names) == LIMIT - 1
    async with reserved:
        pass
    await hours.pass_by(1.1)
    assert len(calls.names) == LIMIT


async def test_a_slot_that_is_claimed_ahead_of_time_is_entered_when_it_opens_and_goes_back_for_no_sooner(
    budget: Budget, calls: Calls, hours: Hours
) -> None:
    await calls.fill(seconds=0.5)
    await hours.pass_by(1.48)
    ahead = budget.reserve("prod", ACTION, CallClass.STOP)
    await calls.make("ahead")
    assert "ahead" not in calls.names
    ahead.drop()
    for _ in range(LIMIT):
        await calls.make("next")
    await hours.pass_by(0.02)
    assert calls.names == [""] * LIMIT
    await hours.pass_by(0.1)
    assert len(calls.names) == 2 * LIMIT


@pytest.mark.parametrize("is_claimed", [True, False])
async def test_a_reservation_that_is_dropped_frees_its_slot_at_once_and_once(
    budget: Budget, calls: Calls, *, is_claimed: bool
) -> None:
    reserved = budget.reserve("prod", ACTION, CallClass.STOP)
    if is_claimed:
        await settle()
    reserved.drop()
    reserved.drop()
    await settle()
    await calls.fill()
    assert len(calls.names) == LIMIT
    with pytest.raises(RuntimeError):
        await reserved.__aenter__()


async def test_a_dropped_reservation_goes_to_who_waits_here(budget: Budget, calls: Calls) -> None:
    reserved = budget.reserve("prod", ACTION, CallClass.STOP)
    await settle()
    await calls.fill()
    reserved.drop()
    await settle()
    assert len(calls.names) == LIMIT


async def test_a_dropped_reservation_that_is_too_old_for_who_waits_here_goes_back(
    budgets: list[Budget], calls: Calls, hours: Hours
) -> None:
    old = budgets[0].reserve("prod", ACTION, CallClass.STOP)
    await settle()
    await calls.fill()
    await calls.make()
    await hours.pass_by(1.5)
    old.drop()
    await settle()
    await calls.make("elsewhere", budget=budgets[1])
    assert calls.names[-1] == "elsewhere"


async def test_a_dropped_reservation_of_a_high_number_is_not_for_the_background(budget: Budget, calls: Calls) -> None:
    reserved = budget.reserve("prod", ACTION, CallClass.STOP)
    await settle()
    for _ in range(LIMIT):
        await calls.make("export", CallClass.EXPORT, seconds=50)
    reserved.drop()
    await settle()
    assert calls.names == ["export"] * HALF


async def test_a_reservation_that_is_entered_late_is_claimed_anew(
    budget: Budget, calls: Calls, hours: Hours, database: StandingDatabase
) -> None:
    reserved = budget.reserve("prod", ACTION, CallClass.STOP, timeout_seconds=10)
    await settle()
    await hours.pass_by(11.5)  # its row is about to free itself
    async with reserved:
        await hours.pass_by(9.9)
        await calls.fill()
        assert len(calls.names) == LIMIT - 1


async def test_a_call_that_could_outlast_its_slot_is_a_mistake(budget: Budget) -> None:
    with pytest.raises(ValueError, match="s at most"):
        budget.reserve("prod", ACTION, CallClass.STOP, timeout_seconds=LONGEST_CALL_SECONDS + 1)


async def test_waiting_ends_when_the_database_is_away_and_begins_anew_when_it_is_back(
    calls: Calls, hours: Hours, database: StandingDatabase
) -> None:
    await calls.fill(seconds=2)
    waiting = [await calls.make("waits", call_class) for call_class in CallClass]
    database.is_away = True
    await hours.pass_by(1.1)
    assert [type(task.exception()) for task in waiting] == [StoreUnavailable] * len(waiting)
    assert "waits" not in calls.names
    database.is_away = False
    await calls.make("later")
    await hours.pass_by(3)
    assert "later" in calls.names


async def test_a_release_that_cannot_be_written_harms_nobody_and_the_row_frees_itself(
    calls: Calls, hours: Hours, database: StandingDatabase
) -> None:
    filling = await calls.fill(seconds=1)
    database.is_away = True
    await hours.pass_by(1)
    database.is_away = False
    assert [task.exception() for task in filling] == [None] * LIMIT
    await calls.make("waits")
    await hours.pass_by(10.9)
    assert "waits" not in calls.names
    await hours.pass_by(0.2)
    assert "waits" in calls.names


async def test_whatever_a_claim_fails_with_reaches_who_waits(hours: Hours) -> None:
    class Broken(OpenSlots):
        async def claim(self, lane: Lane, *, foreground: int, background: int, hold_seconds: float) -> Claim:
            raise LookupError("a defect")

    async with Budget(Broken(), timer=hours) as budget:
        with pytest.raises(LookupError):
            async with budget.slot("prod", ACTION, CallClass.STOP):
                pass


async def test_a_budget_that_is_left_ends_waiting_and_writes_what_is_given_back(
    hours: Hours, database: StandingDatabase, calls: Calls
) -> None:
    async with new_budget(database, hours) as ending:
        for _ in range(LIMIT):
            async with ending.slot("prod", ACTION, CallClass.STOP):
                pass
        waiting = await calls.make("never", budget=ending)
    assert waiting.cancelled()
    await hours.pass_by(1.01)
    await calls.fill()
    assert calls.names == [""] * LIMIT


async def test_slots_that_come_back_while_others_are_written_share_the_next_transaction(hours: Hours) -> None:
    class Counting(OpenSlots):
        writes = 0

        async def release(self, freed: list[Freed]) -> None:
            self.writes += 1
            await asyncio.sleep(0)
            await super().release(freed)

    slots = Counting()
    async with Budget(slots, timer=hours) as budget:

        async def call() -> None:
            async with budget.slot("prod", ACTION, CallClass.STOP):
                pass

        await asyncio.gather(*(call() for _ in range(20)))
    assert len(slots.freed) == 20
    assert slots.writes <= 3


async def test_the_running_loop_is_the_timer_by_default() -> None:
    async with Budget(OpenSlots()) as budget, budget.slot("prod", "SomethingElse", CallClass.PREVIEW):
        pass


@dataclass(frozen=True)
class Plan:
    """One call: when it is asked for and where, how long it takes, when in it the server sees it, how it ends."""

    at: float
    budget: int
    call_class: CallClass
    seconds: float
    seen: float
    end: type[CloudError] | None


TIMEOUT = 2.0
PLANS = st.builds(
    Plan,
    at=st.floats(0, 3),
    budget=st.integers(0, 1),
    call_class=st.sampled_from(CallClass),
    seconds=st.floats(0, TIMEOUT),
    seen=st.floats(0, 1),
    end=st.sampled_from([None, None, CloudRefused, CloudThrottled, CloudLost, CloudUnreachable]),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(PLANS, min_size=LIMIT + 1, max_size=30))
def test_whatever_the_calls_the_server_sees_no_second_over_the_limit_and_everybody_has_a_turn(
    plans: list[Plan],
) -> None:
    seen = asyncio.run(seen_by_the_server(plans))
    assert len(seen) == len(plans)
    assert most_in_a_second([at for at, _ in seen]) <= LIMIT
    assert most_in_a_second([at for at, call_class in seen if call_class in BACKGROUND]) <= HALF


def most_in_a_second(times: list[float]) -> int:
    return max((sum(begin <= at <= begin + 1 for at in times) for begin in times), default=0)


async def seen_by_the_server(plans: list[Plan]) -> list[tuple[float, CallClass]]:
    hours = Hours()
    database = StandingDatabase(hours)
    budgets = [new_budget(database, hours) for _ in range(2)]
    seen: list[tuple[float, CallClass]] = []

    async def call(plan: Plan) -> None:
        await hours.sleep(plan.at)
        async with budgets[plan.budget].slot("prod", ACTION, plan.call_class, timeout_seconds=TIMEOUT):
            is_lost = plan.end is CloudLost
            seen.append((hours.now + plan.seen * (TIMEOUT if is_lost else plan.seconds), plan.call_class))
            await hours.sleep(plan.seconds)
            if plan.end is not None:
                raise plan.end("lost") if not issubclass(plan.end, CloudRefused) else plan.end("code", "no")

    tasks = [asyncio.create_task(call(plan)) for plan in plans]
    await hours.pass_by(900)
    assert all(task.done() for task in tasks)
    await asyncio.gather(*tasks, return_exceptions=True)
    for budget in budgets:
        await budget.__aexit__()
    database.close()
    return seen

"""Who goes first, what is never sent twice, and what is named by nobody and so touched by nobody."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from bot.errors import CloudLost, CloudRefused, CloudThrottled, CloudUnreachable
from bot.exchange import Ask, PostKind, Resume
from bot.model import Counts, Intent, JobKind, OutcomeCode, Step, StepKind, Target, Task, TaskState
from bot.ops import KNOWN
from bot.policy.load import load
from bot.proposals import CallAnswer, State
from bot.workflow.asking import handle_ask
from bot.workflow.means import TurnedDown
from tests.conftest import Clock
from tests.test_workflow_operations import ALL, OVER, SETTINGS, kinds, numbers, second_rollout, task
from tests.values import TARGET, delivery, job, offer, proposal
from tests.world import RULES, World, living_world, outcome

LOST = CloudLost("timeout")
THROTTLED = CloudThrottled("Throttling.User", "slow", request_id="RID7", retry_after_seconds=2)


@pytest.fixture
async def world(clock: Clock, sqlite_url: str) -> AsyncIterator[World]:
    async with living_world(clock, sqlite_url) as made:
        yield made


def failed_tasks(world: World, many: int) -> None:
    world.cloud.tasks[TARGET.job] = [task(number) for number in range(many)]
    world.cloud.counts = numbers(FAILED=many, QUEUED=9)


async def stop_is_asked_for(world: World) -> None:
    """Somebody else asks for a stop at this moment, and its card waits for a yes."""
    world.clock.pass_by(1)
    at = world.clock()
    stop = proposal(proposal_id="stop", state=State.OFFERED, requester="U0ONCALLB2", created_at=at, offer=offer())
    await world.keep(stop)


def without_product_key(world: World) -> None:
    """The cloud does not tell what a cancel by name needs."""
    prepare = world.cloud.prepare

    def strict(step: Step) -> Intent:
        if step.kind is StepKind.CANCEL_DEVICES:
            raise CloudRefused("otabrake.IncompleteAnswer", "the cloud did not tell the ProductKey; nothing was sent")
        return prepare(step)

    world.cloud.prepare = strict  # type: ignore[method-assign]


# A stop goes first.


@pytest.mark.parametrize(
    ("verb", "given", "step"),
    [("task.retry", (), StepKind.RETRY_TASKS), ("job.rate", ("per_minute=10000",), StepKind.SET_RATE)],
)
async def test_a_throttled_call_is_not_made_again_after_a_stop_was_asked_for(
    world: World, verb: str, given: tuple[str, ...], step: StepKind
) -> None:
    failed_tasks(world, 5)
    world.cloud.job = job(settings=SETTINGS)
    waiting = await world.ask(verb, params=frozenset(given))
    assert waiting is not None
    world.cloud.answers = [THROTTLED]

    async def stop_meanwhile(seconds: float) -> None:
        await world.clock.sleep(seconds)
        if len(world.clock.slept) == 1:
            await stop_is_asked_for(world)

    world.means = replace(world.means, sleep=stop_meanwhile)
    await world.click()
    assert kinds(world) == [(step, TARGET.job)]
    assert outcome(await world.store.fetch_proposal(waiting.proposal_id)) is OutcomeCode.SUPERSEDED
    assert "goes first (a stop always does)" in await world.said(PostKind.BROADCAST)
    assert outcome(await world.click()) is OutcomeCode.STOPPED
    assert kinds(world)[1:] == [(StepKind.CANCEL_TASKS, TARGET.job)]


async def test_a_stop_that_is_asked_for_during_the_last_look_of_a_retry_goes_first(world: World) -> None:
    failed_tasks(world, 5)
    retry = await world.ask("task.retry")
    assert retry is not None
    fetch_tasks_of = world.cloud.fetch_tasks_of
    looks = 0

    async def slow(*args: Any, **options: Any) -> tuple[Task, ...]:
        nonlocal looks
        looks += 1
        if looks == 1:
            await stop_is_asked_for(world)
        return await fetch_tasks_of(*args, **options)

    world.cloud.fetch_tasks_of = slow  # type: ignore[method-assign]
    await world.click()
    assert (looks, world.cloud.sent) == (1, [])
    assert outcome(await world.store.fetch_proposal(retry.proposal_id)) is OutcomeCode.SUPERSEDED
    assert "goes first (a stop always does)" in await world.said(PostKind.BROADCAST)
    assert outcome(await world.click()) is OutcomeCode.STOPPED


async def test_a_rollout_whose_answer_was_lost_keeps_no_other_waiting(world: World) -> None:
    second_rollout(world)
    await world.ask("firmware.halt", job="", firmware="4.2.1")
    fetch_counts = world.cloud.fetch_counts
    sent_at: dict[str, datetime] = {}

    async def half_blind(target: Target, *args: Any, in_order: bool = False, **options: Any) -> Counts:
        if in_order and target.job == "another":
            raise CloudUnreachable("down")
        return await fetch_counts(target, *args, in_order=in_order, **options)

    def lose() -> None:
        job_id = world.cloud.sent[-1].step.target.job
        sent_at.setdefault(job_id, world.clock())
        world.cloud.answers = [LOST] if job_id == "another" else []

    world.cloud.fetch_counts = half_blind  # type: ignore[method-assign]
    world.cloud.on_send = lose
    await world.click()
    assert list(sent_at) == ["another", TARGET.job]
    assert (sent_at[TARGET.job] - sent_at["another"]).total_seconds() < 30
    assert "• another: unknown outcome" in await world.said(PostKind.BROADCAST)


async def test_a_rollout_that_cannot_be_cancelled_by_name_keeps_no_other_from_being_halted(world: World) -> None:
    second_rollout(world, kind=JobKind.DYNAMIC)
    world.cloud.tasks["another"] = [task(1, TaskState.QUEUED, "another")]
    world.cloud.refusals[StepKind.CANCEL_TASKS, "another"] = OVER
    without_product_key(world)
    await world.ask("firmware.halt", job="", firmware="4.2.1", params=frozenset(ALL))
    assert outcome(await world.click()) is OutcomeCode.PARTLY_STOPPED
    assert kinds(world)[-1] == (StepKind.CANCEL_TASKS, TARGET.job)
    said = await world.said(PostKind.BROADCAST)
    assert "• another: refused by cloud (iot.ota.JobHasCanceled)" in said
    assert f"• {TARGET.job}, stopped: 9 stopped" in said


async def test_a_halt_that_is_refused_and_cannot_be_made_by_name_has_a_last_line(world: World) -> None:
    world.cloud.job = job(kind=JobKind.DYNAMIC)
    world.cloud.counts = numbers(QUEUED=1)
    world.cloud.tasks[TARGET.job] = [task(1, TaskState.QUEUED)]
    world.cloud.refusals |= {(kind, TARGET.job): OVER for kind in (StepKind.CANCEL_STRATEGY, StepKind.CANCEL_TASKS)}
    without_product_key(world)
    await world.ask("job.halt", params=frozenset(ALL))
    after = await world.click()
    assert (after.state, outcome(after)) == (State.FINISHED, OutcomeCode.REFUSED_BY_CLOUD)
    assert kinds(world) == [(StepKind.CANCEL_STRATEGY, TARGET.job), (StepKind.CANCEL_TASKS, TARGET.job)]
    assert "refused by cloud (iot.ota.JobHasCanceled)" in await world.said(PostKind.BROADCAST)


# What restarts devices is sent once.


async def test_a_second_retry_is_refused_while_the_first_is_not_over(world: World) -> None:
    failed_tasks(world, 25)
    first = await world.ask("task.retry")
    assert first is not None
    world.clock.pass_by(1)
    second = await world.ask("task.retry", params=frozenset({"limit=25"}))
    assert second is not None
    assert second.proposal_id == first.proposal_id
    assert "the same kind of change of this rollout is not over yet" in await world.said(PostKind.REPLY)
    assert outcome(await world.click()) is OutcomeCode.DONE
    sent = [name for each in world.cloud.sent for name in each.step.tasks]
    assert sorted(sent) == sorted({f"t{number}" for number in range(25)})
    world.clock.pass_by(1)
    third = await world.ask("task.retry", params=frozenset({"limit=25"}))
    assert third is not None
    assert third.proposal_id != first.proposal_id


async def test_a_second_retry_is_refused_while_it_is_not_known_whether_the_first_arrived(world: World) -> None:
    failed_tasks(world, 5)
    first = await world.ask("task.retry")
    assert first is not None
    told: list[tuple[State, str]] = []

    async def ask_again(seconds: float) -> None:
        await world.clock.sleep(seconds)
        under_way = await world.store.fetch_proposal(first.proposal_id)
        assert under_way is not None
        again = delivery("again", content=Ask("task.retry", TARGET.job), received_at=world.clock())
        try:
            await handle_ask(world.means, again, Ask("task.retry", TARGET.job, reason="again"))
        except TurnedDown as no:
            told.append((under_way.state, no.notice.text))

    world.means = replace(world.means, sleep=ask_again)
    world.cloud.answers = [LOST]
    assert outcome(await world.click()) is OutcomeCode.UNKNOWN_OUTCOME
    [(state, text)] = told
    assert state is State.UNKNOWN
    assert "the same kind of change of this rollout is not over yet" in text
    assert len(world.cloud.sent) == 1


async def test_a_chain_of_resumes_never_names_a_task_twice(world: World) -> None:
    failed_tasks(world, 30)
    await world.ask("task.retry", params=frozenset({"limit=10"}))
    world.cloud.answers = [LOST]
    after = await world.click()
    assert outcome(after) is OutcomeCode.UNKNOWN_OUTCOME
    for _ in range(2):
        world.clock.pass_by(60)
        resumed = await world.types(Resume(after.proposal_id))
        assert resumed is not None
        assert resumed.resumes == after.proposal_id
        after = await world.click()
        assert outcome(after) is OutcomeCode.DONE
    sent = [name for each in world.cloud.sent for name in each.step.tasks]
    assert sorted(sent) == sorted({f"t{number}" for number in range(30)})


async def test_those_who_are_throttled_together_do_not_come_again_together(world: World) -> None:
    pauses = []
    for _ in range(3):
        world.cloud.answers = [THROTTLED]
        world.cloud.counts = numbers(QUEUED=9)
        world.clock.slept.clear()
        await world.ask()
        after = await world.click()
        assert [call.answer for call in after.calls] == [CallAnswer.THROTTLED, CallAnswer.ACCEPTED]
        pauses.append(world.clock.slept[0])
        world.clock.pass_by(60)
    assert len(set(pauses)) == 3
    assert all(2 <= pause <= 3 for pause in pauses)


# What was named, and by whom.


async def test_a_cancel_by_name_in_place_of_a_refused_one_spares_what_was_not_named(world: World) -> None:
    open_states = (TaskState.QUEUED, TaskState.NOTIFIED, TaskState.IN_PROGRESS)
    world.cloud.job = job(kind=JobKind.DYNAMIC)
    world.cloud.counts = numbers(QUEUED=1, NOTIFIED=1, IN_PROGRESS=1)
    world.cloud.tasks[TARGET.job] = [task(number, state) for number, state in enumerate(open_states, start=1)]
    world.cloud.refusals[StepKind.CANCEL_TASKS, TARGET.job] = OVER
    await world.ask("job.halt", params=frozenset({"in_progress"}))
    await world.click()
    by_name = [sent.step.devices for sent in world.cloud.sent if sent.step.kind is StepKind.CANCEL_DEVICES]
    assert by_name == [("gw-003",)]
    states = [each.state for each in world.cloud.tasks[TARGET.job]]
    assert states == [TaskState.QUEUED, TaskState.NOTIFIED, TaskState.CANCELED]


async def test_a_rate_is_not_taken_for_a_change_of_no_devices(world: World) -> None:
    world.cloud.job = job(settings=SETTINGS)
    world.cloud.counts = numbers(QUEUED=900_000)
    small = "{name: small, allow: [changes], who: [U0ONCALLA1], when: {devices: {at_most: 100}}}"
    rules = "\n".join(f"- {small}" if line.startswith("- {name: stop,") else line for line in RULES.splitlines())
    world.policy[0] = load({"p.yaml": rules.encode()}, operations=KNOWN)
    asked = await world.ask("job.rate", params=frozenset({"per_minute=10000"}))
    assert asked is not None
    assert (outcome(asked), asked.offer) == (OutcomeCode.DENIED, None)


async def test_a_reason_is_no_reason_of_somebody_else_who_resumes(world: World) -> None:
    world.cloud.counts = numbers(QUEUED=900)
    world.cloud.is_obeyed = False
    await world.ask(reason="my own reason")
    first = await world.click()
    world.clock.pass_by(60)
    again = await world.types(Resume(first.proposal_id), user="U0ONCALLB2")
    assert again is not None
    assert (again.requester, again.reason, again.resumes) == ("U0ONCALLB2", None, first.proposal_id)
    assert (again.state, outcome(again)) == (State.FINISHED, OutcomeCode.NOT_DONE)
    assert "this needs a reason" in await world.said()

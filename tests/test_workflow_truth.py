"""What is said at the end is what happened: what is not known is called unknown, and no part hides another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from bot.errors import CloudLost, CloudRefused, CloudUnreachable
from bot.exchange import PostKind
from bot.model import Counts, Firmware, Job, JobKind, JobState, OutcomeCode, StepKind, Target, TaskState
from bot.proposals import State
from bot.workflow.finding_out import LONGEST_WAIT_SECONDS
from bot.workflow.looking import MOST_PARTS
from tests.conftest import Clock
from tests.test_workflow_operations import DENIED, kinds, numbers, second_rollout, task
from tests.values import TARGET, job
from tests.world import World, living_world, outcome

LOST = CloudLost("timeout")


@pytest.fixture
async def world(clock: Clock, sqlite_url: str) -> AsyncIterator[World]:
    async with living_world(clock, sqlite_url) as made:
        yield made


# Devices that nobody can see.


async def test_the_sum_of_a_rollout_that_cannot_be_seen_and_one_that_stopped_is_not_known(world: World) -> None:
    second_rollout(world)
    fetch_counts = world.cloud.fetch_counts

    async def half_blind(target: Target, *args: Any, in_order: bool = False, **options: Any) -> Counts:
        if in_order and target.job == "another":
            raise CloudUnreachable("down")
        return await fetch_counts(target, *args, in_order=in_order, **options)

    world.cloud.fetch_counts = half_blind  # type: ignore[method-assign]
    await world.ask("firmware.halt", job="", firmware="4.2.1")
    after = await world.click()
    assert outcome(after) is OutcomeCode.PARTLY_STOPPED
    assert after.outcome is not None
    assert (after.outcome.stopped, after.outcome.still_moving) == (None, None)
    said = await world.said(PostKind.BROADCAST)
    assert "stopped at least 9" in said
    assert "• another: unknown outcome" in said
    assert "none still moving" not in said


@pytest.mark.parametrize(("before", "then"), [(None, 9), (0, None)])
async def test_without_the_number_in_progress_devices_are_not_said_to_have_stopped(
    world: World, before: int | None, then: int | None
) -> None:
    world.cloud.counts = numbers(NOTIFIED=9, IN_PROGRESS=before)
    world.cloud.is_obeyed = False
    await world.ask()
    world.cloud.on_send = lambda: world.cloud.counts.update({TaskState.NOTIFIED: 0, TaskState.IN_PROGRESS: then})
    assert outcome(await world.click()) is OutcomeCode.UNKNOWN_OUTCOME
    said = await world.said(PostKind.BROADCAST)
    assert "it did not tell what the devices do" in said
    assert "none still moving" not in said


async def test_devices_that_began_to_flash_are_not_taken_for_the_goal_of_a_lost_call(world: World) -> None:
    world.cloud.counts = numbers(NOTIFIED=9)
    world.cloud.is_obeyed = False
    world.cloud.answers = [LOST, LOST]
    world.cloud.on_send = lambda: world.cloud.counts.update({TaskState.NOTIFIED: 0, TaskState.IN_PROGRESS: 9})
    await world.ask()
    assert outcome(await world.click()) is OutcomeCode.NOT_STOPPED
    said = await world.said(PostKind.BROADCAST)
    assert "9 still moving" in said
    assert "the goal is reached" not in said


# One part of a change must not speak for another.


async def test_a_goal_that_is_reached_does_not_hide_the_rollout_that_was_refused(world: World) -> None:
    second_rollout(world)
    world.cloud.refusals[StepKind.CANCEL_TASKS, "another"] = DENIED
    await world.ask("firmware.halt", job="", firmware="4.2.1")

    def reach_and_lose() -> None:
        if (last := world.cloud.sent[-1]).step.target.job == TARGET.job:
            world.cloud.obey(last.step)
            world.cloud.answers = [LOST]

    world.cloud.on_send = reach_and_lose
    assert outcome(await world.click()) is OutcomeCode.PARTLY_STOPPED
    assert "• another: refused by cloud (Forbidden.RAM)" in await world.said(PostKind.BROADCAST)


async def test_a_refusal_at_the_end_does_not_hide_the_rollout_whose_answer_was_lost(world: World) -> None:
    second_rollout(world)
    world.cloud.refusals[StepKind.CANCEL_TASKS, TARGET.job] = DENIED
    await world.ask("firmware.halt", job="", firmware="4.2.1")

    def lose() -> None:
        world.cloud.answers = [LOST] if world.cloud.sent[-1].step.target.job == "another" else []

    world.cloud.on_send = lose
    after = await world.click()
    assert outcome(after) is OutcomeCode.UNKNOWN_OUTCOME
    assert after.outcome is not None
    assert after.outcome.still_moving == 40
    said = await world.said(PostKind.BROADCAST)
    assert "• another, unknown outcome" in said
    assert f"• {TARGET.job}: refused by cloud (Forbidden.RAM)" in said


async def test_a_halt_whose_first_call_was_lost_is_not_said_to_have_sent_nothing(world: World) -> None:
    world.cloud.job = job(kind=JobKind.DYNAMIC)
    await world.ask("job.halt")

    def fall_out() -> None:
        is_first = world.cloud.sent[-1].step.kind is StepKind.CANCEL_STRATEGY
        world.cloud.answers = [LOST if is_first else CloudUnreachable("no route")]

    world.cloud.on_send = fall_out
    assert outcome(await world.click()) is OutcomeCode.UNKNOWN_OUTCOME
    said = await world.said(PostKind.BROADCAST)
    assert "may or may not have arrived" in said
    assert "Nothing was sent" not in said


async def test_a_used_nonce_whose_effect_does_not_show_leads_to_a_new_attempt(world: World) -> None:
    world.cloud.job = job(kind=JobKind.DYNAMIC)
    world.cloud.answers = [LOST, CloudRefused("SignatureNonceUsed", "used")]
    await world.ask("job.halt")
    after = await world.click()
    assert world.cloud.job.state is JobState.CANCELED
    assert outcome(after) is OutcomeCode.STOPPED
    first, copy, new, _ = world.cloud.sent
    assert first == copy
    assert new.step == first.step
    assert new.nonce != first.nonce
    assert "it refused a second copy" not in await world.said()


async def test_a_halt_whose_key_goes_after_a_refusal_has_a_last_line(world: World) -> None:
    world.cloud.job = job(kind=JobKind.DYNAMIC)
    world.cloud.refusals[StepKind.CANCEL_STRATEGY, TARGET.job] = DENIED
    await world.ask("job.halt")

    def lose_key() -> None:
        world.cloud.has_key = False

    world.cloud.on_send = lose_key
    after = await world.click()
    assert (after.state, outcome(after)) == (State.FINISHED, OutcomeCode.REFUSED_BY_CLOUD)
    said = await world.said(PostKind.BROADCAST)
    assert "refused by cloud (Forbidden.RAM)" in said
    assert "topped" not in said


# Tasks and devices by name.


async def test_tasks_that_were_cancelled_since_are_not_said_to_run_again(world: World) -> None:
    world.cloud.tasks[TARGET.job] = [task(1)]
    world.cloud.counts = numbers(FAILED=1)
    world.cloud.is_obeyed = False
    await world.ask("task.retry")
    world.cloud.on_send = lambda: world.cloud.tasks.update({TARGET.job: [task(1, TaskState.CANCELED)]})
    assert outcome(await world.click()) is OutcomeCode.NOT_DONE
    assert "none of them runs again" in await world.said(PostKind.BROADCAST)


async def test_an_older_task_of_a_device_is_no_outcome_of_its_cancel(world: World) -> None:
    old = replace(task(1, TaskState.FAILED), task_id="old")
    world.cloud.tasks[TARGET.job] = [old, task(1, TaskState.QUEUED)]
    await world.ask("device.cancel", job="", product="a1Gateway01", devices=("gw-001",))
    assert outcome(await world.click()) is OutcomeCode.STOPPED
    assert "Stopped 1, finished anyway 0, failed 0" in await world.said(PostKind.BROADCAST)


async def test_the_way_to_go_on_is_the_last_line_however_many_batches_were_not_sent(world: World) -> None:
    world.cloud.tasks[TARGET.job] = [task(number) for number in range(300)]
    world.cloud.counts = numbers(FAILED=300)
    await world.ask("task.retry")
    world.cloud.on_send = lambda: world.cloud.answers.extend([LOST] * (len(world.cloud.sent) == 2))
    after = await world.click()
    assert after.outcome is not None
    assert after.outcome.notice.lines[-2:] == (
        "… and 9 more batches",
        f"What is left can be asked for with /ota resume {after.proposal_id[:8]}",
    )


async def test_a_retry_whose_answer_was_lost_is_not_offered_by_hand(world: World) -> None:
    world.cloud.tasks[TARGET.job] = [task(1)]
    world.cloud.counts = numbers(FAILED=1)
    world.cloud.answers = [LOST]
    await world.ask("task.retry")
    assert outcome(await world.click()) is OutcomeCode.UNKNOWN_OUTCOME
    said = await world.said(PostKind.BROADCAST)
    assert "Look with /ota status before you ask for it again" in said
    assert "aliyun" not in said


# Rollouts that a list or a look leaves out.


async def test_nothing_to_stop_is_not_said_of_rollouts_that_were_left_out(world: World) -> None:
    world.cloud.packages = [Firmware("fw-421", "gateway-fw", "a1Gateway01", "4.2.1")]
    world.cloud.counts = numbers()
    for number in range(MOST_PARTS):
        moving = 4000 if number == MOST_PARTS - 1 else 0
        world.cloud.others[f"o{number}"] = (job(job_id=f"o{number}"), numbers(QUEUED=moving))
    asked = await world.ask("firmware.halt", job="", firmware="4.2.1")
    assert asked is not None
    assert (asked.state, outcome(asked)) == (State.OFFERED, None)
    assert asked.offer is not None
    assert asked.offer.preview.left_out == 1


async def test_the_end_tells_how_many_rollouts_were_left_out(world: World) -> None:
    world.cloud.packages = [Firmware("fw-421", "gateway-fw", "a1Gateway01", "4.2.1")]
    for number in range(MOST_PARTS + 1):
        world.cloud.others[f"o{number}"] = (job(job_id=f"o{number}"), numbers(QUEUED=1))
    await world.ask("firmware.halt", job="", firmware="4.2.1")
    after = await world.click()
    assert (outcome(after), len(world.cloud.sent)) == (OutcomeCode.PARTLY_STOPPED, MOST_PARTS)
    said = await world.said(PostKind.BROADCAST)
    assert "2 more rollouts of it run and were left out." in said
    assert f"/ota resume {after.proposal_id[:8]}" in said


async def test_a_confirmed_rollout_that_the_list_has_lost_is_halted_with_the_others(world: World) -> None:
    second_rollout(world)
    await world.ask("firmware.halt", job="", firmware="4.2.1")

    async def shifted(*args: Any, **options: Any) -> tuple[Job, ...]:
        return (world.cloud.job,)

    world.cloud.fetch_jobs_of = shifted  # type: ignore[method-assign]
    assert outcome(await world.click()) is OutcomeCode.STOPPED
    assert kinds(world) == [(StepKind.CANCEL_TASKS, "another"), (StepKind.CANCEL_TASKS, TARGET.job)]
    assert "• another, stopped: 40 stopped" in await world.said(PostKind.BROADCAST)


async def test_a_rollout_that_only_the_list_still_tells_of_is_halted_as_it_was_confirmed(world: World) -> None:
    second_rollout(world, kind=JobKind.SCHEDULED)
    await world.ask("firmware.halt", job="", firmware="4.2.1")
    fetch_job = world.cloud.fetch_job

    async def listed(*args: Any, **options: Any) -> tuple[Job, ...]:
        return (world.cloud.job, job(job_id="another", kind=JobKind.STATIC))  # a list tells no schedule

    async def half_blind(target: Target, **options: Any) -> Job:
        if target.job == "another":
            raise CloudUnreachable("down")
        return await fetch_job(target, **options)

    world.cloud.fetch_jobs_of = listed  # type: ignore[method-assign]
    world.cloud.fetch_job = half_blind  # type: ignore[method-assign]
    assert outcome(await world.click()) is OutcomeCode.STOPPED
    assert (StepKind.CANCEL_TASKS, "another") in kinds(world)
    assert "the rollout changed" not in await world.said(PostKind.LINE)


# A clock that is set back.


async def test_a_clock_that_is_set_back_does_not_prolong_the_wait_for_a_lost_answer(world: World) -> None:
    world.cloud.is_obeyed = False
    world.cloud.answers = [LOST, LOST]
    world.cloud.on_send = lambda: world.clock.pass_by(-86_400 if len(world.cloud.sent) == 1 else 0)
    await world.ask()
    assert outcome(await world.click()) is OutcomeCode.NOT_STOPPED
    assert max(world.clock.slept) <= LONGEST_WAIT_SECONDS


async def test_a_clock_that_is_set_back_does_not_prolong_the_follow(world: World) -> None:
    world.cloud.is_obeyed = False
    await world.ask()
    looks = 0
    fetch_counts = world.cloud.fetch_counts

    async def set_back(*args: Any, in_order: bool = False, **options: Any) -> Counts:
        nonlocal looks
        looks += in_order
        world.clock.pass_by(-6 * 3600 if in_order and looks == 1 else 0)
        return await fetch_counts(*args, in_order=in_order, **options)

    world.cloud.fetch_counts = set_back  # type: ignore[method-assign]
    after = await world.click()
    assert after.state is State.FINISHED
    assert "none still moving" not in await world.said(PostKind.BROADCAST)
    assert sum(world.clock.slept) <= world.means.timings.follow_seconds + world.means.timings.poll_most_seconds

"""The road with each other operation: several batches, devices and tasks by name, a rate; and what is left of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from bot.errors import CloudLost, CloudRefused, CloudUnreachable
from bot.exchange import Ask, FileKind, Pick, PostKind, Resume
from bot.model import (
    Firmware,
    Job,
    JobKind,
    JobSettings,
    JobState,
    OutcomeCode,
    StepKind,
    Target,
    Task,
    TaskState,
    Touch,
)
from bot.ops import KNOWN
from bot.policy.load import load
from bot.proposals import CallAnswer, State
from bot.workflow.looking import MOST_PARTS
from tests.conftest import Clock
from tests.values import TARGET, delivery, job
from tests.world import RULES, World, living_world, outcome

OVER = CloudRefused("iot.ota.JobHasCanceled", "the job has been canceled", request_id="RID9")
DENIED = CloudRefused("Forbidden.RAM", "no permission", request_id="RID8")
ALL = ("queued", "notified", "unconfirmed", "in_progress")


@pytest.fixture
async def world(clock: Clock, sqlite_url: str) -> AsyncIterator[World]:
    async with living_world(clock, sqlite_url) as made:
        yield made


def numbers(**given: int | None) -> dict[TaskState, int | None]:
    return {state: given.get(state.name, 0) for state in TaskState}


def task(number: int, state: TaskState = TaskState.FAILED, job_id: str = TARGET.job) -> Task:
    return Task(f"t{number}", f"gw-{number:03}", state, job_id, "fw-421", "a1Gateway01")


def second_rollout(world: World, **bent: Any) -> Job:
    """Another running rollout of the same firmware, with more at stake."""
    other = job(**({"job_id": "another"} | bent))
    world.cloud.others[other.job_id] = (other, numbers(QUEUED=40))
    world.cloud.packages = [Firmware("fw-421", "gateway-fw", "a1Gateway01", "4.2.1")]
    return other


def kinds(world: World) -> list[tuple[StepKind, str]]:
    return [(sent.step.kind, sent.step.target.job) for sent in world.cloud.sent]


# A firmware: every running rollout of it.


async def test_halting_a_firmware_is_one_yes_for_every_running_rollout_the_worst_first(world: World) -> None:
    second_rollout(world, kind=JobKind.DYNAMIC)
    world.cloud.others["over"] = (job(job_id="over", state=JobState.COMPLETED), numbers(SUCCEEDED=5))
    offered = await world.ask("firmware.halt", job="", firmware="4.2.1")
    assert offered is not None
    assert offered.offer is not None
    assert offered.target == Target("prod-shanghai", firmware="fw-421", product="a1Gateway01")
    assert [part.job.job_id for part in offered.offer.preview.parts] == ["another", TARGET.job]
    assert offered.offer.preview.devices == 49
    after = await world.click()
    assert outcome(after) is OutcomeCode.STOPPED
    assert kinds(world) == [
        (StepKind.CANCEL_STRATEGY, "another"),
        (StepKind.CANCEL_TASKS, "another"),
        (StepKind.CANCEL_TASKS, TARGET.job),
    ]
    said = await world.said(PostKind.BROADCAST)
    assert "Stopped 49, finished anyway 0, failed 0" in said
    assert "• another, stopped: 40 stopped, 0 finished anyway" in said


async def test_a_rollout_that_starts_before_the_last_look_is_halted_with_the_others(world: World) -> None:
    world.cloud.packages = [Firmware("fw-421", "gateway-fw", "a1Gateway01", "4.2.1")]
    await world.ask("firmware.halt", job="", firmware="fw-421")
    second_rollout(world)
    after = await world.click()
    assert outcome(after) is OutcomeCode.STOPPED
    assert (StepKind.CANCEL_TASKS, "another") in kinds(world)
    assert after.outcome is not None
    assert after.outcome.stopped == 49


async def test_one_rollout_that_is_refused_keeps_no_other_from_being_halted(world: World) -> None:
    second_rollout(world)
    world.cloud.refusals[StepKind.CANCEL_TASKS, "another"] = DENIED
    await world.ask("firmware.halt", job="", firmware="4.2.1")
    after = await world.click()
    assert outcome(after) is OutcomeCode.PARTLY_STOPPED
    said = await world.said(PostKind.BROADCAST)
    assert "• another: refused by cloud (Forbidden.RAM)" in said
    assert f"• {TARGET.job}, stopped: 9 stopped" in said
    assert "RID8" in after.request_ids


async def test_when_every_rollout_is_refused_nothing_is_said_to_have_stopped(world: World) -> None:
    second_rollout(world)
    world.cloud.refusals |= {(StepKind.CANCEL_TASKS, name): DENIED for name in ("another", TARGET.job)}
    await world.ask("firmware.halt", job="", firmware="4.2.1")
    after = await world.click()
    assert outcome(after) is OutcomeCode.REFUSED_BY_CLOUD
    assert "topped" not in await world.said(PostKind.BROADCAST)


async def test_a_lost_answer_for_one_rollout_does_not_hold_up_the_others_and_its_devices_tell(world: World) -> None:
    second_rollout(world)
    await world.ask("firmware.halt", job="", firmware="4.2.1")
    lost = [sent for sent in ("another",) for _ in range(20)]

    def lose() -> None:
        if world.cloud.sent[-1].step.target.job in lost:
            world.cloud.answers = [CloudLost("timeout")]

    world.cloud.on_send = lose
    after = await world.click()
    assert outcome(after) is OutcomeCode.PARTLY_STOPPED
    said = await world.said(PostKind.BROADCAST)
    assert "• another, unknown outcome" in said
    assert "40 still moving" in said
    assert f"/ota resume {after.proposal_id[:8]}" in said
    assert [sent.step.target.job for sent in world.cloud.sent] == ["another", "another", TARGET.job]
    assert world.cloud.sent[0] == world.cloud.sent[1]


async def test_a_version_that_several_firmwares_have_is_asked_back(world: World) -> None:
    world.cloud.packages = [Firmware(f"fw-{n}", "gateway-fw", f"a1P{n}", "4.2.1") for n in (1, 2)]
    assert await world.ask("firmware.halt", job="", firmware="4.2.1") is None
    said = await world.said(PostKind.REPLY)
    assert "/ota halt firmware fw-1 on prod-shanghai" in said
    assert "product a1P2" in said


async def test_a_firmware_that_does_not_exist_is_said(world: World) -> None:
    assert await world.ask("firmware.halt", job="", firmware="9.9") is None
    assert "there is no firmware with the id or version 9.9" in await world.said(PostKind.REPLY)


async def test_a_firmware_with_nothing_running_ends_at_once(world: World) -> None:
    second_rollout(world, state=JobState.COMPLETED)
    world.cloud.job = replace(world.cloud.job, state=JobState.CANCELED)
    assert outcome(await world.ask("firmware.halt", job="", firmware="4.2.1")) is OutcomeCode.NOTHING_TO_STOP
    assert "no rollout of it is running" in await world.said(PostKind.REPLY)


async def test_every_deny_of_halt_holds_for_halting_a_firmware(world: World) -> None:
    rules = RULES + "- {name: not halted, deny: [job.halt]}\n"
    world.policy[0] = load({"p.yaml": rules.encode()}, operations=KNOWN)
    second_rollout(world)
    assert outcome(await world.ask("firmware.halt", job="", firmware="4.2.1")) is OutcomeCode.DENIED


# A halt whose batch takes no cancel any more.


async def test_a_halt_that_is_refused_as_cancelled_goes_on_device_by_device(world: World) -> None:
    world.cloud.job = job(kind=JobKind.DYNAMIC)
    world.cloud.tasks[TARGET.job] = [task(n, TaskState.QUEUED) for n in range(450)]
    world.cloud.counts = numbers(QUEUED=450)
    world.cloud.refusals[StepKind.CANCEL_TASKS, TARGET.job] = OVER
    await world.ask("job.halt", params=frozenset(ALL))
    after = await world.click()
    assert outcome(after) is OutcomeCode.STOPPED
    by_device = [sent.step for sent in world.cloud.sent if sent.step.kind is StepKind.CANCEL_DEVICES]
    assert [len(step.devices) for step in by_device] == [200, 200, 50]
    assert by_device[0].target == Target("prod-shanghai", TARGET.job, "fw-421", "a1Gateway01")
    assert "I cancel its devices by name instead, in 3 calls." in await world.said(PostKind.LINE)


async def test_without_devices_in_progress_it_offers_that_as_the_next_step(world: World) -> None:
    world.cloud.job = job(kind=JobKind.DYNAMIC)
    world.cloud.refusals[StepKind.CANCEL_TASKS, TARGET.job] = OVER
    await world.ask("job.halt")
    after = await world.click()
    assert outcome(after) is OutcomeCode.REFUSED_BY_CLOUD
    said = await world.said(PostKind.BROADCAST)
    assert "Accepted before that: cancelling the strategy." in said
    assert f"/ota halt {TARGET.job} --queued --notified --unconfirmed --in-progress" in said


async def test_a_strategy_that_is_refused_keeps_no_task_from_being_cancelled_and_is_not_forgotten(world: World) -> None:
    world.cloud.job = job(kind=JobKind.DYNAMIC)
    world.cloud.refusals[StepKind.CANCEL_STRATEGY, TARGET.job] = DENIED
    await world.ask("job.halt")
    after = await world.click()
    assert outcome(after) is OutcomeCode.PARTLY_STOPPED
    assert "The cloud refused cancelling the strategy" in await world.said(PostKind.LINE)
    assert f"It still matches new devices. To end that: /ota halt {TARGET.job}" in await world.said(PostKind.BROADCAST)


async def test_devices_that_a_dynamic_rollout_matches_later_are_told_apart(world: World) -> None:
    world.cloud.job = job(kind=JobKind.DYNAMIC)

    def match_more() -> None:
        world.cloud.counts[TaskState.CANCELED] = 9
        world.cloud.counts[TaskState.QUEUED] = 4
        world.cloud.is_obeyed = False

    world.cloud.on_send = match_more
    await world.ask()
    after = await world.click()
    assert outcome(after) is OutcomeCode.PARTLY_STOPPED
    said = await world.said(PostKind.BROADCAST)
    assert "The rollout matched 4 new devices since the last look" in said
    assert f"/ota halt {TARGET.job}" in said


# Devices by name.


async def test_devices_are_cancelled_by_name_in_every_rollout_that_has_them(world: World) -> None:
    second_rollout(world)
    world.cloud.tasks = {
        TARGET.job: [task(1, TaskState.QUEUED), task(2, TaskState.IN_PROGRESS), task(3, TaskState.QUEUED)],
        "another": [task(1, TaskState.NOTIFIED, "another")],
    }
    offered = await world.ask("device.cancel", job="", product="a1Gateway01", devices=("gw-001", "gw-002"))
    assert offered is not None
    assert offered.offer is not None
    assert Touch.IN_PROGRESS in offered.offer.preview.touches
    after = await world.click()
    assert outcome(after) is OutcomeCode.STOPPED
    assert {(sent.step.target.job, sent.step.devices) for sent in world.cloud.sent} == {
        (TARGET.job, ("gw-001", "gw-002")),
        ("another", ("gw-001",)),
    }
    assert world.cloud.tasks[TARGET.job][2].state is TaskState.QUEUED


async def test_a_device_with_nothing_open_is_said(world: World) -> None:
    asked = await world.ask("device.cancel", job="", product="a1Gateway01", devices=("gw-001",))
    assert outcome(asked) is OutcomeCode.NOTHING_TO_STOP
    assert "no open task of it is left" in await world.said(PostKind.REPLY)


async def test_a_lost_cancel_by_name_is_read_back_by_name(world: World) -> None:
    world.cloud.tasks[TARGET.job] = [task(1, TaskState.QUEUED)]
    await world.ask("device.cancel", job="", product="a1Gateway01", devices=("gw-001",))
    world.cloud.answers = [CloudLost("timeout"), CloudLost("timeout")]
    world.cloud.on_send = lambda: world.cloud.obey(world.cloud.sent[0].step)
    assert outcome(await world.click()) is OutcomeCode.GOAL_REACHED_UNCONFIRMED


# Tasks that are run again.


async def test_failed_tasks_are_run_again_ten_a_call(world: World) -> None:
    world.cloud.tasks[TARGET.job] = [task(n) for n in range(23)]
    world.cloud.counts = numbers(FAILED=23)
    offered = await world.ask("task.retry")
    assert offered is not None
    assert offered.offer is not None
    assert offered.offer.preview.devices == 23
    after = await world.click()
    assert outcome(after) is OutcomeCode.DONE
    assert [len(sent.step.tasks) for sent in world.cloud.sent] == [10, 10, 3]
    assert "23 of 23 tasks that the cloud accepted run again" in await world.said(PostKind.BROADCAST)


async def test_a_limit_leaves_the_rest_out_and_says_how_to_go_on(world: World) -> None:
    world.cloud.tasks[TARGET.job] = [task(n) for n in range(23)]
    world.cloud.counts = numbers(FAILED=23)
    await world.ask("task.retry", params=frozenset({"limit=5"}))
    first = await world.click()
    assert [len(sent.step.tasks) for sent in world.cloud.sent] == [5]
    assert f"/ota resume {first.proposal_id[:8]}" in await world.said(PostKind.BROADCAST)


async def test_a_batch_that_is_refused_is_reported_and_resuming_takes_it_up_without_what_was_accepted(
    world: World,
) -> None:
    world.cloud.tasks[TARGET.job] = [task(n) for n in range(25)]
    world.cloud.counts = numbers(FAILED=25)
    await world.ask("task.retry")
    second = CloudRefused("iot.ota.InvalidTaskExist", "a task is not valid")
    world.cloud.on_send = lambda: world.cloud.answers.extend([second] * (len(world.cloud.sent) == 2))
    first = await world.click()
    assert outcome(first) is OutcomeCode.DONE
    assert [call.answer for call in first.calls] == [CallAnswer.ACCEPTED, CallAnswer.REFUSED, CallAnswer.ACCEPTED]
    assert "Batch 2 (10 devices: gw-010" in await world.said(PostKind.BROADCAST)
    world.clock.pass_by(1)
    world.cloud.tasks[TARGET.job][0] = task(0)  # accepted before, failed again: not ours to repeat unasked
    again = await world.types(Resume(first.proposal_id[:8]))
    assert again is not None
    assert again.resumes == first.proposal_id
    assert again.offer is not None
    assert [each.task_id for each in again.offer.preview.parts[0].tasks] == [f"t{n}" for n in range(10, 20)]


async def test_a_lost_retry_is_never_sent_twice_and_nothing_follows_it(world: World) -> None:
    world.cloud.tasks[TARGET.job] = [task(n) for n in range(25)]
    world.cloud.counts = numbers(FAILED=25)
    await world.ask("task.retry")
    world.cloud.on_send = lambda: world.cloud.answers.extend([CloudLost("timeout")] * (len(world.cloud.sent) == 2))
    after = await world.click()
    assert outcome(after) is OutcomeCode.DONE
    assert [call.answer for call in after.calls] == [CallAnswer.ACCEPTED, CallAnswer.LOST]
    assert len(world.cloud.sent) == 2
    assert "10 of 10 tasks that the cloud accepted run again" in await world.said(PostKind.BROADCAST)


async def test_a_retry_that_is_denied_is_not_tried_with_every_batch(world: World) -> None:
    world.cloud.tasks[TARGET.job] = [task(n) for n in range(25)]
    world.cloud.counts = numbers(FAILED=25)
    world.cloud.refusals[StepKind.RETRY_TASKS, TARGET.job] = DENIED
    await world.ask("task.retry")
    assert outcome(await world.click()) is OutcomeCode.REFUSED_BY_CLOUD
    assert len(world.cloud.sent) == 1


async def test_tasks_that_no_longer_wait_at_the_last_look_are_not_run_again(world: World) -> None:
    world.cloud.tasks[TARGET.job] = [task(1), task(2)]
    world.cloud.counts = numbers(FAILED=2)
    await world.ask("task.retry")
    world.cloud.tasks[TARGET.job][0] = task(1, TaskState.SUCCEEDED)
    await world.click()
    assert [sent.step.tasks for sent in world.cloud.sent] == [("t2",)]


async def test_accepted_tasks_that_do_not_run_are_not_called_done(world: World) -> None:
    world.cloud.tasks[TARGET.job] = [task(1)]
    world.cloud.counts = numbers(FAILED=1)
    world.cloud.is_obeyed = False
    await world.ask("task.retry")
    assert outcome(await world.click()) is OutcomeCode.NOT_DONE
    assert "none of them runs again" in await world.said(PostKind.BROADCAST)


async def test_nothing_is_run_again_while_the_rollout_is_being_stopped(world: World) -> None:
    world.cloud.is_obeyed = False
    await world.ask()
    world.clock.pass_by(1)
    world.cloud.tasks[TARGET.job] = [task(1)]
    world.cloud.counts |= {TaskState.FAILED: 1}
    stop = await world.ask("task.retry")
    assert stop is not None
    assert stop.operation == "job.cancel"
    assert "this rollout is being stopped" in await world.said(PostKind.REPLY)


async def test_a_stop_that_is_asked_for_between_the_yes_and_the_call_goes_first(world: World) -> None:
    world.cloud.tasks[TARGET.job] = [task(n) for n in range(25)]
    world.cloud.counts = numbers(FAILED=25, QUEUED=9)
    retry = await world.ask("task.retry")
    assert retry is not None
    world.clock.pass_by(1)
    stop = await world.ask("job.cancel")
    assert stop is not None
    assert stop.operation == "job.cancel"
    assert retry.offer is not None
    await world.click(offer_id=retry.offer.offer_id)
    after = await world.store.fetch_proposal(retry.proposal_id)
    assert outcome(after) is OutcomeCode.SUPERSEDED
    assert world.cloud.sent == []


# A rate.

SETTINGS = JobSettings(600, 60, "ALL", "STATIC", (), (("ring", "3"),))


async def test_a_rate_sends_every_setting_again_and_is_read_back(world: World) -> None:
    world.cloud.job = job(settings=SETTINGS)
    await world.ask("job.rate", params=frozenset({"per_minute=10"}))
    after = await world.click()
    assert outcome(after) is OutcomeCode.DONE
    assert [sent.step.settings for sent in world.cloud.sent] == [replace(SETTINGS, per_minute=10)]
    assert "The rate was 600 devices per minute, it is now 10." in await world.said(PostKind.BROADCAST)


async def test_a_rate_that_was_accepted_and_is_not_there_is_not_called_done(world: World) -> None:
    world.cloud.job = job(settings=SETTINGS)
    await world.ask("job.rate", params=frozenset({"per_minute=10"}))

    def forget() -> None:
        world.cloud._set_job = lambda job: None  # type: ignore[method-assign]

    world.cloud.on_send = forget
    assert outcome(await world.click()) is OutcomeCode.NOT_DONE
    assert "it still is 600 devices per minute, not 10" in await world.said(PostKind.BROADCAST)


async def test_settings_that_changed_after_the_offer_are_offered_anew(world: World) -> None:
    world.cloud.job = job(settings=SETTINGS)
    await world.ask("job.rate", params=frozenset({"per_minute=10"}))
    world.cloud.job = job(settings=replace(SETTINGS, tags=()))
    after = await world.click()
    assert (after.state, world.cloud.sent) == (State.OFFERED, [])


@pytest.mark.parametrize(
    ("bent", "said"),
    [
        ({"settings": replace(SETTINGS, per_minute=10)}, "10 devices per minute already"),
        ({"settings": None}, "did not tell all settings"),
        ({"settings": SETTINGS, "state": JobState.COMPLETED}, "it has no rate any more"),
    ],
)
async def test_a_rate_that_cannot_be_set_is_said_before_a_yes(world: World, bent: dict[str, Any], said: str) -> None:
    world.cloud.job = job(**bent)
    assert outcome(await world.ask("job.rate", params=frozenset({"per_minute=10"}))) is OutcomeCode.NOT_DONE
    assert said in await world.said(PostKind.REPLY)


# Reads, dry runs, picks.


@pytest.mark.parametrize(
    ("verb", "given"),
    [
        ("firmware.halt", {"job": "", "firmware": "4.2.1"}),
        ("device.cancel", {"job": "", "product": "a1Gateway01", "devices": ("gw-001",)}),
        ("task.retry", {}),
        ("job.rate", {"params": frozenset({"per_minute=10"})}),
        ("job.halt", {}),
        ("job.cancel", {}),
    ],
)
async def test_every_change_has_a_dry_run_that_sends_nothing(world: World, verb: str, given: dict[str, Any]) -> None:
    second_rollout(world)
    world.cloud.job = job(settings=SETTINGS)
    world.cloud.tasks[TARGET.job] = [task(1), task(1, TaskState.QUEUED)]
    assert await world.ask(verb, is_dry_run=True, **given) is None
    assert world.cloud.sent == []
    assert "the policy allows it; nothing was sent" in await world.said(PostKind.REPLY)


async def test_tasks_are_sent_as_a_file_to_the_asker_alone(world: World) -> None:
    await world.ask("job.tasks", params=frozenset({"failed"}))
    [owed] = [each.post for each in await world.store.fetch_owed() if each.post.kind is PostKind.FILE]
    assert owed.file is not None
    assert (owed.file.kind, owed.file.states, owed.reply_to) == (
        FileKind.TASKS,
        (TaskState.FAILED,),
        delivery().reply_to,
    )


async def test_an_open_task_of_a_device_is_shown(world: World) -> None:
    world.cloud.tasks[TARGET.job] = [task(1, TaskState.NOTIFIED)]
    await world.ask("device.show", job="", product="a1Gateway01", devices=("gw-001",))
    assert f"gw-001 · notified · rollout {TARGET.job}" in await world.said(PostKind.REPLY)


async def test_lists_come_from_what_was_found_and_never_wait_for_the_cloud(world: World) -> None:
    await world.means.found.save_found("prod-shanghai", [], [job()], seen_at=world.clock())
    world.cloud.read_errors = [CloudUnreachable("down")] * 9
    await world.types(Ask("job.list"))
    said = await world.said(PostKind.REPLY)
    assert TARGET.job in said
    assert "as of" in said


async def test_the_asker_picks_the_instance_and_nobody_else(world: World) -> None:
    rules = RULES.replace("where: {instances: [prod-*]}}", "where: {instances: ['*']}}").replace(
        ", channel: C0INCIDENT", ""
    )
    world.policy[0] = load({"p.yaml": rules.encode()}, operations=KNOWN)
    await world.types(Ask("job.cancel", TARGET.job, reason="it bricks"))
    [asked] = [each.post for each in await world.store.fetch_owed()]
    assert asked.picks == ("prod-shanghai", "staging")
    assert await world.types(Pick(asked.lane, "staging"), user="U0ONCALLB2") is None
    picked = await world.types(Pick(asked.lane, "staging"))
    assert picked is not None
    assert (picked.target.instance, picked.reason) == ("staging", "it bricks")


async def test_what_is_not_over_or_not_known_cannot_be_resumed(world: World) -> None:
    waiting = await world.ask()
    assert waiting is not None
    await world.types(Resume(waiting.proposal_id))
    await world.types(Resume("abcdef"))
    said = await world.said(PostKind.REPLY)
    assert "is not over yet" in said
    assert "no change whose id begins with abcdef" in said


# Following.


async def test_a_file_of_those_that_still_move_and_a_curve_follow_the_last_line(world: World) -> None:
    world.cloud.is_obeyed = False
    await world.ask()
    await world.click()
    owed = [each.post for each in await world.store.fetch_owed()]
    files = [post.file for post in owed if post.file is not None]
    assert [file.kind for file in files] == [FileKind.MOVING, FileKind.CURVE]
    assert owed.index(next(post for post in owed if post.kind is PostKind.BROADCAST and post.notice)) < owed.index(
        next(post for post in owed if post.kind is PostKind.FILE)
    )
    assert any(post.kind is PostKind.PROGRESS for post in owed)


async def test_two_proposals_on_one_rollout_share_their_looks(world: World) -> None:
    world.cloud.is_obeyed = False
    reads = 0
    fetch = world.cloud.fetch_counts

    async def counted(*args: Any, **options: Any) -> Any:
        nonlocal reads
        reads += bool(options.get("in_order"))
        return await fetch(*args, **options)

    world.cloud.fetch_counts = counted  # type: ignore[method-assign]
    await world.ask()
    await world.click()
    alone, reads = reads, 0
    await world.ask()
    first = await world.last()
    world.clock.pass_by(1)
    await world.ask("job.cancel", params=frozenset({"queued", "in_progress"}))
    assert first is not None
    assert first.offer is not None
    world.means = replace(world.means, timings=replace(world.means.timings, follow_seconds=0))
    await world.click()
    await world.click(offer_id=first.offer.offer_id)
    assert alone > 10
    assert reads <= 4


async def test_a_read_that_was_repeated_by_something_between_us_and_the_cloud_is_an_unknown_outcome_first(
    world: World,
) -> None:
    await world.ask()
    world.cloud.answers = [CloudRefused("SignatureNonceUsed", "used"), CloudRefused("SignatureNonceUsed", "used")]
    world.cloud.on_send = lambda: world.cloud.obey(world.cloud.sent[0].step)
    after = await world.click()
    assert after.calls[0].answer is CallAnswer.ACCEPTED
    assert outcome(after) is OutcomeCode.STOPPED
    assert "a copy of it came first" in await world.said(PostKind.LINE)


async def test_a_resumed_firmware_halt_names_what_is_running_now(world: World) -> None:
    second_rollout(world)
    world.cloud.refusals[StepKind.CANCEL_TASKS, "another"] = DENIED
    await world.ask("firmware.halt", job="", firmware="4.2.1")
    first = await world.click()
    world.cloud.refusals.clear()
    world.clock.pass_by(timedelta(minutes=1).total_seconds())
    again = await world.types(Resume(first.proposal_id[:8], reason="now we may"))
    assert again is not None
    assert (again.reason, again.resumes) == ("now we may", first.proposal_id)
    assert again.state is State.OFFERED


async def test_resuming_the_halt_of_a_firmware_goes_on_with_the_rollouts_that_were_left_out(world: World) -> None:
    world.cloud.packages = [Firmware("fw-421", "gateway-fw", "a1Gateway01", "4.2.1")]
    for number in range(MOST_PARTS + 3):
        name = f"more-{number:02}"
        world.cloud.others[name] = (job(job_id=name), numbers(QUEUED=1))
    await world.ask("firmware.halt", job="", firmware="4.2.1")
    first = await world.click()
    assert outcome(first) is OutcomeCode.PARTLY_STOPPED
    assert "4 more rollouts of it run and were left out." in await world.said(PostKind.BROADCAST)
    before = {sent.step.target.job for sent in world.cloud.sent}
    world.clock.pass_by(1)
    again = await world.types(Resume(first.proposal_id[:8]))
    assert again is not None
    assert again.offer is not None
    offered = {part.job.job_id for part in again.offer.preview.parts}
    assert {TARGET.job, *world.cloud.others} - before <= offered

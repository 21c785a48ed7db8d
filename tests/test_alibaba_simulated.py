"""The ports of the road against the IoT simulator, in both signature schemes, and with answers in JSON and in XML."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import httpx
import pytest

from bot.alibaba.cloud import Cloud
from bot.errors import CloudRefused
from bot.model import JobKind, JobState, Step, StepKind, Target, TaskState, Touch
from bot.ports import Purpose
from bot.sandbox.fleet import Fleet
from bot.sandbox.habits import EmptyRows, Habits, Omitted, TaskOrder
from bot.sandbox.iot import create_iot_app, load_seed
from tests.conftest import Clock
from tests.scripted_api import INSTANCES, make_cloud

ROLLOUT = Target("prod", "7glPHmaDYLAYMD1HHutT02", "Gw421aFq8LkT2nVb6Wc001", "a1Gateway01")
DYNAMIC = Target("prod", "dYn4m1cRq2WsXe8RtGv501", "Gw421aFq8LkT2nVb6Wc001", "a1Gateway01")
FIRMWARE = "Gw421aFq8LkT2nVb6Wc001"


class InXml(httpx.ASGITransport):
    """Asks for XML behind the client's back. V3 does not sign what a client accepts."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.headers["accept"] = "application/xml"
        response = await super().handle_async_request(request)
        assert "xml" in response.headers["content-type"]
        return response


@pytest.fixture
def fleet(clock: Clock) -> Fleet:
    return Fleet.from_seed(load_seed(), now=lambda: clock.at.timestamp())


@pytest.fixture(params=["v3", "v1", "v3 in XML"])
async def cloud(request: pytest.FixtureRequest, fleet: Fleet, clock: Clock) -> AsyncIterator[Cloud]:
    app = create_iot_app(fleet, now=lambda: clock.at.timestamp(), is_throttling=False)
    transport = InXml(app=app) if "XML" in request.param else httpx.ASGITransport(app=app)
    instance = replace(INSTANCES["prod"], signature=request.param[:2], endpoint="http://127.0.0.1:9")
    async with httpx.AsyncClient(transport=transport) as http:
        yield make_cloud(http, clock, instances={"prod": instance})


async def counts_of(cloud: Cloud, target: Target) -> dict[TaskState, int | None]:
    return dict((await cloud.fetch_counts(target, tuple(TaskState), purpose=Purpose.STOP)).by_state)


async def test_a_rollout_is_read_stopped_and_read_again(cloud: Cloud) -> None:
    job = await cloud.fetch_job(ROLLOUT)
    before = await counts_of(cloud, ROLLOUT)
    assert job.state is JobState.IN_PROGRESS
    assert before[TaskState.QUEUED]

    intent = cloud.prepare(Step(StepKind.CANCEL_TASKS, ROLLOUT, frozenset({Touch.QUEUED})))
    receipt = await cloud.send(intent)
    assert receipt.request_id

    after = (await cloud.fetch_counts(ROLLOUT, tuple(TaskState), in_order=True)).by_state
    assert after[TaskState.QUEUED] == 0
    assert after[TaskState.CANCELED] == before[TaskState.QUEUED]

    with pytest.raises(CloudRefused) as again:
        await cloud.send(intent)
    assert again.value.code == "SignatureNonceUsed"


async def test_counts_agree_with_the_tasks_that_are_listed_and_give_reasons(cloud: Cloud, clock: Clock) -> None:
    clock.pass_by(240)
    counts = await cloud.fetch_counts(ROLLOUT, tuple(TaskState))
    listed = [
        task
        for page in range(1, 1 + -(-(counts.total or 0) // 100))
        for task in (await cloud.fetch_task_page(ROLLOUT, page)).tasks
    ]
    assert {state: sum(task.state is state for task in listed) for state in TaskState} == counts.by_state
    assert counts.by_state[TaskState.FAILED]
    assert sum(counts.failures.values()) == counts.by_state[TaskState.FAILED]
    assert set(counts.failures) == {task.detail for task in listed if task.state is TaskState.FAILED}
    assert {task.product for task in listed} == {"a1Gateway01"}


async def test_a_dynamic_rollout_loses_its_strategy_and_matches_nobody_any_more(cloud: Cloud, clock: Clock) -> None:
    assert (await cloud.fetch_job(DYNAMIC)).kind is JobKind.DYNAMIC
    await cloud.send(cloud.prepare(Step(StepKind.CANCEL_STRATEGY, DYNAMIC)))
    before = await counts_of(cloud, DYNAMIC)
    clock.pass_by(120)
    after = await counts_of(cloud, DYNAMIC)
    assert sum(number or 0 for number in after.values()) == sum(number or 0 for number in before.values())
    assert (await cloud.fetch_job(DYNAMIC)).state is JobState.CANCELED


async def test_devices_are_cancelled_by_name_and_no_others(cloud: Cloud) -> None:
    page = await cloud.fetch_task_page(ROLLOUT, 1, state=TaskState.QUEUED)
    names = tuple(task.device for task in page.tasks[:60])
    before = await counts_of(cloud, ROLLOUT)
    await cloud.send(cloud.prepare(Step(StepKind.CANCEL_DEVICES, ROLLOUT, devices=names)))
    tasks = await cloud.fetch_tasks_of(ROLLOUT, names)
    assert [(task.device, task.state) for task in tasks] == [(name, TaskState.CANCELED) for name in names]
    assert (await counts_of(cloud, ROLLOUT))[TaskState.CANCELED] == (before[TaskState.CANCELED] or 0) + len(names)


async def test_cancelled_tasks_run_again(cloud: Cloud) -> None:
    await cloud.send(cloud.prepare(Step(StepKind.CANCEL_TASKS, ROLLOUT, frozenset({Touch.QUEUED}))))
    page = await cloud.fetch_task_page(ROLLOUT, 1, state=TaskState.CANCELED)
    some = page.tasks[:10]
    step = Step(
        StepKind.RETRY_TASKS,
        ROLLOUT,
        devices=tuple(task.device for task in some),
        tasks=tuple(task.task_id for task in some),
    )
    await cloud.send(cloud.prepare(step))
    states = {task.state for task in await cloud.fetch_tasks_of(ROLLOUT, step.devices)}
    assert TaskState.CANCELED not in states


@pytest.mark.parametrize("target", [ROLLOUT, DYNAMIC], ids=["static", "dynamic"])
async def test_a_new_rate_changes_nothing_but_the_rate(cloud: Cloud, target: Target) -> None:
    before = await cloud.fetch_job(target)
    assert before.settings is not None
    await cloud.send(cloud.prepare(Step(StepKind.SET_RATE, target, settings=replace(before.settings, per_minute=11))))
    after = await cloud.fetch_job(target)
    assert after == replace(before, settings=replace(before.settings, per_minute=11))
    assert before.settings.per_minute != 11


async def test_tags_are_still_there_after_a_new_rate(cloud: Cloud) -> None:
    settings = (await cloud.fetch_job(ROLLOUT)).settings
    assert settings is not None
    assert settings.tags == (("ring", "3"), ("owner", "firmware"))


async def test_the_open_tasks_of_a_device_are_those_of_its_batch(cloud: Cloud) -> None:
    queued = (await cloud.fetch_task_page(ROLLOUT, 1, state=TaskState.QUEUED)).tasks[0]
    (task,) = await cloud.fetch_open_tasks("prod", "a1Gateway01", queued.device)
    assert (task.task_id, task.job_id, task.firmware_id) == (queued.task_id, ROLLOUT.job, FIRMWARE)


async def test_firmware_is_listed_newest_first_and_found_by_id_and_version(cloud: Cloud) -> None:
    every = await cloud.fetch_firmware("prod", product="a1Gateway01")
    assert [each.dest_version for each in every] == ["4.2.1", "4.1.9"]
    (by_version,) = await cloud.fetch_firmware("prod", version="4.2.1")
    (by_id,) = await cloud.fetch_firmware("prod", firmware_id=FIRMWARE)
    assert by_version.firmware_id == by_id.firmware_id == FIRMWARE
    assert by_id.created_at == by_version.created_at is not None
    assert await cloud.fetch_firmware("prod", version="9.9.9") == ()
    assert await cloud.fetch_firmware("prod", firmware_id="nosuchfirmware") == ()


async def test_the_batches_of_a_firmware_are_listed_as_they_are(cloud: Cloud) -> None:
    jobs = {job.job_id: job for job in await cloud.fetch_jobs_of("prod", FIRMWARE)}
    assert {ROLLOUT.job, DYNAMIC.job} <= set(jobs)
    for job in jobs.values():
        alone = await cloud.fetch_job(Target("prod", job.job_id))
        assert (job.state, job.kind, job.product, job.created_at) == (
            alone.state,
            alone.kind,
            alone.product,
            alone.created_at,
        )
        assert job.settings is None
        assert alone.settings is not None


UNKNOWNS = {
    "errors under 400": {"error_status": 400},
    "no short pages": {"least_page_size": 10},
    "empty lists as objects": {"empty_rows": EmptyRows.OBJECT},
    "empty lists left out": {"empty_rows": EmptyRows.ABSENT},
    "newest task first": {"task_order": TaskOrder.NEWEST},
    "tasks by name": {"task_order": TaskOrder.NAME},
    "misspelt words": {"completed_word": "COMPLETE", "verify_word": "VERFIY_FIRMWARE"},
    "what is left out is forgotten": {"omitted_settings": Omitted.CLEARED},
    "bare roots in XML": {"bare_xml_roots": True},
    "a code beside a success": {"success_code": "200"},
}


@pytest.mark.parametrize("habits", UNKNOWNS.values(), ids=UNKNOWNS)
async def test_whatever_the_documents_leave_open_the_same_is_read(
    cloud: Cloud, fleet: Fleet, habits: dict[str, object]
) -> None:
    fleet.habits = Habits(**habits)  # type: ignore[arg-type]
    page = await cloud.fetch_task_page(ROLLOUT, 1, state=TaskState.QUEUED)
    names = [task.device for task in page.tasks]
    counts = await counts_of(cloud, ROLLOUT)
    assert counts == fleet.rollouts[ROLLOUT.job].counts(fleet.now())
    assert counts[TaskState.QUEUED] == page.total
    assert len(names) == 100
    assert [task.device for task in await cloud.fetch_tasks_of(ROLLOUT, names)] == names
    assert await cloud.fetch_open_tasks("prod", "a1Gateway01", "gw-pilot-00001") == ()
    assert (await cloud.fetch_task_page(ROLLOUT, 1, state=TaskState.CANCELED)).tasks == ()
    assert await cloud.fetch_firmware("prod", firmware_id="nosuchfirmware") == ()
    finished = await cloud.fetch_job(Target("prod", "F1n1shedZa3Sx5Dc7Fv201"))
    assert finished.state is JobState.COMPLETED
    before = await cloud.fetch_job(DYNAMIC)
    assert before.settings is not None
    changed = replace(before.settings, per_minute=11)
    await cloud.send(cloud.prepare(Step(StepKind.SET_RATE, DYNAMIC, settings=changed)))
    assert (await cloud.fetch_job(DYNAMIC)).settings == changed


async def test_a_clock_that_is_off_is_refused(cloud: Cloud, clock: Clock) -> None:
    cloud._access.now = lambda: clock.at + timedelta(hours=1)
    with pytest.raises(CloudRefused) as caught:
        await cloud.fetch_job(ROLLOUT)
    assert caught.value.code == "InvalidTimeStamp.Expired"
    assert "NTP" in " ".join(cloud.explain(caught.value, ROLLOUT).lines)


async def test_another_job_is_not_known(cloud: Cloud) -> None:
    target = Target("prod", "nosuchjob")
    with pytest.raises(CloudRefused) as caught:
        await cloud.fetch_job(target)
    assert cloud.explain(caught.value, target).text == "Instance prod has no job nosuchjob."

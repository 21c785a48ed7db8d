"""What the road reads: jobs, counts, tasks, packages and lists, asked of a scripted cloud."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from bot.alibaba import access
from bot.alibaba.budget import Budget
from bot.alibaba.cloud import Cloud
from bot.alibaba.credentials import Credentials
from bot.alibaba.key_sources import KeySource
from bot.errors import CloudLost, CloudRefused, CloudUnreachable
from bot.model import Job, JobKind, JobSettings, JobState, Target, TaskState
from bot.ports import MOST_LISTED, TASKS_A_PAGE, Purpose
from tests.conftest import Clock
from tests.scripted_api import JOB, OK, Answer, Api, make_cloud, make_keys
from tests.slots import ClaimedSlots, FullSlots, OpenSlots

TARGET = Target("prod", "j1")
REFUSED = {"Code": "Forbidden.RAM", "Message": "no"}
NO_JOB = {"Code": "iot.ota.InvalidJobId", "Message": "none"}


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
async def http(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.MockTransport(api)) as http:
        yield http


@pytest.fixture
def cloud(http: httpx.AsyncClient, clock: Clock) -> Cloud:
    return make_cloud(http, clock)


async def fetch_job(cloud: Cloud, api: Api, **fields: object) -> Job:
    api.script = [{**OK, "Data": {**JOB, **fields}}]
    return await cloud.fetch_job(TARGET)


async def test_a_job_is_put_in_the_words_of_the_core(cloud: Cloud, api: Api) -> None:
    job = await fetch_job(
        cloud,
        api,
        FirmwareId="f1",
        Name="gateway",
        ProductKey="a1",
        DestVersion="4.2.1",
        SrcVersions={"SrcVersion": ["4.1.9"]},
        JobDesc="to all",
        UtcCreate="2026-03-01T03:12:00.000Z",
    )
    assert (job.job_id, job.state, job.kind, job.firmware_id) == ("j1", JobState.IN_PROGRESS, JobKind.STATIC, "f1")
    assert (job.firmware, job.product, job.dest_version) == ("gateway", "a1", "4.2.1")
    assert (job.src_versions, job.description) == (("4.1.9",), "to all")
    assert (job.created_at, job.planned_for) == (datetime(2026, 3, 1, 3, 12, tzinfo=UTC), None)
    assert api.params == {"IotInstanceId": "iot-cn-0pp1n8t0001", "JobId": "j1"}


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"SelectionType": "DYNAMIC"}, JobKind.DYNAMIC),
        ({"JobType": "VERFIY_FIRMWARE"}, JobKind.VERIFICATION),
        ({"UtcScheduleTime": "2026-03-02T00:00:00.000Z"}, JobKind.SCHEDULED),
        ({"JobStatus": "PLANNED"}, JobKind.SCHEDULED),
        ({}, JobKind.STATIC),
    ],
)
async def test_a_job_has_a_kind(cloud: Cloud, api: Api, fields: dict[str, object], kind: JobKind) -> None:
    assert (await fetch_job(cloud, api, **fields)).kind is kind


async def test_a_job_has_the_settings_that_can_be_changed(cloud: Cloud, api: Api) -> None:
    job = await fetch_job(
        cloud,
        api,
        SelectionType="DYNAMIC",
        MaximumPerMinute="1000",
        TimeoutInMinutes=30,
        SrcVersions={"SrcVersion": ["4.1.9"]},
        Tags={"OtaTagDTO": [{"Key": "team", "Value": "gw"}]},
    )
    assert job.settings == JobSettings(1000, 30, "ALL", "DYNAMIC", ("4.1.9",), (("team", "gw"),))


async def test_what_a_static_batch_selects_is_never_guessed(cloud: Cloud, api: Api) -> None:
    settings = (await fetch_job(cloud, api)).settings
    assert settings is not None
    assert (settings.target_selection, settings.upgrade_type) == ("", "STATIC")


async def test_settings_that_cannot_be_read_are_not_known(cloud: Cloud, api: Api) -> None:
    assert (await fetch_job(cloud, api, Tags={"Tag": [{"Key": "a", "Value": "b"}]})).settings is None


async def test_a_job_in_a_state_that_nobody_knows_is_not_guessed(cloud: Cloud, api: Api) -> None:
    with pytest.raises(CloudLost, match="DREAMING"):
        await fetch_job(cloud, api, JobStatus="DREAMING")


# Counts.


async def test_counts_are_totals_by_state_asked_all_at_once(cloud: Cloud, api: Api, clock: Clock) -> None:
    api.standing = lambda request: {**OK, "Total": len(request.url.params["TaskStatus"])}
    counts = await cloud.fetch_counts(TARGET, tuple(TaskState), purpose=Purpose.STOP)
    assert counts.by_state == {state: len(state.value) for state in TaskState}
    assert list(counts.by_state) == list(TaskState)
    assert counts.read_at == clock.at
    assert set(api.asked_for("PageSize")) == {"1"}
    assert api.most_at_once == len(TaskState)


async def test_counts_in_order_ask_the_open_states_one_after_the_other(cloud: Cloud, api: Api) -> None:
    states = (TaskState.IN_PROGRESS, TaskState.CONFIRM, TaskState.NOTIFIED, TaskState.QUEUED)
    await cloud.fetch_counts(TARGET, states, in_order=True, purpose=Purpose.FOLLOW)
    assert api.asked_for("TaskStatus") == ["CONFIRM", "QUEUED", "NOTIFIED", "IN_PROGRESS"]
    assert api.most_at_once == 1


async def test_the_final_states_are_asked_together_after_the_open_ones(cloud: Cloud, api: Api) -> None:
    await cloud.fetch_counts(TARGET, tuple(reversed(TaskState)), in_order=True, purpose=Purpose.FOLLOW)
    asked = api.asked_for("TaskStatus")
    assert asked[:4] == ["CONFIRM", "QUEUED", "NOTIFIED", "IN_PROGRESS"]
    assert set(asked[4:]) == {"SUCCEEDED", "FAILED", "CANCELED"}
    assert api.most_at_once == 3


async def test_a_number_that_cannot_be_read_is_unknown_and_not_zero(cloud: Cloud, api: Api) -> None:
    api.standing = lambda request: OK if request.url.params["TaskStatus"] == "QUEUED" else {**OK, "Total": 2}
    counts = await cloud.fetch_counts(TARGET, (TaskState.QUEUED, TaskState.NOTIFIED))
    assert counts.by_state == {TaskState.QUEUED: None, TaskState.NOTIFIED: 2}


@pytest.mark.parametrize("in_order", [False, True])
async def test_counts_raise_only_if_none_can_be_read(cloud: Cloud, api: Api, in_order: bool) -> None:
    api.standing = lambda request: NO_JOB
    with pytest.raises(CloudRefused, match="InvalidJobId"):
        await cloud.fetch_counts(TARGET, tuple(TaskState), in_order=in_order)


def failed(*reasons: str, status: str = "FAILED") -> dict[str, Any]:
    rows = [{"TaskId": f"t{number}", "TaskStatus": status, "TaskDesc": why} for number, why in enumerate(reasons)]
    return {**OK, "Total": 1234, "Data": {"SimpleOTATaskInfo": rows}}


async def test_a_preview_counts_the_failed_tasks_and_says_why_they_failed_in_one_call(cloud: Cloud, api: Api) -> None:
    api.standing = lambda request: failed("flash\nfull", "flash full", "no\u202e power", "", "  ")
    counts = await cloud.fetch_counts(TARGET, (TaskState.FAILED,))
    assert counts.by_state == {TaskState.FAILED: 1234}
    assert list(counts.failures.items()) == [("flash full", 2), ("no power", 1)]
    assert api.asked_for("PageSize") == ["100"]


async def test_of_many_reasons_the_five_most_frequent_are_told(cloud: Cloud, api: Api) -> None:
    api.standing = lambda request: failed(*(f"reason {number}" for number in range(9) for _ in range(number)))
    counts = await cloud.fetch_counts(TARGET, (TaskState.FAILED,))
    assert list(counts.failures.items()) == [(f"reason {number}", number) for number in (8, 7, 6, 5, 4)]


async def test_a_task_that_did_not_fail_gives_no_reason(cloud: Cloud, api: Api) -> None:
    api.standing = lambda request: failed("only warm", status="IN_PROGRESS")
    assert (await cloud.fetch_counts(TARGET, (TaskState.FAILED,))).failures == {}


@pytest.mark.parametrize("purpose", [Purpose.STOP, Purpose.FOLLOW])
async def test_nobody_but_a_preview_asks_why(cloud: Cloud, api: Api, purpose: Purpose) -> None:
    api.standing = lambda request: failed("flash full")
    counts = await cloud.fetch_counts(TARGET, (TaskState.FAILED,), purpose=purpose)
    assert counts.failures == {}
    assert api.asked_for("PageSize") == ["1"]


async def test_a_cloud_that_wants_longer_pages_gets_them_from_then_on(cloud: Cloud, api: Api) -> None:
    def answer(request: httpx.Request) -> Answer:
        if int(request.url.params["PageSize"]) < 10:
            return {"Success": False, "Code": "iot.common.InvalidPageParams", "ErrorMessage": "too short"}
        return {**OK, "Total": 5}

    api.standing = answer
    states = (TaskState.QUEUED, TaskState.NOTIFIED)
    for _ in range(2):
        counts = await cloud.fetch_counts(TARGET, states, purpose=Purpose.STOP)
        assert counts.by_state == {TaskState.QUEUED: 5, TaskState.NOTIFIED: 5}
    assert api.asked_for("PageSize") == ["1", "1", "10", "10", "10", "10"]


async def test_a_cloud_that_wants_no_page_at_all_is_asked_twice(cloud: Cloud, api: Api) -> None:
    api.standing = lambda request: {"Success": False, "Code": "iot.common.InvalidPageParams", "ErrorMessage": "no"}
    with pytest.raises(CloudRefused, match="InvalidPageParams"):
        await cloud.fetch_counts(TARGET, (TaskState.QUEUED,), purpose=Purpose.STOP)
    assert api.asked_for("PageSize") == ["1", "10"]


# Tasks.


def task_rows(*rows: tuple[str, str]) -> dict[str, Any]:
    listed = [{"TaskId": f"t-{device}", "DeviceName": device, "TaskStatus": status} for device, status in rows]
    return {**OK, "Total": len(listed), "Data": {"SimpleOTATaskInfo": listed}}


async def test_a_page_of_tasks_is_read(cloud: Cloud, api: Api) -> None:
    row = {
        "TaskId": "t1",
        "JobId": "j1",
        "FirmwareId": "f1",
        "ProductKey": "a1",
        "DeviceName": "d1",
        "TaskStatus": "FAILED",
        "Progress": "12.50",
        "TaskDesc": "flash full",
        "SrcVersion": "4.1.0",
        "DestVersion": "4.2.1",
        "UtcCreate": "2026-03-01T03:12:00.000Z",
        "UtcModified": "2026-03-01T03:13:00.000Z",
    }
    api.script = [{**OK, "Total": 4321, "Data": {"SimpleOTATaskInfo": [row]}}]
    page = await cloud.fetch_task_page(TARGET, 7, state=TaskState.FAILED)
    (task,) = page.tasks
    assert page.total == 4321
    assert (task.task_id, task.device, task.state, task.job_id) == ("t1", "d1", TaskState.FAILED, "j1")
    assert (task.firmware_id, task.product, task.progress, task.detail) == ("f1", "a1", "12.50", "flash full")
    assert (task.src_version, task.dest_version) == ("4.1.0", "4.2.1")
    assert task.created_at == datetime(2026, 3, 1, 3, 12, tzinfo=UTC)
    assert task.changed_at == datetime(2026, 3, 1, 3, 13, tzinfo=UTC)
    assert (api.params["CurrentPage"], api.params["PageSize"]) == ("7", "100")
    assert api.params["TaskStatus"] == "FAILED"


async def test_a_task_in_a_state_that_nobody_knows_is_in_the_total_alone(cloud: Cloud, api: Api) -> None:
    api.script = [task_rows(("d1", "QUEUED"), ("d2", "DREAMING"), ("d3", ""))]
    page = await cloud.fetch_task_page(TARGET, 1)
    assert [task.device for task in page.tasks] == ["d1"]
    assert page.total == 3
    assert "TaskStatus" not in api.params


@pytest.mark.parametrize("page", [0, -1, MOST_LISTED // TASKS_A_PAGE + 1])
async def test_a_page_that_the_cloud_does_not_list_is_not_asked_for(cloud: Cloud, api: Api, page: int) -> None:
    with pytest.raises(ValueError, match="pages 1 to 1000"):
        await cloud.fetch_task_page(TARGET, page)
    assert api.asked == []


async def test_tasks_of_devices_are_asked_for_fifty_names_at_a_time(cloud: Cloud, api: Api) -> None:
    def answer(request: httpx.Request) -> Answer:
        names = [value for name, value in request.url.params.items() if name.startswith("DeviceNames.")]
        return task_rows(*((name, "QUEUED") for name in names if name != "d7"))

    api.standing = answer
    devices = [f"d{number}" for number in range(120)]
    tasks = await cloud.fetch_tasks_of(TARGET, [*devices, "d3"])
    assert [task.device for task in tasks] == [name for name in devices if name != "d7"]
    sizes = [sum(name.startswith("DeviceNames.") for name in request.url.params) for request in api.asked]
    assert sorted(sizes) == [20, 50, 50]


async def test_a_cloud_that_answers_with_other_devices_does_not_put_them_in(cloud: Cloud, api: Api) -> None:
    api.standing = lambda request: task_rows(("d1", "QUEUED"), ("stranger", "QUEUED"))
    assert [task.device for task in await cloud.fetch_tasks_of(TARGET, ["d1"])] == ["d1"]


async def test_tasks_of_no_devices_need_no_call(cloud: Cloud, api: Api) -> None:
    assert await cloud.fetch_tasks_of(TARGET, []) == ()
    assert api.asked == []


async def test_a_batch_of_names_that_cannot_be_read_fails_them_all(cloud: Cloud, api: Api) -> None:
    api.script = [task_rows(("d0", "QUEUED")), REFUSED]
    with pytest.raises(CloudRefused):
        await cloud.fetch_tasks_of(TARGET, [f"d{number}" for number in range(51)])


async def test_the_open_tasks_of_a_device_name_their_batches(cloud: Cloud, api: Api) -> None:
    api.script = [{**OK, "Data": {"SimpleOTATaskInfo": [{"TaskId": "t1", "JobId": "j9", "TaskStatus": "NOTIFIED"}]}}]
    (task,) = await cloud.fetch_open_tasks("prod", "a1", "d1")
    assert (task.task_id, task.job_id, task.state) == ("t1", "j9", TaskState.NOTIFIED)
    assert (api.action, api.params["DeviceName"]) == ("ListOTAUnfinishedTaskByDevice", "d1")


# Packages and their batches.


def packages(*rows: tuple[str, str], total: int | None = None) -> dict[str, Any]:
    listed = [{"FirmwareId": name, "UtcCreate": at, "ProductKey": "a1", "DestVersion": "4.2.1"} for name, at in rows]
    return {**OK, "Total": len(listed) if total is None else total, "FirmwareInfo": {"SimpleFirmwareInfo": listed}}


async def test_packages_come_newest_first_whatever_the_order_of_the_cloud(cloud: Cloud, api: Api) -> None:
    api.script = [
        packages(
            ("middle", "2026-02-01T00:00:00.000Z"),
            ("unknown", ""),
            ("new", "2026-03-01T00:00:00.000Z"),
            ("old", "2026-01-01T00:00:00.000Z"),
        )
    ]
    found = await cloud.fetch_firmware("prod", product="a1", version="4.2.1")
    assert [each.firmware_id for each in found] == ["new", "middle", "old", "unknown"]
    assert (api.params["ProductKey"], api.params["DestVersion"]) == ("a1", "4.2.1")


@pytest.mark.parametrize("wanted", [{"version": "4.2"}, {"product": "a2"}])
async def test_a_package_of_another_version_or_product_is_not_taken(
    cloud: Cloud, api: Api, wanted: dict[str, str]
) -> None:
    api.script = [packages(("f1", ""))]
    assert await cloud.fetch_firmware("prod", **wanted) == ()


async def test_a_package_is_found_by_its_id(cloud: Cloud, api: Api) -> None:
    api.script = [{**OK, "FirmwareInfo": {"FirmwareId": "f1", "FirmwareName": "gateway", "SrcVersion": "4.1.0"}}]
    (found,) = await cloud.fetch_firmware("prod", firmware_id="f1")
    assert (found.firmware_id, found.name, found.src_version) == ("f1", "gateway", "4.1.0")
    assert (api.action, api.params["FirmwareId"]) == ("QueryOTAFirmware", "f1")


@pytest.mark.parametrize("code", ["iot.ota.FirmwareNotFound", "iot.ota.InvalidFirmwareUid"])
async def test_of_an_id_that_the_cloud_does_not_know_there_is_no_package(cloud: Cloud, api: Api, code: str) -> None:
    api.script = [{"Success": False, "Code": code, "ErrorMessage": "none"}]
    assert await cloud.fetch_firmware("prod", firmware_id="4.2.1") == ()


async def test_a_package_that_may_not_be_read_is_refused(cloud: Cloud, api: Api) -> None:
    api.script = [REFUSED]
    with pytest.raises(CloudRefused):
        await cloud.fetch_firmware("prod", firmware_id="f1")


def paged(request: httpx.Request, total: int) -> Answer:
    """A page of `total` packages whose ids are their numbers."""
    size, page = int(request.url.params["PageSize"]), int(request.url.params["CurrentPage"])
    numbers = range((page - 1) * size, min(page * size, total))
    return packages(*((str(number), "") for number in numbers), total=total)


async def test_all_pages_of_a_list_are_read(cloud: Cloud, api: Api) -> None:
    api.standing = lambda request: paged(request, 250)
    found = await cloud.fetch_firmware("prod")
    assert {each.firmware_id for each in found} == {str(number) for number in range(250)}
    assert set(api.asked_for("CurrentPage")) == {"1", "2", "3"}


async def test_of_a_list_without_end_both_ends_are_read(cloud: Cloud, api: Api) -> None:
    api.standing = lambda request: paged(request, 1_000_000)
    found = {int(each.firmware_id) for each in await cloud.fetch_firmware("prod")}
    assert found == set(range(1000)) | set(range(999_000, 1_000_000))


async def test_a_list_whose_end_is_not_told_is_not_taken_for_whole(cloud: Cloud, api: Api) -> None:
    def answer(request: httpx.Request) -> Answer:
        full = paged(request, 100)
        assert isinstance(full, dict)
        return {**full, "Total": None}

    api.standing = answer
    with pytest.raises(CloudLost, match="no total"):
        await cloud.fetch_firmware("prod")


async def test_a_package_that_moved_from_page_to_page_is_told_once(cloud: Cloud, api: Api) -> None:
    api.script = [packages(("f1", ""), total=101), packages(("f1", ""), ("f2", ""), total=101)]
    assert [each.firmware_id for each in await cloud.fetch_firmware("prod")] == ["f1", "f2"]


def batches(*rows: tuple[str, str]) -> dict[str, Any]:
    listed = [
        {"JobId": job, "JobStatus": status, "SelectionType": "STATIC", "Tags": {"OtaTagDTO": []}}
        for job, status in rows
    ]
    return {**OK, "Total": len(listed), "Data": {"SimpleOTAJobInfo": listed}}


async def test_the_batches_of_a_package_are_listed_without_settings(cloud: Cloud, api: Api) -> None:
    api.script = [batches(("j1", "IN_PROGRESS"), ("j2", "COMPLETE"), ("j3", "PLANNED"), ("j1", "IN_PROGRESS"))]
    jobs = await cloud.fetch_jobs_of("prod", "f1")
    assert [(job.job_id, job.state) for job in jobs] == [
        ("j1", JobState.IN_PROGRESS),
        ("j2", JobState.COMPLETED),
        ("j3", JobState.PLANNED),
    ]
    assert {job.settings for job in jobs} == {None}
    assert (api.params["FirmwareId"], api.params["PageSize"]) == ("f1", "200")


async def test_a_stop_is_not_told_less_batches_than_there_are(cloud: Cloud, api: Api) -> None:
    api.script = [batches(("j1", "IN_PROGRESS"), ("j2", "DREAMING"))]
    with pytest.raises(CloudLost, match="DREAMING"):
        await cloud.fetch_jobs_of("prod", "f1", purpose=Purpose.PREVIEW)


async def test_discovery_goes_on_without_a_batch_that_nobody_understands(cloud: Cloud, api: Api) -> None:
    api.script = [batches(("j1", "IN_PROGRESS"), ("j2", "DREAMING"))]
    jobs = await cloud.fetch_jobs_of("prod", "f1", purpose=Purpose.DISCOVERY)
    assert [job.job_id for job in jobs] == ["j1"]


# Repeating, waiting, refusing.


@pytest.mark.parametrize(
    "fault",
    [
        httpx.ConnectError("refused"),
        httpx.ReadError("reset"),
        {"Code": "ServiceUnavailable", "Message": "…"},
        {"Code": "SignatureNonceUsed", "Message": "…"},
    ],
    ids=["unreachable", "reset", "unavailable", "nonce used"],
)
async def test_a_read_is_repeated_once_with_a_new_nonce(cloud: Cloud, api: Api, fault: Answer) -> None:
    api.script = [fault]
    await cloud.fetch_job(TARGET)
    assert api.nonces == ["nonce-1", "nonce-2"]


async def test_a_read_that_fails_twice_fails(cloud: Cloud, api: Api) -> None:
    api.script = [httpx.ReadError("reset"), httpx.ReadError("reset")]
    with pytest.raises(CloudLost):
        await cloud.fetch_job(TARGET)
    assert len(api.asked) == 2


async def test_a_refused_read_is_not_repeated(cloud: Cloud, api: Api) -> None:
    api.script = [REFUSED]
    with pytest.raises(CloudRefused):
        await cloud.fetch_job(TARGET)
    assert len(api.asked) == 1


async def test_a_read_is_not_repeated_when_its_time_is_over(
    cloud: Cloud, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(request: httpx.Request) -> Answer:
        monkeypatch.setattr(access, "ATTEMPT_SECONDS", 12.0)
        return httpx.ReadError("reset")

    api.standing = answer
    with pytest.raises(CloudLost):
        await cloud.fetch_job(TARGET)
    assert len(api.asked) == 1


async def test_the_repetition_is_signed_with_the_key_that_is_good_then(
    http: httpx.AsyncClient, api: Api, clock: Clock
) -> None:
    class Renewed:
        """A key that is another each time it is asked for."""

        number = 0

        def current(self) -> Credentials:
            self.number += 1
            return Credentials(f"key-{self.number}", "s")

        async def first(self, timeout_seconds: float = 1) -> str | None:
            return None

        async def keep_fresh(self) -> None:
            return

    api.script = [httpx.ReadError("reset")]
    await make_cloud(http, clock, keys={"prod": Renewed()}).fetch_job(TARGET)
    first, second = [request.headers["authorization"] for request in api.asked]
    assert "Credential=key-1," in first
    assert "Credential=key-2," in second


async def test_a_throttled_read_waits_for_as_long_as_the_cloud_asked(api: Api, clock: Clock) -> None:
    async def handle(request: httpx.Request) -> httpx.Response:
        api.asked.append(request)
        if len(api.asked) == 1:
            return httpx.Response(429, json={"Code": "Throttling"}, headers={"x-acs-retry-after": "20"})
        return httpx.Response(200, json={**OK, "Data": JOB})

    async with httpx.AsyncClient(transport=httpx.MockTransport(handle)) as http:
        await make_cloud(http, clock).fetch_job(TARGET)
    assert len(api.asked) == 2


async def test_a_read_that_finds_no_slot_in_time_says_so(
    http: httpx.AsyncClient, api: Api, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "READ_SECONDS", access.ATTEMPT_SECONDS + 0.01)
    async with Budget(FullSlots()) as budget:
        cloud = make_cloud(http, clock, budget=budget)
        with pytest.raises(CloudUnreachable, match="account one is at its limit of QueryOTAJob"):
            await cloud.fetch_job(TARGET)
    assert api.asked == []


async def test_a_read_that_waits_for_its_word_has_its_slot_and_sends_nothing(
    http: httpx.AsyncClient, api: Api, clock: Clock
) -> None:
    slots = ClaimedSlots()
    async with Budget(slots) as budget:
        word = asyncio.get_running_loop().create_future()
        reading = asyncio.create_task(make_cloud(http, clock, budget=budget).fetch_job(TARGET, after=word))
        await slots.is_claimed.wait()
        assert api.asked == []
        word.set_result(None)
        assert (await reading).job_id == "j1"


async def test_the_slot_of_a_read_that_is_given_up_before_its_word_goes_back_at_once(
    http: httpx.AsyncClient, api: Api, clock: Clock
) -> None:
    slots = ClaimedSlots()
    async with Budget(slots) as budget:
        word = asyncio.get_running_loop().create_future()
        reading = asyncio.create_task(make_cloud(http, clock, budget=budget).fetch_job(TARGET, after=word))
        await slots.is_claimed.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    assert len(slots.freed) == 1
    assert slots.freed[0].at <= time.monotonic()
    assert api.asked == []


@pytest.mark.parametrize("purpose", [Purpose.EXPORT, Purpose.DISCOVERY])
async def test_what_nobody_watches_waits_longer_for_a_slot(
    http: httpx.AsyncClient, api: Api, clock: Clock, monkeypatch: pytest.MonkeyPatch, purpose: Purpose
) -> None:
    monkeypatch.setattr(access, "READ_SECONDS", 0.0)
    cloud = make_cloud(http, clock)
    with pytest.raises(CloudUnreachable):
        await cloud.fetch_job(TARGET, purpose=Purpose.FOLLOW)
    assert (await cloud.fetch_job(TARGET, purpose=purpose)).job_id == "j1"


async def test_every_purpose_has_its_class_in_the_budget(http: httpx.AsyncClient, api: Api, clock: Clock) -> None:
    slots = OpenSlots()
    async with Budget(slots) as budget:
        cloud = make_cloud(http, clock, budget=budget)
        for purpose in Purpose:
            await cloud.fetch_job(TARGET, purpose=purpose)
    background = [freed.slot.number == 0 for freed in slots.freed]
    assert background == [False, False, True, True, True]


@pytest.mark.parametrize(
    ("instance", "code"),
    [
        ("nowhere", "otabrake.UnknownInstance"),
        ("keyless", "otabrake.NoCredentials"),
        ("lost", "otabrake.BadEndpoint"),
        ("ended", "otabrake.KeyEnded"),
    ],
)
async def test_what_cannot_be_called_is_refused_with_a_sentence(
    http: httpx.AsyncClient, api: Api, clock: Clock, instance: str, code: str
) -> None:
    class Ended:
        def current(self) -> Credentials:
            raise CloudRefused("otabrake.KeyEnded", "it ended at 03:12 UTC")

        async def first(self, timeout_seconds: float = 1) -> str | None:
            return None

        async def keep_fresh(self) -> None:
            return

    keys: dict[str, KeySource] = {**make_keys(), "old": Ended()}
    target = Target("old" if instance == "ended" else instance, "j1")
    cloud = make_cloud(http, clock, keys=keys)
    with pytest.raises(CloudRefused) as caught:
        await cloud.fetch_job(target)
    assert caught.value.code == code
    assert cloud.explain(caught.value, target).text
    assert api.asked == []

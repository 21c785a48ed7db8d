"""The typed calls: what goes out, what comes in (also where documents and answers disagree), and where to."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import httpx
import pytest

from bot.alibaba.changes import Change
from bot.alibaba.client import AlibabaClient
from bot.alibaba.credentials import Credentials
from bot.alibaba.iot import Iot, Stamp, endpoint_of
from bot.errors import CloudLost, ConfigurationError
from bot.model import REGIONS, Instance

STRATEGY = Change("CancelOTAStrategyByJob", {"JobId": "j1"})
DATE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Api:
    """Answers every call with `answer`, and keeps what was asked."""

    def __init__(self) -> None:
        self.answer: object = {"RequestId": "AB-1", "Success": True}
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        content = self.answer if isinstance(self.answer, str) else json.dumps(self.answer)
        return httpx.Response(200, content=content)

    def says(self, **fields: object) -> None:
        self.answer = {"RequestId": "AB-1", "Success": True, **fields}

    @property
    def params(self) -> dict[str, str]:
        return dict(self.asked[-1].url.params)


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
async def http(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.MockTransport(api)) as http:
        yield http


@pytest.fixture
def iot(http: httpx.AsyncClient) -> Iot:
    return make_iot(http, instance_id="iot-060a0001")


def make_iot(http: httpx.AsyncClient, *, instance_id: str | None) -> Iot:
    client = AlibabaClient(
        http, endpoint="https://iot.cn-shanghai.aliyuncs.com", credentials=Credentials("id", "s"), region="cn-shanghai"
    )
    return Iot(client, instance_id=instance_id, new_stamp=lambda: Stamp("n1", DATE))


async def test_a_change_goes_out_as_it_is_and_gives_a_receipt(iot: Iot, api: Api) -> None:
    receipt = await iot.make(Change("CancelOTATaskByJob", {"JobId": "j1", "CancelQueuedTask": "true"}))
    assert receipt.request_id == "AB-1"
    assert api.asked[-1].headers["x-acs-action"] == "CancelOTATaskByJob"
    assert api.params == {"IotInstanceId": "iot-060a0001", "JobId": "j1", "CancelQueuedTask": "true"}


async def test_a_change_can_be_made_with_a_nonce_and_a_date_that_were_written_down(iot: Iot, api: Api) -> None:
    stamp = Stamp("n7", datetime(2026, 5, 6, tzinfo=UTC))
    await iot.make(STRATEGY, stamp=stamp)
    assert api.asked[-1].headers["x-acs-signature-nonce"] == "n7"
    assert api.asked[-1].headers["x-acs-date"] == "2026-05-06T00:00:00Z"


async def test_no_instance_id_is_sent_where_none_is_known(http: httpx.AsyncClient, api: Api) -> None:
    await make_iot(http, instance_id=None).make(STRATEGY)
    assert api.params == {"JobId": "j1"}


JOB = {
    "JobId": "j1",
    "JobStatus": "COMPLETE",
    "JobType": "VERFIY_FIRMWARE",
    "SelectionType": "STATIC",
    "TargetSelection": "GRAY",
    "FirmwareId": "f1",
    "ProductKey": "a1",
    "Name": "gateway",
    "DestVersion": "4.2.1",
    "SrcVersions": {"SrcVersion": ["4.1.0", "4.2.0"]},
    "JobDesc": "two\nlines",
    "UtcScheduleTime": "2026-01-01T00:00:00.000Z",
    "Unheard": {"Of": 1},
}


async def test_a_job_is_read_with_the_misspellings_of_the_documents_mended(iot: Iot, api: Api) -> None:
    api.says(Data=JOB)
    job = await iot.query_ota_job(job_id="j1")
    assert (job.status, job.job_type, job.src_versions) == ("COMPLETED", "VERIFY_FIRMWARE", ("4.1.0", "4.2.0"))
    assert (job.name, job.dest_version, job.description) == ("gateway", "4.2.1", "two lines")
    assert (job.is_scheduled, job.scheduled_at) == (True, datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("versions", [None, "", {}, {"SrcVersion": []}, {"SrcVersion": ""}, [], {"SrcVersion": None}])
async def test_a_job_without_source_versions_has_none(iot: Iot, api: Api, versions: object) -> None:
    api.says(Data={**JOB, "SrcVersions": versions})
    assert (await iot.query_ota_job(job_id="j1")).src_versions == ()


@pytest.mark.parametrize("fields", [{}, {"Data": None}, {"Data": {}}, {"Data": []}, {"Data": ""}])
async def test_an_answer_without_the_job_is_a_lost_one(iot: Iot, api: Api, fields: dict[str, object]) -> None:
    api.says(**fields)
    with pytest.raises(CloudLost) as caught:
        await iot.query_ota_job(job_id="j1")
    assert caught.value.request_id == "AB-1"


async def test_tasks_are_listed_by_state_and_counted(iot: Iot, api: Api) -> None:
    row = {"TaskId": "t1", "DeviceName": "d1", "TaskStatus": "QUEUED", "Progress": "0.00"}
    api.says(Total="12345", CurrentPage=1, PageSize=1, Data={"SimpleOTATaskInfo": [row]})
    page = await iot.list_ota_task_by_job(job_id="j1", status="QUEUED", page_size=1)
    assert page.total == 12345
    assert [(task.task_id, task.device_name, task.status) for task in page.rows] == [("t1", "d1", "QUEUED")]
    assert api.params["TaskStatus"] == "QUEUED"
    assert (api.params["PageSize"], api.params["CurrentPage"]) == ("1", "1")


@pytest.mark.parametrize("rows", [None, {}, [], "", {"SimpleOTATaskInfo": []}, {"SimpleOTATaskInfo": None}])
async def test_an_empty_list_is_read_in_whatever_shape_it_comes(iot: Iot, api: Api, rows: object) -> None:
    api.says(Total=0, Data=rows)
    page = await iot.list_ota_task_by_job(job_id="j1")
    assert (page.rows, page.total) == ((), 0)


@pytest.mark.parametrize("total", [None, "", "many", -1, "9" * 30])
async def test_a_total_that_is_no_number_is_not_known(iot: Iot, api: Api, total: object) -> None:
    api.says(Total=total)
    assert (await iot.list_ota_task_by_job(job_id="j1")).total is None


@pytest.mark.parametrize("devices", [0, 1, 2])
async def test_a_list_in_xml_reads_like_one_in_json(iot: Iot, api: Api, devices: int) -> None:
    rows = "".join(
        f"<SimpleOTATaskInfo><DeviceName>d{number}</DeviceName></SimpleOTATaskInfo>" for number in range(devices)
    )
    api.answer = f"<R><Success>true</Success><Total>{devices}</Total><Data>{rows}</Data></R>"
    page = await iot.list_ota_task_by_job(job_id="j1")
    assert page.total == devices
    assert [task.device_name for task in page.rows] == [f"d{number}" for number in range(devices)]


async def test_tasks_of_devices_are_asked_for_by_name(iot: Iot, api: Api) -> None:
    await iot.list_ota_task_by_job(job_id="j1", device_names=("d1", "d 2"))
    assert (api.params["DeviceNames.1"], api.params["DeviceNames.2"]) == ("d1", "d 2")


async def test_the_open_tasks_of_a_device_are_listed_over_all_batches(iot: Iot, api: Api) -> None:
    rows = [{"TaskId": f"t{job}", "JobId": job, "DeviceName": "d1", "TaskStatus": "NOTIFIED"} for job in ("j1", "j2")]
    api.says(Data={"SimpleOTATaskInfo": rows})
    tasks = await iot.list_ota_unfinished_task_by_device(product_key="a1", device_name="d1")
    assert [(task.task_id, task.job_id) for task in tasks] == [("tj1", "j1"), ("tj2", "j2")]
    assert api.params == {"IotInstanceId": "iot-060a0001", "ProductKey": "a1", "DeviceName": "d1"}


async def test_one_package_is_read_without_its_download_link(iot: Iot, api: Api) -> None:
    api.says(FirmwareInfo={"FirmwareId": "f1", "FirmwareUrl": "https://oss/x?Signature=abc", "MultiFiles": [{}]})
    firmware = await iot.query_ota_firmware(firmware_id="f1")
    assert firmware.firmware_id == "f1"
    assert "Signature" not in repr(firmware)


async def test_jobs_of_a_package_are_listed(iot: Iot, api: Api) -> None:
    api.says(Total=1, Data={"SimpleOTAJobInfo": [JOB, "not a row"]})
    page = await iot.list_ota_job_by_firmware(firmware_id="f1", page_size=200)
    assert [job.job_id for job in page.rows] == ["j1"]
    assert api.params["FirmwareId"] == "f1"
    assert api.params["PageSize"] == "200"


async def test_packages_are_listed_without_their_download_links(iot: Iot, api: Api) -> None:
    row = {"FirmwareId": "f1", "FirmwareName": "gateway", "FirmwareUrl": "https://oss/x?Signature=abc"}
    api.says(Total=1, FirmwareInfo={"SimpleFirmwareInfo": [row]})
    page = await iot.list_ota_firmware(product_key="a1", dest_version="4.2.1")
    assert [(each.firmware_id, each.name) for each in page.rows] == [("f1", "gateway")]
    assert "Signature" not in repr(page)
    assert (api.params["ProductKey"], api.params["DestVersion"]) == ("a1", "4.2.1")


async def test_all_packages_are_listed_without_a_filter(iot: Iot, api: Api) -> None:
    await iot.list_ota_firmware()
    assert set(api.params) == {"IotInstanceId", "PageSize", "CurrentPage"}


@pytest.mark.parametrize("region", REGIONS)
def test_a_region_has_its_host(region: str) -> None:
    assert endpoint_of(Instance("a", region)) == f"https://iot.{region}.aliyuncs.com"


def test_an_unknown_region_is_named_with_those_that_exist() -> None:
    with pytest.raises(ConfigurationError, match=r"'cn-hangzhou'.*cn-shanghai"):
        endpoint_of(Instance("a", "cn-hangzhou"))


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("https://si-1.example.com:8686", "https://si-1.example.com:8686"),
        ("https://proxy.example.com/", "https://proxy.example.com"),
        ("iot.example.com", "https://iot.example.com"),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("http://[::1]:9000", "http://[::1]:9000"),
        ("http://localhost", "http://localhost"),
    ],
)
def test_an_instance_may_name_its_endpoint(endpoint: str, url: str) -> None:
    assert endpoint_of(Instance("a", "nowhere", endpoint=endpoint)) == url


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://iot.example.com",
        "ftp://127.0.0.1",
        "https://",
        "https://a/b",
        "https://user:pw@a",
        "https://a?b",
        "https://a:99999",
        "https://[::1",
        "",
    ],
)
def test_an_endpoint_that_is_not_safe_or_not_bare_is_refused(endpoint: str) -> None:
    with pytest.raises(ConfigurationError, match="https://host"):
        endpoint_of(Instance("a", "cn-shanghai", endpoint=endpoint))

"""How answers are read: settings letter for letter, times, and the official SDK's own models as samples."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from alibabacloud_iot20180120 import models

from bot.alibaba.answers import folded, parse_body
from bot.alibaba.records import OtaJob, OtaSettings, read_firmware, read_job, read_page, read_task
from bot.sandbox.iot_rendering import _xml


def job(**fields: object) -> OtaJob:
    return read_job(folded(fields))


def settings(**fields: object) -> OtaSettings | None:
    return job(**fields).settings


def test_settings_are_kept_letter_for_letter() -> None:
    value = " spaces  and\ttabs " + "x" * 1000
    read = settings(
        MaximumPerMinute="1000",
        TimeoutInMinutes=30,
        SrcVersions={"SrcVersion": ["4.1.0 ", "4.2.0"]},
        Tags={"OtaTagDTO": [{"Key": "why", "Value": value}, {"Key": "empty", "Value": ""}]},
    )
    assert read == OtaSettings(1000, 30, ("4.1.0 ", "4.2.0"), (("why", value), ("empty", "")))


@pytest.mark.parametrize("tags", [None, "", [], {}, {"OtaTagDTO": []}, {"OtaTagDTO": None}])
@pytest.mark.parametrize("versions", [None, "", [], {}, {"SrcVersion": []}, {"SrcVersion": [""]}])
def test_settings_that_are_not_there_are_none(tags: object, versions: object) -> None:
    assert settings(Tags=tags, SrcVersions=versions) == OtaSettings(None, None, (), ())


def test_a_time_out_of_nothing_is_none() -> None:
    assert settings(TimeoutInMinutes=0) == OtaSettings(None, None, (), ())


@pytest.mark.parametrize(
    "fields",
    [
        {"Tags": {"Tag": [{"Key": "a", "Value": "b"}]}},
        {"Tags": {"OtaTagDTO": ["a=b"]}},
        {"Tags": {"OtaTagDTO": [{"Key": "a"}]}},
        {"Tags": {"OtaTagDTO": [{"Key": "", "Value": "b"}]}},
        {"Tags": {"OtaTagDTO": [{"Key": "a", "Value": 7}]}},
        {"SrcVersions": {"Version": ["4.1.0"]}},
        {"SrcVersions": {"SrcVersion": [{"Version": "4.1.0"}]}},
        {"TimeoutInMinutes": "soon"},
        {"TimeoutInMinutes": -1},
    ],
)
def test_settings_in_a_shape_that_nobody_knows_are_not_known(fields: dict[str, object]) -> None:
    """Sent back as they were understood, they would be lost."""
    assert settings(**fields) is None


def test_a_rate_that_cannot_be_read_is_not_known_and_no_hindrance() -> None:
    assert settings(MaximumPerMinute="fast") == OtaSettings(None, None, (), ())


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-03-01T03:12:00.000Z", datetime(2026, 3, 1, 3, 12, tzinfo=UTC)),
        ("2026-03-01T03:12Z", datetime(2026, 3, 1, 3, 12, tzinfo=UTC)),
        ("2026-03-01T11:12:00+08:00", datetime(2026, 3, 1, 3, 12, tzinfo=UTC)),
        ("2026-03-01T03:12:00", datetime(2026, 3, 1, 3, 12, tzinfo=UTC)),
        ("0001-01-01T00:00:00+23:59", None),
        ("yesterday", None),
        ("1772334720000", None),
        (1772334720000, None),
        ("", None),
        (None, None),
        ({}, None),
    ],
)
def test_a_time_is_read_as_utc_or_not_at_all(text: object, time: datetime | None) -> None:
    assert job(UtcCreate=text).created_at == time


def test_a_batch_is_scheduled_even_if_its_hour_cannot_be_read() -> None:
    read = job(UtcScheduleTime="tomorrow")
    assert (read.is_scheduled, read.scheduled_at) == (True, None)


def test_what_is_shown_is_cleaned() -> None:
    assert job(Name=" gateway\u202e\n4.2.1 ").name == "gateway 4.2.1"


def test_a_single_row_of_xml_is_a_list_of_one() -> None:
    tag = {"Key": "team", "Value": "gw"}
    read = settings(Tags={"OtaTagDTO": tag}, SrcVersions={"SrcVersion": "4.1.0"})
    assert read == OtaSettings(None, None, ("4.1.0",), (("team", "gw"),))


# The official SDK's models, filled and written out, as samples of the documents.

JOB = models.QueryOTAJobResponseBodyData(
    job_id="j1",
    job_status="IN_PROGRESS",
    job_type="UPGRADE_FIRMWARE",
    selection_type="DYNAMIC",
    target_selection="ALL",
    firmware_id="f1",
    product_key="a1",
    name="gateway",
    dest_version="4.2.1",
    job_desc="to all",
    utc_create="2026-03-01T03:12:00.000Z",
    maximum_per_minute=1000,
    timeout_in_minutes=30,
    src_versions=models.QueryOTAJobResponseBodyDataSrcVersions(src_version=["4.1.0", "4.2.0"]),
    tags=models.QueryOTAJobResponseBodyDataTags(
        ota_tag_dto=[models.QueryOTAJobResponseBodyDataTagsOtaTagDTO(key="team", value="gw")]
    ),
)
TASK = models.ListOTATaskByJobResponseBodyDataSimpleOTATaskInfo(
    task_id="t1",
    job_id="j1",
    firmware_id="f1",
    product_key="a1",
    device_name="d1",
    task_status="FAILED",
    progress="12.50",
    task_desc="report version is not conform",
    src_version="4.1.0",
    dest_version="4.2.1",
    utc_create="2026-03-01T03:12:00.000Z",
    utc_modified="2026-03-01T03:13:00.000Z",
)
OPEN_TASK = models.ListOTAUnfinishedTaskByDeviceResponseBodyDataSimpleOTATaskInfo(
    task_id="t1", job_id="j1", firmware_id="f1", product_key="a1", device_name="d1", task_status="NOTIFIED"
)
FIRMWARE = models.QueryOTAFirmwareResponseBodyFirmwareInfo(
    firmware_id="f1",
    firmware_name="gateway",
    product_key="a1",
    src_version="4.1.0",
    dest_version="4.2.1",
    firmware_url="https://oss/x?Signature=abc",
    utc_create="2026-03-01T03:12:00.000Z",
)
AT = datetime(2026, 3, 1, 3, 12, tzinfo=UTC)


def answers_of(body: Any) -> list[dict[str, object]]:
    """The same body as JSON and as XML, parsed."""
    fields = body.to_map()
    xml = f"<Answer>{_xml(fields)}</Answer>"
    return [folded(parse_body(json.dumps(fields).encode())), folded(parse_body(xml.encode()))]


def test_a_job_of_the_official_sdk_is_read_with_all_its_settings() -> None:
    for answer in answers_of(models.QueryOTAJobResponseBody(request_id="AB-1", success=True, data=JOB)):
        data = answer["data"]
        assert isinstance(data, dict)
        read = read_job(folded(data))
        assert read.settings == OtaSettings(1000, 30, ("4.1.0", "4.2.0"), (("team", "gw"),))
        assert (read.job_id, read.status, read.job_type) == ("j1", "IN_PROGRESS", "UPGRADE_FIRMWARE")
        assert (read.selection_type, read.target_selection) == ("DYNAMIC", "ALL")
        assert (read.firmware_id, read.name, read.product_key) == ("f1", "gateway", "a1")
        assert (read.dest_version, read.src_versions) == ("4.2.1", ("4.1.0", "4.2.0"))
        assert (read.description, read.created_at) == ("to all", AT)


def test_tasks_of_the_official_sdk_are_read_field_by_field() -> None:
    data = models.ListOTATaskByJobResponseBodyData(simple_otatask_info=[TASK])
    for answer in answers_of(models.ListOTATaskByJobResponseBody(success=True, total=7, data=data)):
        page = read_page(answer, "Data", "SimpleOTATaskInfo", read_task)
        (task,) = page.rows
        assert page.total == 7
        assert (task.task_id, task.job_id, task.firmware_id, task.product_key) == ("t1", "j1", "f1", "a1")
        assert (task.device_name, task.status, task.progress) == ("d1", "FAILED", "12.50")
        assert (task.description, task.src_version) == ("report version is not conform", "4.1.0")
        assert (task.dest_version, task.created_at) == ("4.2.1", AT)
        assert task.modified_at == datetime(2026, 3, 1, 3, 13, tzinfo=UTC)


def test_open_tasks_of_the_official_sdk_are_read() -> None:
    data = models.ListOTAUnfinishedTaskByDeviceResponseBodyData(simple_otatask_info=[OPEN_TASK])
    for answer in answers_of(models.ListOTAUnfinishedTaskByDeviceResponseBody(success=True, data=data)):
        (task,) = read_page(answer, "Data", "SimpleOTATaskInfo", read_task).rows
        assert (task.task_id, task.job_id, task.device_name, task.status) == ("t1", "j1", "d1", "NOTIFIED")


def test_a_package_of_the_official_sdk_is_read_without_its_link() -> None:
    for answer in answers_of(models.QueryOTAFirmwareResponseBody(success=True, firmware_info=FIRMWARE)):
        info = answer["firmwareinfo"]
        assert isinstance(info, dict)
        read = read_firmware(folded(info))
        assert (read.firmware_id, read.name, read.product_key) == ("f1", "gateway", "a1")
        assert (read.src_version, read.dest_version, read.created_at) == ("4.1.0", "4.2.1", AT)
        assert "Signature" not in repr(read)


def test_lists_of_the_official_sdk_are_found_in_their_wrappers() -> None:
    jobs = models.ListOTAJobByFirmwareResponseBodyData(
        simple_otajob_info=[models.ListOTAJobByFirmwareResponseBodyDataSimpleOTAJobInfo(job_id="j1")]
    )
    for answer in answers_of(models.ListOTAJobByFirmwareResponseBody(success=True, total=1, data=jobs)):
        assert [each.job_id for each in read_page(answer, "Data", "SimpleOTAJobInfo", read_job).rows] == ["j1"]
    firmware = models.ListOTAFirmwareResponseBodyFirmwareInfo(
        simple_firmware_info=[models.ListOTAFirmwareResponseBodyFirmwareInfoSimpleFirmwareInfo(firmware_id="f1")]
    )
    for answer in answers_of(models.ListOTAFirmwareResponseBody(success=True, total=1, firmware_info=firmware)):
        page = read_page(answer, "FirmwareInfo", "SimpleFirmwareInfo", read_firmware)
        assert [each.firmware_id for each in page.rows] == ["f1"]

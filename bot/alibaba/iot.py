"""Typed calls of the IoT Platform (2018-01-20) for one instance, and where an instance is reached.

Six operations, in the API's own words. No retries, no budget, no words for people.
https://www.alibabacloud.com/help/doc-detail/147909.htm (cancel), 147905 (strategy), 30560 (endpoints)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from bot.alibaba.answers import folded, plain_text
from bot.alibaba.client import AlibabaClient
from bot.alibaba.records import (
    FirmwarePage,
    JobPage,
    OtaJob,
    TaskPage,
    read_firmware,
    read_job,
    read_paging,
    read_rows,
    read_task,
)
from bot.errors import CloudLost, ConfigurationError
from bot.model import REGIONS, Instance, Receipt, Touch

HOSTS = {region: f"iot.{region}.aliyuncs.com" for region in REGIONS}
"""The regions that serve IoT, each with its host."""

_LOOPBACK = frozenset(("127.0.0.1", "localhost", "::1"))
_CALL_SECONDS = 10.0


def endpoint_of(instance: Instance) -> str:
    """Scheme and host of an instance: its own `endpoint`, or its region's.

    Raises `ConfigurationError` for an unknown region, and for an endpoint that is neither https nor this machine.
    """
    if instance.endpoint is None:
        if instance.region not in HOSTS:
            raise ConfigurationError(
                [f"Instance {instance.name}: no region {instance.region!r}. IoT is served in {', '.join(HOSTS)}."]
            )
        return f"https://{HOSTS[instance.region]}"
    written = instance.endpoint if "://" in instance.endpoint else f"https://{instance.endpoint}"
    try:
        url = urlsplit(written)
        is_safe = url.scheme == "https" or (url.scheme == "http" and url.hostname in _LOOPBACK)
        is_bare = url.path in ("", "/") and not (url.query or url.fragment or url.username or url.password)
        is_sound = bool(url.hostname) and is_safe and is_bare and url.port != 0
    except ValueError:
        is_sound = False
    if not is_sound:
        raise ConfigurationError(
            [f"Instance {instance.name}: endpoint must be https://host[:port] (http:// only for this machine)."]
        )
    return f"{url.scheme}://{url.netloc}"


@dataclass(frozen=True, slots=True)
class Stamp:
    """What makes one attempt: the nonce and the date of its signature."""

    nonce: str
    date: datetime


class Iot:
    """One instance. `new_stamp` makes the nonce and date of a call that brings none.

    Every method may raise a `CloudError`.
    """

    def __init__(self, client: AlibabaClient, *, instance_id: str | None, new_stamp: Callable[[], Stamp]) -> None:
        self._client = client
        self._instance_id = instance_id
        self._new_stamp = new_stamp

    async def cancel_ota_task_by_job(
        self,
        *,
        job_id: str,
        scheduled: bool | None = None,
        queued: bool | None = None,
        notified: bool | None = None,
        in_progress: bool | None = None,
        unconfirmed: bool | None = None,
        stamp: Stamp | None = None,
        timeout_seconds: float = _CALL_SECONDS,
    ) -> Receipt:
        """Cancels a batch's tasks. A flag that is None is not sent, False is sent as false; one must be True.

        Raises ValueError if none is. The difference counts for `unconfirmed`: left out, the cloud cancels CONFIRM tasks
        along with queued ones.
        """
        flags = cancel_flags(
            scheduled=scheduled, queued=queued, notified=notified, in_progress=in_progress, unconfirmed=unconfirmed
        )
        if "true" not in flags.values():
            raise ValueError("a cancel call must name at least one kind of task")
        answer = await self._call("CancelOTATaskByJob", {"JobId": job_id, **flags}, stamp, timeout_seconds)
        return Receipt(plain_text(answer.get("requestid")) or None)

    async def cancel_ota_strategy_by_job(
        self, *, job_id: str, stamp: Stamp | None = None, timeout_seconds: float = _CALL_SECONDS
    ) -> Receipt:
        """Stops a dynamic batch from matching new devices. Says nothing about the tasks it already has."""
        answer = await self._call("CancelOTAStrategyByJob", {"JobId": job_id}, stamp, timeout_seconds)
        return Receipt(plain_text(answer.get("requestid")) or None)

    async def query_ota_job(self, *, job_id: str, timeout_seconds: float = _CALL_SECONDS) -> OtaJob:
        answer = await self._call("QueryOTAJob", {"JobId": job_id}, None, timeout_seconds)
        data = answer.get("data")
        if not isinstance(data, dict) or not data:
            raise CloudLost(
                "the answer holds no description of the job", request_id=plain_text(answer.get("requestid")) or None
            )
        return read_job(folded(data))

    async def list_ota_task_by_job(
        self,
        *,
        job_id: str,
        status: str | None = None,
        page_size: int = 100,
        current_page: int = 1,
        timeout_seconds: float = _CALL_SECONDS,
    ) -> TaskPage:
        params = {"JobId": job_id, "PageSize": str(page_size), "CurrentPage": str(current_page)}
        if status is not None:
            params["TaskStatus"] = status
        answer = await self._call("ListOTATaskByJob", params, None, timeout_seconds)
        tasks = read_rows(answer.get("data"), "SimpleOTATaskInfo", read_task)
        return TaskPage(tasks, *read_paging(answer))

    async def list_ota_job_by_firmware(
        self, *, firmware_id: str, page_size: int = 100, current_page: int = 1, timeout_seconds: float = _CALL_SECONDS
    ) -> JobPage:
        params = {"FirmwareId": firmware_id, "PageSize": str(page_size), "CurrentPage": str(current_page)}
        answer = await self._call("ListOTAJobByFirmware", params, None, timeout_seconds)
        return JobPage(read_rows(answer.get("data"), "SimpleOTAJobInfo", read_job), *read_paging(answer))

    async def list_ota_firmware(
        self,
        *,
        product_key: str | None = None,
        dest_version: str | None = None,
        page_size: int = 100,
        current_page: int = 1,
        timeout_seconds: float = _CALL_SECONDS,
    ) -> FirmwarePage:
        params = {"PageSize": str(page_size), "CurrentPage": str(current_page)}
        if product_key is not None:
            params["ProductKey"] = product_key
        if dest_version is not None:
            params["DestVersion"] = dest_version
        answer = await self._call("ListOTAFirmware", params, None, timeout_seconds)
        return FirmwarePage(
            read_rows(answer.get("firmwareinfo"), "SimpleFirmwareInfo", read_firmware), *read_paging(answer)
        )

    async def _call(
        self, action: str, params: Mapping[str, str], stamp: Stamp | None, timeout_seconds: float
    ) -> dict[str, object]:
        stamp = stamp or self._new_stamp()
        own = {"IotInstanceId": self._instance_id} if self._instance_id else {}
        answer = await self._client.call(
            action, {**own, **params}, nonce=stamp.nonce, date=stamp.date, timeout_seconds=timeout_seconds
        )
        return folded(answer)


def touched(touches: frozenset[Touch]) -> dict[str, bool | None]:
    """The switches of `cancel_ota_task_by_job` for a call that names these tasks.

    `unconfirmed` is always said: unsaid, the cloud would cancel CONFIRM tasks together with queued ones.
    """
    return {
        "scheduled": Touch.SCHEDULED in touches or None,
        "queued": Touch.QUEUED in touches or None,
        "notified": Touch.NOTIFIED in touches or None,
        "in_progress": Touch.IN_PROGRESS in touches or None,
        "unconfirmed": Touch.CONFIRM in touches,
    }


def cancel_flags(
    *,
    scheduled: bool | None = None,
    queued: bool | None = None,
    notified: bool | None = None,
    in_progress: bool | None = None,
    unconfirmed: bool | None = None,
) -> dict[str, str]:
    """The flags of CancelOTATaskByJob as parameters."""
    flags = {
        "CancelScheduledTask": scheduled,
        "CancelQueuedTask": queued,
        "CancelNotifiedTask": notified,
        "CancelInProgressTask": in_progress,
        "CancelUnconfirmedTask": unconfirmed,
    }
    return {name: "true" if flag else "false" for name, flag in flags.items() if flag is not None}

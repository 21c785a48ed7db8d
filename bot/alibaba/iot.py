"""Typed calls of the IoT Platform (2018-01-20) for one instance, and where an instance is reached.

Reads in the API's own words, and `make` for every `Change`. No retries, no budget, no words for people.
https://www.alibabacloud.com/help/doc-detail/147900.htm (QueryOTAJob), 149636 (ListOTATaskByJob), 147891
(ListOTAJobByFirmware), 30560 (endpoints)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from bot.alibaba.answers import folded, plain_text
from bot.alibaba.calls import CallWatch
from bot.alibaba.changes import Change
from bot.alibaba.client import AlibabaClient
from bot.alibaba.records import (
    OtaFirmware,
    OtaJob,
    OtaTask,
    Page,
    read_firmware,
    read_job,
    read_page,
    read_task,
)
from bot.errors import CloudLost, ConfigurationError
from bot.model import REGIONS, Instance, Receipt

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
    """One instance. `new_stamp` makes the nonce and date of a call that brings none; `watch` sees the one call for
    which this was made.

    Every method may raise a `CloudError`.
    """

    def __init__(
        self,
        client: AlibabaClient,
        *,
        instance_id: str | None,
        new_stamp: Callable[[], Stamp],
        watch: CallWatch | None = None,
    ) -> None:
        self._client = client
        self._instance_id = instance_id
        self._new_stamp = new_stamp
        self._watch = watch

    async def make(
        self, change: Change, *, stamp: Stamp | None = None, timeout_seconds: float = _CALL_SECONDS
    ) -> Receipt:
        """Makes a change, with the stamp of its intent if it has one. The receipt says nothing about the devices."""
        answer = await self._call(change.action, change.params, stamp, timeout_seconds)
        return Receipt(plain_text(answer.get("requestid")) or None)

    async def query_ota_job(self, *, job_id: str, timeout_seconds: float = _CALL_SECONDS) -> OtaJob:
        answer = await self._call("QueryOTAJob", {"JobId": job_id}, None, timeout_seconds)
        return read_job(_described(answer, "Data"))

    async def query_ota_firmware(self, *, firmware_id: str, timeout_seconds: float = _CALL_SECONDS) -> OtaFirmware:
        answer = await self._call("QueryOTAFirmware", {"FirmwareId": firmware_id}, None, timeout_seconds)
        return read_firmware(_described(answer, "FirmwareInfo"))

    async def list_ota_task_by_job(
        self,
        *,
        job_id: str,
        status: str | None = None,
        device_names: Sequence[str] = (),
        page_size: int = 100,
        current_page: int = 1,
        timeout_seconds: float = _CALL_SECONDS,
    ) -> Page[OtaTask]:
        """At most 100 a page and 100,000 in all; or the tasks of these devices, 50 at most, whatever the page."""
        params = {"JobId": job_id, **_page(page_size, current_page)}
        if status is not None:
            params["TaskStatus"] = status
        params |= {f"DeviceNames.{number}": name for number, name in enumerate(device_names, start=1)}
        answer = await self._call("ListOTATaskByJob", params, None, timeout_seconds)
        return read_page(answer, "Data", "SimpleOTATaskInfo", read_task)

    async def list_ota_unfinished_task_by_device(
        self, *, product_key: str, device_name: str, timeout_seconds: float = _CALL_SECONDS
    ) -> tuple[OtaTask, ...]:
        params = {"ProductKey": product_key, "DeviceName": device_name}
        answer = await self._call("ListOTAUnfinishedTaskByDevice", params, None, timeout_seconds)
        return read_page(answer, "Data", "SimpleOTATaskInfo", read_task).rows

    async def list_ota_job_by_firmware(
        self, *, firmware_id: str, page_size: int = 200, current_page: int = 1, timeout_seconds: float = _CALL_SECONDS
    ) -> Page[OtaJob]:
        """At most 200 a page."""
        params = {"FirmwareId": firmware_id, **_page(page_size, current_page)}
        answer = await self._call("ListOTAJobByFirmware", params, None, timeout_seconds)
        return read_page(answer, "Data", "SimpleOTAJobInfo", read_job)

    async def list_ota_firmware(
        self,
        *,
        product_key: str | None = None,
        dest_version: str | None = None,
        page_size: int = 100,
        current_page: int = 1,
        timeout_seconds: float = _CALL_SECONDS,
    ) -> Page[OtaFirmware]:
        """At most 100 a page."""
        params = _page(page_size, current_page)
        if product_key is not None:
            params["ProductKey"] = product_key
        if dest_version is not None:
            params["DestVersion"] = dest_version
        answer = await self._call("ListOTAFirmware", params, None, timeout_seconds)
        return read_page(answer, "FirmwareInfo", "SimpleFirmwareInfo", read_firmware)

    async def _call(
        self, action: str, params: Mapping[str, str], stamp: Stamp | None, timeout_seconds: float
    ) -> dict[str, object]:
        stamp = stamp or self._new_stamp()
        own = {"IotInstanceId": self._instance_id} if self._instance_id else {}
        if self._watch is not None:
            self._watch.asks(params)
        answer = await self._client.call(
            action, {**own, **params}, nonce=stamp.nonce, date=stamp.date, timeout_seconds=timeout_seconds
        )
        fields = folded(answer)
        if self._watch is not None:
            self._watch.hears(plain_text(fields.get("requestid")) or None)
        return fields


def _page(size: int, number: int) -> dict[str, str]:
    return {"PageSize": str(size), "CurrentPage": str(number)}


def _described(answer: Mapping[str, object], name: str) -> Mapping[str, object]:
    """The one thing that was asked for."""
    described = answer.get(name.casefold())
    if not isinstance(described, dict) or not described:
        raise CloudLost(f"the answer holds no {name}", request_id=plain_text(answer.get("requestid")) or None)
    return folded(described)

"""What the simulated IoT service answers: each operation it offers, with its limit, its parameters and its reads.

Values in, values out. A `FleetRefusal` is the service's own no, a `GatewayRefusal` that of the gateway, which checks
parameters. Creating rollouts is not offered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bot.model import OPEN_STATES
from bot.sandbox.fleet_devices import check_product, device_of, jobs_with, open_tasks
from bot.sandbox.inventory import FleetRefusal
from bot.sandbox.iot_asked import Answer, Asked
from bot.sandbox.iot_changes import (
    cancel_devices_answer,
    cancel_strategy_answer,
    cancel_tasks_answer,
    confirm_answer,
    reupgrade_answer,
    update_job_answer,
)
from bot.sandbox.iot_fields import (
    firmware_details,
    firmware_fields,
    job_details,
    job_fields,
    open_task_fields,
    task_fields,
)
from bot.sandbox.iot_gateway import missing_parameter

_MOST_NAMED_DEVICES = 50
_LONGEST_MODULE = 64


@dataclass(frozen=True, slots=True)
class Offered:
    """An operation of the service: calls per second of an account, parameters that must be given, and its answer.

    `lists` are those of the form `Name.1`. `has_bare_root`: samples of its XML have a root without `Response`.
    """

    calls_per_second: int
    required: tuple[str, ...]
    answer: Callable[[Asked], Answer]
    lists: tuple[str, ...] = ()
    methods: tuple[str, ...] = ("GET", "POST")
    has_bare_root: bool = False


def answer(action: str, asked: Asked) -> Answer:
    """The fields of a success, without the envelope."""
    offered = OFFERED[action]
    for name in offered.required:
        if not asked.text(name):
            raise missing_parameter(name)
    for name in offered.lists:
        if not asked.listed(name):
            raise missing_parameter(name)
    return offered.answer(asked)


def _query_job(asked: Asked) -> Answer:
    rollout = asked.fleet.job(asked.text("JobId"), instance_id=asked.instance_id)
    return {"Data": {**job_fields(asked.fleet, rollout), **job_details(asked.fleet, rollout)}}


def _list_tasks(asked: Asked) -> Answer:
    rollout = asked.fleet.job(asked.text("JobId"), instance_id=asked.instance_id)
    given, now = asked.text("TaskStatus"), asked.fleet.now()
    state = asked.task_state(given) if given else None
    names = frozenset(asked.listed("DeviceNames"))
    if len(names) > _MOST_NAMED_DEVICES:
        raise FleetRefusal("iot.device.TooManyDeviceNamesPerRequest", "The request names too many devices.")
    current, size = asked.page(largest=100)
    if names:
        shown = list(rollout.tasks(now, state=state, names=names))
        current, size, total = 1, max(size, len(shown)), len(shown)
    else:
        counts = rollout.counts(now)
        total, first = counts[state] if state else sum(counts.values()), (current - 1) * size
        shown = rollout.page(now, state=state, first=first, size=size) if first < total else []
    rows = [task_fields(asked.fleet, rollout, task) for task in shown]
    return asked.paged("Data", "SimpleOTATaskInfo", rows, page=(current, size), total=total)


def _list_jobs(asked: Asked) -> Answer:
    firmware = asked.fleet.firmware(asked.text("FirmwareId"), instance_id=asked.instance_id)
    current, size = asked.page(largest=200)
    found = asked.fleet.jobs_of(firmware.firmware_id)
    rows = [job_fields(asked.fleet, rollout) for rollout in found[(current - 1) * size : current * size]]
    return asked.paged("Data", "SimpleOTAJobInfo", rows, page=(current, size), total=len(found))


def _list_jobs_of_device(asked: Asked) -> Answer:
    check_product(asked.fleet, asked.text("ProductKey"))
    firmware = asked.fleet.firmware(asked.text("FirmwareId"), instance_id=asked.instance_id)
    current, size = asked.page(largest=100)
    found = jobs_with(asked.fleet, firmware.firmware_id, asked.text("ProductKey"), asked.text("DeviceName"))
    rows = [job_fields(asked.fleet, rollout) for rollout in found[(current - 1) * size : current * size]]
    return asked.paged("Data", "SimpleOTAJobInfo", rows, page=(current, size), total=len(found))


def _list_open_tasks(asked: Asked) -> Answer:
    one, several = asked.text("TaskStatus"), asked.listed("TaskStatusList")
    if one and several:
        raise FleetRefusal("iot.system.IllegalRequest", "Give TaskStatus or TaskStatusList, not both.")
    given = [asked.task_state(word, among=OPEN_STATES) for word in ((one,) if one else several)]
    module = asked.text("ModuleName")
    if len(module) > _LONGEST_MODULE:
        raise FleetRefusal("iot.ota.InvalidOtaModuleName", "The module's name is not valid.")
    product_key, device_name = _device(asked)
    found = open_tasks(
        asked.fleet,
        product_key,
        device_name,
        states=given or OPEN_STATES,
        module=module,
        instance_id=asked.instance_id,
    )
    rows = [open_task_fields(asked.fleet, rollout, task) for rollout, task in found]
    return asked.rows("Data", "SimpleOTATaskInfo", rows)


def _device(asked: Asked) -> tuple[str, str]:
    """The device that a call names: by its IotId, which wins, or by product and name."""
    if asked.text("IotId"):
        return device_of(asked.fleet, asked.text("IotId"))
    product_key, device_name = asked.text("ProductKey"), asked.text("DeviceName")
    if not product_key or not device_name:
        raise FleetRefusal("iot.ota.EmptyDeviceInfoParams", "Give IotId, or ProductKey and DeviceName.")
    check_product(asked.fleet, product_key)
    return product_key, device_name


def _list_firmware(asked: Asked) -> Answer:
    current, size = asked.page(largest=100)
    product, version = asked.text("ProductKey"), asked.text("DestVersion")
    found = [
        firmware
        for firmware in asked.fleet.firmwares.values()
        if firmware.instance_id == asked.instance_id
        and product in ("", firmware.product_key)
        and version in ("", firmware.dest_version)
    ]
    found.sort(key=lambda firmware: (-firmware.created_at, firmware.firmware_id))
    rows = [firmware_fields(asked.fleet, firmware) for firmware in found[(current - 1) * size : current * size]]
    return asked.paged("FirmwareInfo", "SimpleFirmwareInfo", rows, page=(current, size), total=len(found))


def _query_firmware(asked: Asked) -> Answer:
    firmware = asked.fleet.firmware(asked.text("FirmwareId"), instance_id=asked.instance_id)
    return {"FirmwareInfo": {**firmware_fields(asked.fleet, firmware), **firmware_details(firmware)}}


_PAGE = ("CurrentPage", "PageSize")
_DEVICE = ("FirmwareId", "ProductKey", "DeviceName")
_UPDATE = ("JobId", "MaximumPerMinute", "TargetSelection", "UpgradeType")

OFFERED: Mapping[str, Offered] = {
    "CancelOTATaskByJob": Offered(5, ("JobId",), cancel_tasks_answer),
    "CancelOTAStrategyByJob": Offered(10, ("JobId",), cancel_strategy_answer),
    "CancelOTATaskByDevice": Offered(10, ("ProductKey", "FirmwareId"), cancel_devices_answer, lists=("DeviceName",)),
    "ReupgradeOTATask": Offered(20, ("JobId",), reupgrade_answer, lists=("TaskId",), methods=("POST",)),
    "ConfirmOTATask": Offered(20, (), confirm_answer, lists=("TaskId",), methods=("POST",), has_bare_root=True),
    "UpdateOTAJob": Offered(10, _UPDATE, update_job_answer),
    "QueryOTAJob": Offered(10, ("JobId",), _query_job),
    "ListOTATaskByJob": Offered(10, ("JobId",), _list_tasks),
    "ListOTAJobByFirmware": Offered(10, ("FirmwareId", *_PAGE), _list_jobs),
    "ListOTAJobByDevice": Offered(10, (*_DEVICE, *_PAGE), _list_jobs_of_device),
    "ListOTAUnfinishedTaskByDevice": Offered(10, (), _list_open_tasks, has_bare_root=True),
    "ListOTAFirmware": Offered(10, _PAGE, _list_firmware),
    "QueryOTAFirmware": Offered(20, ("FirmwareId",), _query_firmware),
}

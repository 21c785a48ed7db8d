"""The simulated service's answers to calls that change something: parameters in, the fleet changed, nothing to show.

What the calls do stands in `fleet`, `fleet_devices` and `fleet_settings`; here their parameters are read.
"""

from __future__ import annotations

from bot.sandbox.fleet import CANCEL_FLAGS
from bot.sandbox.fleet_devices import cancel_devices, confirm_tasks, run_tasks_again
from bot.sandbox.fleet_settings import Update, update_job
from bot.sandbox.iot_asked import Answer, Asked


def cancel_tasks_answer(asked: Asked) -> Answer:
    call = asked.call
    asked.fleet.cancel_tasks(
        asked.text("JobId"),
        asked.flags(CANCEL_FLAGS),
        instance_id=call.instance_id,
        request_id=call.request_id,
        params=call.params,
    )
    return {}


def cancel_strategy_answer(asked: Asked) -> Answer:
    call = asked.call
    asked.fleet.cancel_strategy(
        asked.text("JobId"), instance_id=call.instance_id, request_id=call.request_id, params=call.params
    )
    return {}


def cancel_devices_answer(asked: Asked) -> Answer:
    cancel_devices(
        asked.fleet,
        asked.listed("DeviceName"),
        product_key=asked.text("ProductKey"),
        firmware_id=asked.text("FirmwareId"),
        job_id=asked.text("JobId"),
        call=asked.call,
    )
    return {}


def reupgrade_answer(asked: Asked) -> Answer:
    run_tasks_again(asked.fleet, asked.text("JobId"), asked.listed("TaskId"), call=asked.call)
    return {}


def confirm_answer(asked: Asked) -> Answer:
    confirm_tasks(asked.fleet, asked.listed("TaskId"), call=asked.call)
    return {}


def update_job_answer(asked: Asked) -> Answer:
    versions = asked.listed("SrcVersionList")
    update = Update(
        maximum_per_minute=asked.number("MaximumPerMinute", 0),
        target_selection=asked.text("TargetSelection"),
        upgrade_type=asked.text("UpgradeType"),
        timeout_minutes=asked.number("TimeoutInMinutes", 0) if asked.text("TimeoutInMinutes") else None,
        src_versions=versions or None,
        tags=asked.pairs("Tags"),
    )
    update_job(asked.fleet, asked.text("JobId"), update, call=asked.call)
    return {}

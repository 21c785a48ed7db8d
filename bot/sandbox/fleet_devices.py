"""What the calls about single devices and single tasks do to the simulated fleet: cancel, run again, confirm, look up.

Pure, as `fleet`. The codes of refusals are those that the metadata lists for the operation, or else for a sibling.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from bot.model import OPEN_STATES, JobState, TaskState
from bot.sandbox.courses import Task, iot_id
from bot.sandbox.fleet import Fleet
from bot.sandbox.inventory import Call, Effect, FleetRefusal
from bot.sandbox.rollouts import Rollout

MOST_NAMES = 200
MOST_TASKS = 10


def cancel_devices(
    fleet: Fleet, names: Sequence[str], *, product_key: str, firmware_id: str, job_id: str, call: Call
) -> Effect:
    """CancelOTATaskByDevice, in one rollout of the package or (`job_id` empty) in all. Raises `FleetRefusal`.

    It takes no heed of the state of the rollout, so it is what is left where a job is refused as cancelled.
    """
    _check_names(names)
    check_product(fleet, product_key)
    firmware = fleet.firmware(firmware_id, instance_id=call.instance_id)
    if firmware.product_key != product_key:
        raise FleetRefusal("iot.ota.FirmwareAndProductKeyMismatch", "The update package is not of this product.")
    rollouts = fleet.jobs_of(firmware_id)
    if job_id:
        rollouts = (fleet.job(job_id, instance_id=call.instance_id),)
        if rollouts[0].facts.firmware_id != firmware_id:
            raise FleetRefusal("iot.ota.UnmatchedJob", "The job is not one of this update package.")
    now = fleet.now()
    everywhere = _of_product(fleet, product_key, call.instance_id)
    if set(names) - {task.device_name for rollout in everywhere for task in rollout.tasks(now, names=set(names))}:
        raise FleetRefusal("iot.device.NotExistedDevice", "The device does not exist.")
    reached = set(OPEN_STATES)
    if not fleet.habits.cancels_unconfirmed_by_device:
        reached.discard(TaskState.CONFIRM)
    hit = sum(rollout.cancel_tasks(reached, now, names=frozenset(names)) for rollout in rollouts)
    return fleet.remember("CancelOTATaskByDevice", job_id, call, tasks=hit)


def run_tasks_again(fleet: Fleet, job_id: str, task_ids: Sequence[str], *, call: Call) -> Effect:
    """ReupgradeOTATask: failed and cancelled tasks begin anew. All of them or none. Raises `FleetRefusal`."""
    _check_tasks(task_ids)
    rollout, now = fleet.job(job_id, instance_id=call.instance_id), fleet.now()
    if rollout.state(now) is JobState.CANCELED and not fleet.habits.reupgrades_cancelled_job:
        raise FleetRefusal("iot.ota.JobCanceled", "The job has been canceled.")
    counts = rollout.counts(now)
    if not counts[TaskState.FAILED] and not counts[TaskState.CANCELED]:
        raise FleetRefusal("iot.ota.FailedTaskNotFound", "The job has no failed tasks.")
    tasks = [_task_of(fleet, rollout, task_id, now) for task_id in task_ids]
    if any(task.move_at(now)[1] not in (TaskState.FAILED, TaskState.CANCELED) for task in tasks):
        raise FleetRefusal("iot.ota.InvalidTaskExist", "The list holds a task that cannot be run again.")
    needs_confirmation = rollout.course.confirm_seconds is not None
    state = TaskState.CONFIRM if needs_confirmation else fleet.habits.reupgraded_state
    rollout.run_again(tasks, now, state=state)
    return fleet.remember("ReupgradeOTATask", job_id, call, tasks=len(tasks))


def confirm_tasks(fleet: Fleet, task_ids: Sequence[str], *, call: Call) -> Effect:
    """ConfirmOTATask: tasks in CONFIRM are queued. All of them or none. Raises `FleetRefusal`."""
    _check_tasks(task_ids)
    now = fleet.now()
    found = [_task_anywhere(fleet, task_id, call.instance_id) for task_id in task_ids]
    if any(task.move_at(now)[1] is not TaskState.CONFIRM for _, task in found):
        raise FleetRefusal("iot.ota.InvalidTaskExist", "The list holds a task that does not wait for confirmation.")
    if any(rollout.is_planned(now) for rollout, _ in found):
        raise FleetRefusal("iot.system.IllegalRequest", "The job has not begun.")
    for rollout in dict.fromkeys(rollout for rollout, _ in found):
        rollout.run_again([task for of, task in found if of is rollout], now, state=TaskState.QUEUED)
    return fleet.remember("ConfirmOTATask", "", call, tasks=len(found))


def open_tasks(
    fleet: Fleet, product_key: str, device_name: str, *, states: Collection[TaskState], module: str, instance_id: str
) -> list[tuple[Rollout, Task]]:
    """ListOTAUnfinishedTaskByDevice. Raises `FleetRefusal` for a device that no rollout knows."""
    found = list(_tasks_of(fleet, product_key, device_name, instance_id))
    if not found:
        raise FleetRefusal("iot.device.NotExistedDevice", "The device does not exist.")
    return [
        (rollout, task)
        for rollout, task in found
        if task.move_at(fleet.now())[1] in states
        and module in ("", fleet.firmwares[rollout.facts.firmware_id].module_name)
    ]


def jobs_with(fleet: Fleet, firmware_id: str, product_key: str, device_name: str) -> list[Rollout]:
    """ListOTAJobByDevice: the rollouts of a package that have a task for the device, the newest first."""
    now = fleet.now()
    return [
        rollout
        for rollout in fleet.jobs_of(firmware_id)
        if rollout.facts.product_key == product_key and any(rollout.tasks(now, names={device_name}))
    ]


def device_of(fleet: Fleet, given: str) -> tuple[str, str]:
    """The product and the name of the device with this IotId: by looking at all. Raises `FleetRefusal`."""
    now = fleet.now()
    for rollout in fleet.rollouts.values():
        product_key = rollout.facts.product_key
        for name in rollout.names(now):
            if iot_id(product_key, name) == given:
                return product_key, name
    raise FleetRefusal("iot.device.InvalidIoTId", "The IotId is not valid.")


def check_product(fleet: Fleet, product_key: str) -> None:
    """Raises `FleetRefusal` if there is no such product."""
    if product_key not in fleet.products:
        raise FleetRefusal("iot.prod.NotExistedProduct", "The product does not exist.")


def _of_product(fleet: Fleet, product_key: str, instance_id: str | None) -> Iterator[Rollout]:
    for rollout in fleet.rollouts.values():
        if rollout.facts.product_key == product_key and instance_id in (None, rollout.facts.instance_id):
            yield rollout


def _tasks_of(fleet: Fleet, product_key: str, name: str, instance_id: str) -> Iterator[tuple[Rollout, Task]]:
    for rollout in _of_product(fleet, product_key, instance_id):
        yield from ((rollout, task) for task in rollout.tasks(fleet.now(), names={name}))


def _task_of(fleet: Fleet, rollout: Rollout, task_id: str, now: float) -> Task:
    task = rollout.with_id(task_id, now)
    if task is None:
        _task_anywhere(fleet, task_id, None)
        raise FleetRefusal("iot.ota.UnmatchedJob", "The job and the task do not belong together.")
    return task


def _task_anywhere(fleet: Fleet, task_id: str, instance_id: str | None) -> tuple[Rollout, Task]:
    for rollout in fleet.rollouts.values():
        task = rollout.with_id(task_id, fleet.now())
        if task is not None and instance_id in (None, rollout.facts.instance_id):
            return rollout, task
    raise FleetRefusal("iot.ota.InvalidTaskId", "The task does not exist.")


def _check_names(names: Sequence[str]) -> None:
    if len(names) > MOST_NAMES:
        raise FleetRefusal("iot.device.TooManyDeviceNamesPerRequest", "The request names too many devices.")
    if not all(names):
        raise FleetRefusal("iot.device.NullDeviceName", "A name is empty.")
    _refuse_repeated(names)


def _check_tasks(task_ids: Sequence[str]) -> None:
    if len(task_ids) > MOST_TASKS:
        raise FleetRefusal("iot.ota.TooManyOtaTask", "The request names too many tasks.")
    _refuse_repeated(task_ids)


def _refuse_repeated(given: Sequence[str]) -> None:
    if repeated := [value for value, times in Counter(given).items() if times > 1]:
        raise FleetRefusal("iot.system.IllegalRequest", f"Given more than once: {repeated[0]}")

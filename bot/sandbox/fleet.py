"""The simulated fleet: instances, products, packages and rollouts, and what the two cancel calls do to them.

Pure: no HTTP, no files, and the clock is a parameter. `cancelled_states` is the table of the cancel call's flags, with
its tri-state `CancelUnconfirmedTask` (https://www.alibabacloud.com/help/doc-detail/147909.htm). Every accepted cancel
stands in `history`. What that document leaves open is a field of `Habits`. Refusals carry the codes that the sibling
operations document; which ones the real service gives here is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bot.model import OPEN_STATES, JobKind, JobState, TaskState
from bot.sandbox.rollouts import Course, Facts, Rollout

_KINDS = {kind.value: kind for kind in JobKind}
CANCEL_FLAGS = (
    "CancelScheduledTask",
    "CancelQueuedTask",
    "CancelNotifiedTask",
    "CancelInProgressTask",
    "CancelUnconfirmedTask",
)


class FleetRefusal(Exception):
    """The IoT service says no: `code` and `message` as it would write them."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Habits:
    """How this cloud behaves where the documents don't say.

    `accepts_all_false`: flags that are all false count as given. `refuses_finished`, `refuses_cancelled`: a cancel of
    such a rollout is an error. `refuses_strategy_of_static`: so is cancelling the strategy of one that has none.
    `cancel_lag_seconds`: tasks are marked so long after the call was accepted. `state_after_cancel`: the state of a
    rollout whose last open tasks were cancelled. `return_after_seconds`: a dynamic rollout takes cancelled devices back
    so long after, if its strategy stands.
    """

    accepts_all_false: bool = False
    refuses_finished: bool = True
    refuses_cancelled: bool = False
    refuses_strategy_of_static: bool = True
    cancel_lag_seconds: float = 0.0
    state_after_cancel: JobState = JobState.CANCELED
    return_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class SandboxInstance:
    """An IoT instance; an empty id is the public instance, for which no IotInstanceId is sent."""

    instance_id: str
    name: str
    region: str


@dataclass(frozen=True, slots=True)
class Product:
    product_key: str
    name: str


@dataclass(frozen=True, slots=True)
class Firmware:
    """An update package. Sizes are bytes, times seconds since the epoch."""

    firmware_id: str
    instance_id: str
    product_key: str
    name: str
    dest_version: str
    src_version: str = ""
    description: str = ""
    size: int = 0
    sign: str = ""
    status: int = 1
    is_delta: bool = False
    module_name: str = "default"
    created_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Effect:
    """A cancel that was accepted; `tasks` is how many tasks it cancelled."""

    at: float
    action: str
    job_id: str
    request_id: str
    params: Mapping[str, str] = field(default_factory=dict)
    tasks: int = 0


def cancelled_states(flags: Mapping[str, bool], *, is_planned: bool = False) -> frozenset[TaskState]:
    """The task states that the flags name. A flag that was not sent is absent, which is not the same as false."""
    states: set[TaskState] = set()
    if flags.get("CancelQueuedTask"):
        states.add(TaskState.QUEUED)
    if flags.get("CancelUnconfirmedTask", flags.get("CancelQueuedTask", False)):
        states.add(TaskState.CONFIRM)
    if flags.get("CancelNotifiedTask"):
        states.add(TaskState.NOTIFIED)
    if flags.get("CancelInProgressTask"):
        states.add(TaskState.IN_PROGRESS)
    if flags.get("CancelScheduledTask") and is_planned:
        states.add(TaskState.QUEUED)
    return frozenset(states)


class Fleet:
    """Everything the simulator knows. `now` gives seconds since the epoch."""

    def __init__(
        self,
        *,
        instances: Sequence[SandboxInstance],
        products: Sequence[Product],
        firmwares: Sequence[Firmware],
        rollouts: Sequence[Rollout],
        now: Callable[[], float],
        habits: Habits | None = None,
    ) -> None:
        self.instances = {instance.instance_id: instance for instance in instances}
        self.products = {product.product_key: product for product in products}
        self.firmwares = {firmware.firmware_id: firmware for firmware in firmwares}
        self.rollouts = {rollout.facts.job_id: rollout for rollout in rollouts}
        self.now = now
        self.habits = habits or Habits()
        self.history: list[Effect] = []
        named = [(firmware.firmware_id, firmware.instance_id, firmware.product_key) for firmware in firmwares]
        named += [(job.facts.job_id, job.facts.instance_id, job.facts.product_key) for job in rollouts]
        for name, instance_id, product_key in named:
            if instance_id not in self.instances or product_key not in self.products:
                raise ValueError(f"{name}: instance {instance_id!r} or product {product_key!r} is not described")
        for job in rollouts:
            if job.facts.firmware_id not in self.firmwares:
                raise ValueError(f"{job.facts.job_id}: firmware {job.facts.firmware_id!r} is not described")

    @classmethod
    def from_seed(
        cls, seed_data: Mapping[str, Any], *, now: Callable[[], float], seed: int = 1, habits: Habits | None = None
    ) -> Fleet:
        """Builds a fleet as `seed_fleet.yaml` describes one. Raises ValueError with the name of what is wrong."""
        habits = habits or Habits()
        started_at = now()
        return cls(
            instances=[_made(SandboxInstance, row) for row in seed_data.get("instances", ())],
            products=[_made(Product, row) for row in seed_data.get("products", ())],
            firmwares=[_firmware(row, started_at) for row in seed_data.get("firmwares", ())],
            rollouts=[_rollout(row, started_at, seed, habits) for row in seed_data.get("jobs", ())],
            now=now,
            habits=habits,
        )

    def job(self, job_id: str, *, instance_id: str | None = None) -> Rollout:
        """The rollout; raises `FleetRefusal` if there is none of this id (in this instance, if one is named)."""
        rollout = self.rollouts.get(job_id)
        if rollout is None or instance_id not in (None, rollout.facts.instance_id):
            raise FleetRefusal("iot.ota.InvalidJobId", "The job does not exist.")
        return rollout

    def jobs_of(self, firmware_id: str) -> tuple[Rollout, ...]:
        """The rollouts of a package, the newest first."""
        found = [rollout for rollout in self.rollouts.values() if rollout.facts.firmware_id == firmware_id]
        return tuple(sorted(found, key=lambda rollout: (-rollout.facts.created_at, rollout.facts.job_id)))

    def cancel_tasks(
        self,
        job_id: str,
        flags: Mapping[str, bool],
        *,
        instance_id: str | None = None,
        request_id: str = "",
        params: Mapping[str, str] | None = None,
    ) -> Effect:
        """CancelOTATaskByJob. `flags` holds the flags that were sent. Raises `FleetRefusal`."""
        rollout = self.job(job_id, instance_id=instance_id)
        if not flags or not (any(flags.values()) or self.habits.accepts_all_false):
            raise FleetRefusal("iot.system.IllegalRequest", "Specify at least one type of task to cancel.")
        now = self.now()
        self._refuse_ended(rollout, now)
        cancelled = rollout.cancel_tasks(
            cancelled_states(flags, is_planned=rollout.is_planned(now)),
            now,
            lag_seconds=self.habits.cancel_lag_seconds,
            return_after_seconds=self.habits.return_after_seconds,
        )
        return self._remember(Effect(now, "CancelOTATaskByJob", job_id, request_id, params or {}, cancelled))

    def cancel_strategy(
        self,
        job_id: str,
        *,
        instance_id: str | None = None,
        request_id: str = "",
        params: Mapping[str, str] | None = None,
    ) -> Effect:
        """CancelOTAStrategyByJob: a dynamic rollout finds no more devices. Raises `FleetRefusal`."""
        rollout = self.job(job_id, instance_id=instance_id)
        now = self.now()
        self._refuse_ended(rollout, now)
        if rollout.facts.kind is JobKind.DYNAMIC:
            rollout.cancel_strategy(now)
        elif self.habits.refuses_strategy_of_static:
            raise FleetRefusal("iot.ota.noDynamicJob", "The job is not a dynamic job.")
        return self._remember(Effect(now, "CancelOTAStrategyByJob", job_id, request_id, params or {}))

    def _refuse_ended(self, rollout: Rollout, now: float) -> None:
        state = rollout.state(now)
        if state is JobState.COMPLETED and self.habits.refuses_finished:
            raise FleetRefusal("iot.ota.JobHasFinished", "The job has finished.")
        if state is JobState.CANCELED and self.habits.refuses_cancelled:
            raise FleetRefusal("iot.ota.JobHasCanceled", "The job has been canceled.")

    def _remember(self, effect: Effect) -> Effect:
        self.history.append(effect)
        return effect


def _made(kind: type[Any], row: Mapping[str, Any]) -> Any:
    """A value of `kind` from its fields, with a sentence for the one who wrote the row."""
    try:
        return kind(**row)
    except (TypeError, ValueError) as error:
        raise ValueError(f"cannot make a {kind.__name__} of {dict(row)}: {error}") from error


def _firmware(row: Mapping[str, Any], now: float) -> Firmware:
    fields = dict(row)
    created_at = now - float(fields.pop("created_seconds_ago", 86_400))
    firmware: Firmware = _made(Firmware, {**fields, "created_at": created_at})
    return firmware


def _rollout(row: Mapping[str, Any], now: float, seed: int, habits: Habits) -> Rollout:
    """`starts_in_seconds` (negative: ago) and `canceled_seconds_ago` are relative to the moment of seeding."""
    fields = dict(row)
    course: Course = _made(Course, fields.pop("course", {}))
    starts_at = now + float(fields.pop("starts_in_seconds", 0))
    created_at = now - float(fields.pop("created_seconds_ago", max(0.0, now - starts_at)))
    canceled_ago = fields.pop("canceled_seconds_ago", None)
    fields["kind"] = _KINDS.get(str(fields.get("kind", "static")))
    if fields["kind"] is None:
        raise ValueError(f"job {row.get('job_id')}: kind must be one of {', '.join(_KINDS)}")
    fields["src_versions"] = tuple(fields.get("src_versions", ()))
    facts: Facts = _made(Facts, {**fields, "created_at": created_at, "starts_at": starts_at})
    rollout = Rollout(facts, course, seed=seed, state_after_cancel=habits.state_after_cancel)
    if canceled_ago is not None:
        canceled_at = now - float(canceled_ago)
        if facts.kind is JobKind.DYNAMIC:
            rollout.cancel_strategy(canceled_at)
        rollout.cancel_tasks(OPEN_STATES, canceled_at)
    return rollout

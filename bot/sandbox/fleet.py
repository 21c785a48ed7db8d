"""The simulated fleet: instances, products, packages and rollouts, and what the cancel calls do to them.

Pure: no HTTP, no files, and the clock is a parameter. `cancelled_states` is the table of the cancel call's flags, with
its tri-state `CancelUnconfirmedTask` (https://www.alibabacloud.com/help/doc-detail/147909.htm). Every accepted change
stands in `history`. What that document leaves open is a field of `Habits`. Refusals carry the codes that the sibling
operations document; which ones the real service gives here is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bot.model import JobKind, JobState, TaskState
from bot.sandbox.habits import Habits
from bot.sandbox.inventory import Call, Effect, Firmware, FleetRefusal, Product, SandboxInstance
from bot.sandbox.rollouts import Rollout
from bot.sandbox.seeding import seeded

CANCEL_FLAGS = (
    "CancelScheduledTask",
    "CancelQueuedTask",
    "CancelNotifiedTask",
    "CancelInProgressTask",
    "CancelUnconfirmedTask",
)


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
        self._check_names()

    @classmethod
    def from_seed(
        cls, seed_data: Mapping[str, Any], *, now: Callable[[], float], seed: int = 1, habits: Habits | None = None
    ) -> Fleet:
        """Builds a fleet as `seed_fleet.yaml` describes one. Raises ValueError with the name of what is wrong.

        `habits` win over those of the seed.
        """
        given = seeded(seed_data, now=now(), seed=seed, habits=habits)
        return cls(
            instances=given.instances,
            products=given.products,
            firmwares=given.firmwares,
            rollouts=given.rollouts,
            now=now,
            habits=given.habits,
        )

    @property
    def habits(self) -> Habits:
        """How this cloud behaves; another value holds from the next call on."""
        return self._habits

    @habits.setter
    def habits(self, habits: Habits) -> None:
        self._habits = habits
        for rollout in self.rollouts.values():
            rollout.habits = habits

    def job(self, job_id: str, *, instance_id: str | None = None) -> Rollout:
        """The rollout; raises `FleetRefusal` if there is none of this id (in this instance, if one is named)."""
        rollout = self.rollouts.get(job_id)
        if rollout is None:
            raise FleetRefusal(self.habits.unknown_job_code, "The job does not exist.")
        if instance_id not in (None, rollout.facts.instance_id):
            raise FleetRefusal(self.habits.foreign_job_code, "The job does not exist.")
        return rollout

    def firmware(self, firmware_id: str, *, instance_id: str | None = None) -> Firmware:
        """The package; raises `FleetRefusal` if there is none of this id."""
        firmware = self.firmwares.get(firmware_id)
        if firmware is None or instance_id not in (None, firmware.instance_id):
            raise FleetRefusal("iot.ota.FirmwareNotFound", "The update package does not exist.")
        return firmware

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
        self._refuse_flags(flags)
        now = self.now()
        self._refuse_ended(rollout, now)
        is_after_strategy = rollout.facts.kind is JobKind.DYNAMIC and not rollout.has_strategy(now)
        if is_after_strategy and self.habits.refuses_after_strategy:
            raise FleetRefusal(self.habits.cancelled_code, "The job has been canceled.")
        hit = rollout.cancel_tasks(cancelled_states(flags, is_planned=rollout.is_planned(now)), now)
        return self.remember("CancelOTATaskByJob", job_id, Call(instance_id, request_id, params or {}), tasks=hit)

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
        return self.remember("CancelOTAStrategyByJob", job_id, Call(instance_id, request_id, params or {}))

    def remember(self, action: str, job_id: str, call: Call, *, tasks: int = 0) -> Effect:
        """Notes a change that was accepted."""
        effect = Effect(self.now(), action, job_id, call.request_id, call.params, tasks)
        self.history.append(effect)
        return effect

    def _refuse_flags(self, flags: Mapping[str, bool]) -> None:
        habits, message = self.habits, "Specify at least one type of task to cancel."
        if not flags and not habits.accepts_no_flag:
            raise FleetRefusal(habits.no_flag_code, message)
        if flags and not any(flags.values()) and not habits.accepts_all_false:
            raise FleetRefusal(habits.all_false_code, message)

    def _refuse_ended(self, rollout: Rollout, now: float) -> None:
        state = rollout.state(now)
        if state is JobState.COMPLETED and self.habits.refuses_finished:
            raise FleetRefusal(self.habits.finished_code, "The job has finished.")
        if state is JobState.CANCELED and self.habits.refuses_cancelled:
            raise FleetRefusal(self.habits.cancelled_code, "The job has been canceled.")

    def _check_names(self) -> None:
        named = [(each.firmware_id, each.instance_id, each.product_key) for each in self.firmwares.values()]
        facts = [rollout.facts for rollout in self.rollouts.values()]
        named += [(each.job_id, each.instance_id, each.product_key) for each in facts]
        for name, instance_id, product_key in named:
            if instance_id not in self.instances or product_key not in self.products:
                raise ValueError(f"{name}: instance {instance_id!r} or product {product_key!r} is not described")
        for each in facts:
            if each.firmware_id not in self.firmwares:
                raise ValueError(f"{each.job_id}: firmware {each.firmware_id!r} is not described")

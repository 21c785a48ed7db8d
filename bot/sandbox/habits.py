"""How the simulated cloud behaves where the documents don't say: a switch for every open question, both ways testable.

Which question of the fact sheet each habit answers stands in `questions`. Defaults are what clients get wrong, or what
most sources hint at. It carries nothing out.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from bot.model import JobState, TaskState


class TaskOrder(StrEnum):
    """`CHANGED` (the latest change first) is the one in which rows wander between pages while devices move."""

    OLDEST = "oldest"
    NEWEST = "newest"
    NAME = "name"
    CHANGED = "changed"


class AtFinish(StrEnum):
    """What becomes of open tasks at the end of a scheduled rollout's window."""

    GO_ON = "go_on"
    CANCEL = "cancel"
    FAIL = "fail"


class Omitted(StrEnum):
    """What UpdateOTAJob does to the settings of a dynamic rollout that the call leaves out."""

    KEPT = "kept"
    CLEARED = "cleared"
    REFUSED = "refused"


class EmptyRows(StrEnum):
    LIST = "list"
    OBJECT = "object"
    ABSENT = "absent"


class DeniedDetail(StrEnum):
    ABSENT = "absent"
    PASCAL = "pascal"
    CAMEL = "camel"


_REFUSED = "iot.system.IllegalRequest"


@dataclass(frozen=True, slots=True)
class Habits:
    """The switches. A code is what a refusal says; its HTTP status is `error_status`, or that of `code_statuses`."""

    accepts_no_flag: bool = False
    no_flag_code: str = _REFUSED
    accepts_all_false: bool = False
    all_false_code: str = _REFUSED
    unknown_job_code: str = "iot.ota.InvalidJobId"
    foreign_job_code: str = "iot.ota.InvalidJobId"
    unknown_instance_code: str = "iot.Sre.IotInstanceNotFound"
    refuses_finished: bool = True
    finished_code: str = "iot.ota.JobHasFinished"
    refuses_cancelled: bool = False
    cancelled_code: str = "iot.ota.JobHasCanceled"
    refuses_after_strategy: bool = False
    refuses_strategy_of_static: bool = True
    error_status: int = 200
    code_statuses: tuple[tuple[str, int], ...] = ()
    cancel_lag_seconds: float = 0.0
    state_after_cancel: JobState = JobState.CANCELED
    cancels_job_at_once: bool = False
    stops_told_devices: bool = True
    return_after_seconds: float | None = None
    cancels_unconfirmed_by_device: bool = True
    reupgraded_state: TaskState = TaskState.QUEUED
    reupgrades_cancelled_job: bool = True
    at_schedule_finish: AtFinish = AtFinish.GO_ON
    omitted_settings: Omitted = Omitted.KEPT
    nonce_seconds: float = 1800.0
    nonce_is_per_key: bool = True
    longest_nonce: int = 0
    throttled_burns_nonce: bool = True
    refused_burns_nonce: bool = True
    accepts_capitals: bool = True
    accepts_v3: bool = True
    throttling_code: str = "Throttling.User"
    throttling_status: int = 400
    retry_after_ms: int = 0
    least_page_size: int = 1
    default_page_size: int = 10
    task_order: TaskOrder = TaskOrder.OLDEST
    empty_rows: EmptyRows = EmptyRows.LIST
    completed_word: str = "COMPLETED"
    verify_word: str = "VERIFY_FIRMWARE"
    denied_detail: DeniedDetail = DeniedDetail.ABSENT
    bare_xml_roots: bool = False
    success_code: str = ""

    def status_of(self, code: str) -> int:
        """The HTTP status of an error of the service."""
        return dict(self.code_statuses).get(code, self.error_status)

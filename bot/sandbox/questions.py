"""The open questions of the API's fact sheet as a table: which habit of the simulated cloud answers which one how.

The places are sections of the fact sheet. It says what may be set; what follows from it is done where it matters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from bot.model import JobState, TaskState
from bot.sandbox.habits import AtFinish, DeniedDetail, EmptyRows, Habits, Omitted, TaskOrder

_MOST_SECONDS = 604_800
_LONGEST_TEXT = 200
_YES_OR_NO = (False, True)


@dataclass(frozen=True, slots=True)
class Question:
    """An open question and its switch. `values` are all of them, or samples where `is_open`."""

    name: str
    place: str
    question: str
    values: tuple[Any, ...]
    is_open: bool = False

    @property
    def default(self) -> Any:
        return getattr(_DEFAULTS, self.name)


_DEFAULTS = Habits()


def _open(name: str, place: str, question: str, *values: object) -> Question:
    return Question(name, place, question, values, is_open=True)


QUESTIONS: tuple[Question, ...] = (
    Question("accepts_no_flag", "§7.1", "is a cancel without any flag accepted?", _YES_OR_NO),
    _open("no_flag_code", "§7.1", "what refuses no flag?", "iot.system.IllegalRequest", "MissingCancelQueuedTask"),
    Question("accepts_all_false", "§1.1, §7.1", "do flags that are all false count as given?", _YES_OR_NO),
    _open(
        "all_false_code",
        "§7.1",
        "what refuses flags that are all false?",
        "iot.system.IllegalRequest",
        "iot.system.IllegalParameter",
    ),
    _open("unknown_job_code", "§7.1", "what refuses a job that is unknown?", "iot.system.IllegalRequest"),
    _open("foreign_job_code", "§7.1", "what refuses another instance's job?", "iot.system.IllegalRequest"),
    _open("unknown_instance_code", "§7.1", "what refuses a foreign instance?", "iot.system.InstanceNotFound"),
    Question("refuses_finished", "§7.1", "is a cancel of a finished rollout an error?", _YES_OR_NO),
    _open("finished_code", "§7.1", "what refuses a finished rollout?", "iot.system.IllegalRequest"),
    Question("refuses_cancelled", "§7.2", "is a cancel of a cancelled rollout an error?", _YES_OR_NO),
    _open("cancelled_code", "§7.1", "what refuses a cancelled rollout?", "iot.ota.JobCanceled"),
    Question(
        "refuses_after_strategy",
        "§7.2",
        "is CancelOTATaskByJob refused once the strategy was cancelled, so that only by-device is left?",
        _YES_OR_NO,
    ),
    Question("refuses_strategy_of_static", "§2.10", "is a strategy cancel of a static rollout an error?", _YES_OR_NO),
    _open("error_status", "§1.5", "under which status are errors of the service?", 200, 400),
    _open(
        "code_statuses",
        "§1.5, §1.6",
        "which codes of the service have another status?",
        (("iot.ota.InvalidJobId", 400),),
    ),
    _open("cancel_lag_seconds", "§7.2", "how long after the call are tasks marked?", 0.0, 5.0),
    Question(
        "state_after_cancel",
        "§2.3, §7.2",
        "what is a rollout whose last open tasks were cancelled?",
        (JobState.CANCELED, JobState.COMPLETED, JobState.IN_PROGRESS),
    ),
    Question("cancels_job_at_once", "§7.2", "is a rollout CANCELED while its last tasks still move?", _YES_OR_NO),
    Question("stops_told_devices", "§2.2, §7.3", "does a device that was told hear of the cancel?", _YES_OR_NO),
    _open("return_after_seconds", "§7.3", "how soon does a dynamic rollout take cancelled devices back?", None, 30.0),
    Question("cancels_unconfirmed_by_device", "§2.2", "does CancelOTATaskByDevice reach CONFIRM?", _YES_OR_NO),
    Question(
        "reupgraded_state",
        "§2.2",
        "what is a task right after ReupgradeOTATask?",
        (TaskState.QUEUED, TaskState.NOTIFIED, TaskState.CONFIRM),
    ),
    Question("reupgrades_cancelled_job", "§1.6b", "may tasks of a cancelled rollout be run again?", _YES_OR_NO),
    Question("at_schedule_finish", "§2.3", "what becomes of tasks open at ScheduleFinishTime?", tuple(AtFinish)),
    Question("omitted_settings", "§2.12", "what does UpdateOTAJob do to settings left out?", tuple(Omitted)),
    _open("nonce_seconds", "§3.3, §7.5", "how long is a nonce remembered?", 60.0, 1800.0),
    Question("nonce_is_per_key", "§3.3", "does a nonce belong to its access key?", _YES_OR_NO),
    _open("longest_nonce", "§3.3, §7.5", "how long may a nonce be (0: any)?", 0, 32),
    Question("throttled_burns_nonce", "§3.3", "does a throttled call use up its nonce?", _YES_OR_NO),
    Question("refused_burns_nonce", "§3.3", "does a refused call use up its nonce?", _YES_OR_NO),
    Question("accepts_capitals", "§0.4, §7.5", "are `True` and `False` read as flags?", _YES_OR_NO),
    Question("accepts_v3", "§7.9", "is signature V3 understood?", _YES_OR_NO),
    _open("throttling_code", "§1.3, §1.6d", "what says too often?", "Throttling.Api", "iot.common.TooManyRequest"),
    _open("throttling_status", "§1.6d, §7.5", "under which status (codes iot.*: as other errors)?", 400, 429),
    _open("retry_after_ms", "§1.6d, §7.5", "which x-acs-retry-after is sent (0: none)?", 0, 1500),
    _open("least_page_size", "§2.5, §7.6", "what is the smallest PageSize?", 1, 10),
    _open("default_page_size", "§7.6", "what is PageSize if it is left out?", 10, 20),
    Question("task_order", "§2.5, §7.6", "in which order are tasks listed?", tuple(TaskOrder)),
    Question("empty_rows", "§7.6", "how is a list with nothing in it written?", tuple(EmptyRows)),
    Question(
        "completed_word",
        "§0.9, §2.1",
        "how is COMPLETED spelt?",
        ("COMPLETED", "COMPLETE"),
    ),
    Question(
        "verify_word",
        "§0.9, §2.1",
        "how is the type spelt?",
        ("VERIFY_FIRMWARE", "VERFIY_FIRMWARE"),
    ),
    Question("denied_detail", "§7.8", "does a denial carry AccessDeniedDetail?", tuple(DeniedDetail)),
    Question("bare_xml_roots", "§2.8", "does the XML's root lack `Response` where samples lack it?", _YES_OR_NO),
    _open("success_code", "§1.4, §6", "which Code does a success carry?", "", "200", "Success"),
)
"""Every open question with its switch."""


def changed_habits(habits: Habits, given: Mapping[str, Any]) -> Habits:
    """`habits` with the values that `POST /_sandbox/habits` takes. Raises ValueError with a sentence."""
    questions = {question.name: question for question in QUESTIONS}
    unknown = set(given) - set(questions)
    if unknown:
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
    return replace(habits, **{name: _read(questions[name], value) for name, value in given.items()})


def habits_as_json(habits: Habits) -> dict[str, Any]:
    """The values as `changed_habits` takes them."""
    return {**asdict(habits), "code_statuses": dict(habits.code_statuses)}


def _read(question: Question, value: object) -> Any:
    """The value of a habit. Enumerations come as words, numbers as numbers."""
    if not question.is_open:
        fitting = [known for known in question.values if known == value and isinstance(value, type(known) | str)]
        if not fitting:
            raise ValueError(f"{question.name} must be one of {', '.join(str(known) for known in question.values)}")
        return fitting[0]
    if isinstance(question.default, str):
        if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
            raise ValueError(f"{question.name} must be text of at most {_LONGEST_TEXT} characters")
        return value
    if isinstance(question.default, tuple):
        return tuple(_statuses(question.name, value).items())
    if value is None and question.default is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MOST_SECONDS:
        raise ValueError(f"{question.name} must be a number between 0 and {_MOST_SECONDS}")
    if isinstance(question.default, int) and not isinstance(value, int):
        raise ValueError(f"{question.name} must be a whole number")
    if question.name.endswith("_status"):
        _statuses(question.name, {"status": value})
    return value


def _statuses(name: str, value: object) -> dict[str, int]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} must map codes to statuses")
    for code, status in value.items():
        is_status = isinstance(status, int) and not isinstance(status, bool) and 200 <= status <= 599
        if not isinstance(code, str) or not is_status:
            raise ValueError(f"{name} must be a status between 200 and 599")
    return {str(code): int(status) for code, status in value.items()}

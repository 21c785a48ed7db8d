"""Every open question of the fact sheet is a habit, and every value of one makes another answer or state."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import fields, replace
from itertools import combinations
from typing import Any

import pytest
from defusedxml import ElementTree

from bot.model import JobState, TaskState
from bot.sandbox.fleet import Fleet
from bot.sandbox.habits import AtFinish, Habits, Omitted, TaskOrder
from bot.sandbox.iot_faults import Fault, FaultKind
from bot.sandbox.questions import QUESTIONS, Question, habits_as_json
from tests.test_sandbox_iot import DYNAMIC, EPOCH, FINISHED, FIRMWARE, SEED, STATIC, STOP, VERIFICATION, Sandbox, code

CONFIRM, CANCELED = "C0nf1rmLp9OkMjUh7Yb601", "Canc3l3dTg6Yh9Uj2Ik401"
DYNAMIC_RATE = {"JobId": DYNAMIC, "MaximumPerMinute": "30", "TargetSelection": "ALL", "UpgradeType": "DYNAMIC"}
SHORT_WINDOW = {
    **{"job_id": "W1ndow", "instance_id": "iot-cn-0pp1n8t0001", "product_key": "a1Gateway01", "firmware_id": FIRMWARE},
    **{"kind": "scheduled", "created_seconds_ago": 600, "starts_in_seconds": -300, "finishes_in_seconds": 60},
    **{"device_prefix": "w-", "course": {"devices": 20, "per_minute": 1, "silent": 1.0}},
}
EVERYTHING = {f"Cancel{kind}Task": True for kind in ("Queued", "Notified", "InProgress", "Unconfirmed")}

Observed = Callable[[Sandbox], Awaitable[object]]
Scenario = tuple[dict[str, Any], Observed]


def call(action: str, params: Mapping[str, str], **options: Any) -> Observed:
    """What a call is answered: its status and its code, or that it was accepted."""

    async def observed(sandbox: Sandbox) -> object:
        answer = await sandbox.ask(action, params, **options)
        return answer.status_code, answer.json().get("Code", "accepted")

    return observed


def cancel(job: str, **flags: bool) -> Observed:
    return call("CancelOTATaskByJob", {"JobId": job, **{name: str(value).lower() for name, value in flags.items()}})


async def _repeated_cancel(sandbox: Sandbox) -> object:
    sandbox.fleet.cancel_tasks(CONFIRM, EVERYTHING)
    return await cancel(CONFIRM, CancelQueuedTask=True)(sandbox)


async def _cancel_after_strategy(sandbox: Sandbox) -> object:
    sandbox.fleet.cancel_strategy(DYNAMIC)
    return await cancel(DYNAMIC, CancelQueuedTask=True)(sandbox)


async def _queued_after_a_cancel(sandbox: Sandbox) -> object:
    sandbox.fleet.cancel_tasks(STATIC, {"CancelQueuedTask": True})
    return sandbox.fleet.job(STATIC).counts(EPOCH + 1)["CANCELED"]


async def _state_of_a_cancelled_job(sandbox: Sandbox) -> object:
    sandbox.fleet.cancel_tasks(CONFIRM, {"CancelQueuedTask": True})
    return sandbox.fleet.job(CONFIRM).state(EPOCH + 3600)


async def _state_while_devices_move(sandbox: Sandbox) -> object:
    sandbox.fleet.cancel_tasks(STATIC, {"CancelQueuedTask": True})
    rollout = sandbox.fleet.job(STATIC)
    assert rollout.counts(EPOCH)["IN_PROGRESS"] > 0
    return rollout.state(EPOCH)


async def _told_devices_after_a_cancel(sandbox: Sandbox) -> object:
    sandbox.fleet.cancel_tasks(STATIC, EVERYTHING)
    counts = sandbox.fleet.job(STATIC).counts(EPOCH)
    assert counts["QUEUED"] == 0
    return counts["IN_PROGRESS"] > 5


async def _devices_taken_back(sandbox: Sandbox) -> object:
    sandbox.fleet.cancel_tasks(DYNAMIC, EVERYTHING)
    names = [task.device_name for task in sandbox.fleet.job(DYNAMIC).tasks(EPOCH + 60)]
    return len(names) > len(set(names))


async def _unconfirmed_by_device(sandbox: Sandbox) -> object:
    (task, *_) = sandbox.fleet.job(CONFIRM).tasks(EPOCH, state=TaskState.CONFIRM)
    given = {"ProductKey": "a1Sensor0002", "FirmwareId": "Sn207bHt9CvN4kQe1Ua001", "DeviceName.1": task.device_name}
    await sandbox.ask("CancelOTATaskByDevice", given)
    return sandbox.fleet.history[0].tasks


async def _state_of_a_task_run_again(sandbox: Sandbox) -> object:
    rollout = sandbox.fleet.job(STATIC)
    (task, *_) = rollout.tasks(EPOCH, state=TaskState.FAILED)
    await sandbox.ask("ReupgradeOTATask", {"JobId": STATIC, "TaskId.1": rollout.task_id(task)})
    (again,) = rollout.tasks(EPOCH, names={task.device_name})
    return again.move_at(EPOCH)[1]


async def _run_again_in_a_cancelled_job(sandbox: Sandbox) -> object:
    rollout = sandbox.fleet.job(CANCELED)
    (task, *_) = rollout.tasks(EPOCH, state=TaskState.CANCELED)
    return await call("ReupgradeOTATask", {"JobId": CANCELED, "TaskId.1": rollout.task_id(task)})(sandbox)


async def _after_the_window(sandbox: Sandbox) -> object:
    rollout = sandbox.fleet.job("W1ndow")
    assert rollout.state(EPOCH + 61) is JobState.COMPLETED
    return {state for state, count in rollout.counts(EPOCH + 61).items() if count}


async def _settings_left_out(sandbox: Sandbox) -> object:
    answer = await sandbox.ask("UpdateOTAJob", DYNAMIC_RATE)
    return answer.json().get("Code", sandbox.fleet.job(DYNAMIC).settings.src_versions)


async def _nonce_after_a_while(sandbox: Sandbox) -> object:
    await sandbox.ask(nonce="n")
    sandbox.at += 100
    return code_of(await sandbox.ask(nonce="n"))


async def _nonce_of_another_key(sandbox: Sandbox) -> object:
    sandbox = Sandbox(habits=sandbox.fleet.habits, keys={"one": "s", "two": "s"})
    await sandbox.ask(nonce="n", key="one", secret="s")
    return code_of(await sandbox.ask(nonce="n", key="two", secret="s"))


async def _nonce_of_a_throttled_call(sandbox: Sandbox) -> object:
    for _ in range(5):
        await sandbox.ask("CancelOTATaskByJob", STOP)
    assert code_of(await sandbox.ask("CancelOTATaskByJob", STOP, nonce="n")) == "Throttling.User"
    sandbox.at += 1
    return code_of(await sandbox.ask("CancelOTATaskByJob", STOP, nonce="n"))


async def _nonce_of_a_refused_call(sandbox: Sandbox) -> object:
    for wrong in ({"JobId": "none"}, {"JobId": ""}):
        await sandbox.ask(params=wrong, nonce=f"n{wrong}")
    sandbox.app.state.faults.add(Fault(FaultKind.REFUSE, calls=1))
    await sandbox.ask(nonce="n")
    again = [await sandbox.ask(nonce=nonce) for nonce in ("n{'JobId': 'none'}", "n{'JobId': ''}", "n")]
    return {code_of(answer) for answer in again}


async def _too_often(sandbox: Sandbox) -> object:
    for _ in range(6):
        answer = await sandbox.ask("CancelOTATaskByJob", STOP)
    return answer.status_code, answer.json(), answer.headers.get("x-acs-retry-after")


async def _order_of_names(sandbox: Sandbox) -> object:
    sandbox.fleet.cancel_tasks(DYNAMIC, EVERYTHING)
    sandbox.at += 61
    names: list[str] = []
    for page in ("1", "2", "3"):
        answer = await sandbox.ask("ListOTATaskByJob", {"JobId": DYNAMIC, "PageSize": "100", "CurrentPage": page})
        names += [row["DeviceName"] for row in answer.json()["Data"]["SimpleOTATaskInfo"]]
    return names


async def _page_size(sandbox: Sandbox) -> object:
    return (await sandbox.ask("ListOTATaskByJob", {"JobId": STATIC})).json()["PageSize"]


async def _empty_list(sandbox: Sandbox) -> object:
    answer = await sandbox.ask("ListOTATaskByJob", {"JobId": STATIC, "TaskStatus": "CONFIRM"})
    return answer.json().get("Data", "absent")


def shown(job: str, field: str, instance: str = "iot-cn-0pp1n8t0001") -> Observed:
    async def observed(sandbox: Sandbox) -> object:
        return (await sandbox.ask(params={"JobId": job, "IotInstanceId": instance})).json()["Data"][field]

    return observed


async def _denial(sandbox: Sandbox) -> object:
    sandbox.app.state.faults.add(Fault(FaultKind.REFUSE, code="Forbidden.RAM", status=403))
    answer = await sandbox.ask()
    assert code(answer) == (403, "Forbidden.RAM")
    return answer.json().get("AccessDeniedDetail")


async def _xml_root(sandbox: Sandbox) -> object:
    given = {"ProductKey": "a1Gateway01", "DeviceName": "gw-sh-00400"}
    answer = await sandbox.ask("ListOTAUnfinishedTaskByDevice", given, headers={"accept": "text/xml"})
    assert (await sandbox.ask(headers={"accept": "text/xml"})).text.count("QueryOTAJobResponse") == 2
    return ElementTree.fromstring(answer.text).tag


def code_of(answer: Any) -> str:
    return str(answer.json().get("Code", "accepted"))


SCENARIOS: dict[str, Scenario] = {
    "accepts_no_flag": ({}, cancel(STATIC)),
    "no_flag_code": ({}, cancel(STATIC)),
    "accepts_all_false": ({}, cancel(STATIC, CancelQueuedTask=False)),
    "all_false_code": ({}, cancel(STATIC, CancelQueuedTask=False)),
    "unknown_job_code": ({}, call("QueryOTAJob", {"JobId": "none"})),
    "foreign_job_code": ({}, cancel(VERIFICATION, CancelQueuedTask=True)),
    "unknown_instance_code": ({}, call("QueryOTAJob", {"JobId": STATIC, "IotInstanceId": "iot-other"})),
    "refuses_finished": ({}, cancel(FINISHED, CancelQueuedTask=True)),
    "finished_code": ({}, cancel(FINISHED, CancelQueuedTask=True)),
    "refuses_cancelled": ({}, _repeated_cancel),
    "cancelled_code": ({"refuses_cancelled": True}, _repeated_cancel),
    "refuses_after_strategy": ({}, _cancel_after_strategy),
    "refuses_strategy_of_static": ({}, call("CancelOTAStrategyByJob", {"JobId": STATIC})),
    "error_status": ({}, call("QueryOTAJob", {"JobId": "none"})),
    "code_statuses": ({}, call("QueryOTAJob", {"JobId": "none"})),
    "cancel_lag_seconds": ({}, _queued_after_a_cancel),
    "state_after_cancel": ({}, _state_of_a_cancelled_job),
    "cancels_job_at_once": ({}, _state_while_devices_move),
    "stops_told_devices": ({}, _told_devices_after_a_cancel),
    "return_after_seconds": ({}, _devices_taken_back),
    "cancels_unconfirmed_by_device": ({}, _unconfirmed_by_device),
    "reupgraded_state": ({}, _state_of_a_task_run_again),
    "reupgrades_cancelled_job": ({}, _run_again_in_a_cancelled_job),
    "at_schedule_finish": ({}, _after_the_window),
    "omitted_settings": ({}, _settings_left_out),
    "nonce_seconds": ({}, _nonce_after_a_while),
    "nonce_is_per_key": ({}, _nonce_of_another_key),
    "longest_nonce": ({}, call("QueryOTAJob", {"JobId": STATIC}, nonce="n" * 33)),
    "throttled_burns_nonce": ({}, _nonce_of_a_throttled_call),
    "refused_burns_nonce": ({}, _nonce_of_a_refused_call),
    "accepts_capitals": ({}, call("CancelOTATaskByJob", {"JobId": STATIC, "CancelQueuedTask": "True"})),
    "accepts_v3": ({}, call("QueryOTAJob", {"JobId": STATIC})),
    "throttling_code": ({}, _too_often),
    "throttling_status": ({}, _too_often),
    "retry_after_ms": ({}, _too_often),
    "least_page_size": ({}, call("ListOTATaskByJob", {"JobId": STATIC, "PageSize": "1"})),
    "default_page_size": ({}, _page_size),
    "task_order": ({"return_after_seconds": 60.0}, _order_of_names),
    "empty_rows": ({}, _empty_list),
    "completed_word": ({}, shown(FINISHED, "JobStatus")),
    "verify_word": ({}, shown(VERIFICATION, "JobType", "iot-cn-st4g1ng0001")),
    "denied_detail": ({}, _denial),
    "bare_xml_roots": ({}, _xml_root),
    "success_code": ({}, call("QueryOTAJob", {"JobId": STATIC})),
}


def test_every_habit_is_a_question_and_every_question_has_its_scenario() -> None:
    names = [field.name for field in fields(Habits)]
    assert [question.name for question in QUESTIONS] == names
    assert list(SCENARIOS) == names
    assert all(question.place.startswith("§") and question.question.endswith("?") for question in QUESTIONS)


def settings(question: Question) -> list[Any]:
    return list(dict.fromkeys((question.default, *question.values)))


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.name)
async def test_every_answer_to_a_question_makes_a_difference(question: Question) -> None:
    others, observed = SCENARIOS[question.name]
    seen = []
    for value in settings(question):
        sandbox = Sandbox(
            habits=replace(Habits(), **others, **{question.name: value}),
            jobs=[SHORT_WINDOW],
            new_request_id=lambda: "R",
        )
        seen.append(await observed(sandbox))
    assert len(seen) > 1
    assert [pair for pair in combinations(seen, 2) if pair[0] == pair[1]] == []


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.name)
async def test_every_habit_is_set_and_shown_over_http(question: Question) -> None:
    sandbox = Sandbox()
    for value in settings(question):
        given = json.loads(json.dumps(dict(value) if isinstance(value, tuple) else value))
        answer = await sandbox.client.post("/_sandbox/habits", json={question.name: given})
        assert answer.json()["habits"][question.name] == given
        assert getattr(sandbox.fleet.habits, question.name) == value
        assert type(getattr(sandbox.fleet.habits, question.name)) is type(value)
    assert (await sandbox.client.delete("/_sandbox/habits")).json()["habits"] == habits_as_json(Habits())
    assert sandbox.fleet.habits == Habits()


async def test_the_questions_are_shown_with_their_places_and_values() -> None:
    shown = (await Sandbox().client.get("/_sandbox/habits")).json()["questions"]
    assert [row["name"] for row in shown] == [question.name for question in QUESTIONS]
    (order,) = (row for row in shown if row["name"] == "task_order")
    assert (order["place"], order["default"], order["values"]) == ("§2.5, §7.6", "oldest", [*TaskOrder])


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"[]", b"{", b'{"colour":1}', b'{"accepts_v3":1}', b'{"accepts_v3":"yes"}', b'{"task_order":"random"}'),
        *(b'{"error_status":"200"}', b'{"error_status":99}', b'{"error_status":true}', b'{"nonce_seconds":-1}'),
        *(b'{"nonce_seconds":NaN}', b'{"nonce_seconds":null}', b'{"finished_code":7}', b'{"code_statuses":[]}'),
        *(b'{"code_statuses":{"X":"400"}}', b'{"code_statuses":{"X":7}}', b'{"retry_after_ms":1.5}', b"[" * 100_000),
        b'{"finished_code":"' + b"x" * 201 + b'"}',
    ],
)
async def test_a_wrong_habit_is_refused_with_a_sentence_and_changes_nothing(content: bytes) -> None:
    sandbox = Sandbox()
    answer = await sandbox.client.post("/_sandbox/habits", content=content)
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert sandbox.fleet.habits == Habits()


def test_a_seed_may_set_habits_and_the_constructor_wins() -> None:
    data = {**SEED, "habits": {"error_status": 400, "state_after_cancel": "COMPLETED"}}
    fleet = Fleet.from_seed(data, now=lambda: EPOCH)
    assert fleet.habits == Habits(error_status=400, state_after_cancel=JobState.COMPLETED)
    fleet.cancel_tasks(CONFIRM, EVERYTHING)
    assert fleet.job(CONFIRM).state(EPOCH + 3600) is JobState.COMPLETED
    assert Fleet.from_seed(data, now=lambda: EPOCH, habits=Habits()).habits == Habits()
    with pytest.raises(ValueError, match="colour"):
        Fleet.from_seed({**SEED, "habits": {"colour": "red"}}, now=lambda: EPOCH)


def test_what_was_cancelled_before_the_beginning_knows_no_habit() -> None:
    plain, lagging = (
        Fleet.from_seed(SEED, now=lambda: EPOCH, habits=habits)
        for habits in (Habits(), Habits(cancel_lag_seconds=1e6, stops_told_devices=False))
    )
    assert plain.job(CANCELED).counts(EPOCH) == lagging.job(CANCELED).counts(EPOCH)


async def test_a_habit_holds_from_the_next_call_on() -> None:
    sandbox = Sandbox()
    await sandbox.client.post("/_sandbox/habits", json={"state_after_cancel": "IN_PROGRESS", "cancel_lag_seconds": 5})
    sandbox.fleet.cancel_tasks(CONFIRM, EVERYTHING)
    rollout = sandbox.fleet.job(CONFIRM)
    assert rollout.counts(EPOCH)["CANCELED"] == 0
    assert rollout.state(EPOCH + 3600) is JobState.IN_PROGRESS
    assert rollout.ended_at(EPOCH + 3600) is None


@pytest.mark.parametrize("status", [200, 400])
async def test_throttling_in_the_service_s_words_has_the_service_s_envelope(status: int) -> None:
    habits = Habits(throttling_code="iot.common.TooManyRequest", throttling_status=429, error_status=status)
    answer_status, body, _ = await _too_often(Sandbox(habits=habits))  # type: ignore[misc]
    assert answer_status == status
    assert set(body) == {"RequestId", "Success", "Code", "ErrorMessage"}


async def test_pages_stay_as_they_are_while_devices_move_unless_the_latest_change_comes_first() -> None:
    orders: dict[TaskOrder, list[bool]] = {}
    for order in TaskOrder:
        sandbox = Sandbox(habits=Habits(task_order=order))
        given = {"JobId": STATIC, "PageSize": "50", "CurrentPage": "3"}
        seen = []
        for _ in range(3):
            sandbox.at += 20
            rows = (await sandbox.ask("ListOTATaskByJob", given)).json()["Data"]["SimpleOTATaskInfo"]
            seen.append([row["DeviceName"] for row in rows])
        orders[order] = [page == seen[0] for page in seen[1:]]
    assert orders.pop(TaskOrder.CHANGED) == [False, False]
    assert list(orders.values()) == [[True, True]] * 3


@pytest.mark.parametrize(
    ("omitted", "minutes", "versions"), [(Omitted.KEPT, 30, ("4.1.9",)), (Omitted.CLEARED, None, ())]
)
async def test_settings_left_out_are_kept_or_cleared(
    omitted: Omitted, minutes: int | None, versions: tuple[str, ...]
) -> None:
    sandbox = Sandbox(habits=Habits(omitted_settings=omitted))
    for given in ({"TimeoutInMinutes": "30", "SrcVersionList.1": "4.1.9"}, {}):
        assert (await sandbox.ask("UpdateOTAJob", {**DYNAMIC_RATE, **given})).json()["Success"] is True
    settings = sandbox.fleet.job(DYNAMIC).settings
    assert (settings.timeout_minutes, settings.src_versions) == (minutes, versions)


@pytest.mark.parametrize(("end", "expected"), [(AtFinish.GO_ON, 20), (AtFinish.CANCEL, 0), (AtFinish.FAIL, 0)])
def test_a_window_that_ended_is_not_read_into_the_time_before(end: AtFinish, expected: int) -> None:
    data = {**SEED, "jobs": [SHORT_WINDOW]}
    fleet = Fleet.from_seed(data, now=lambda: EPOCH, habits=Habits(at_schedule_finish=end))
    rollout = fleet.job("W1ndow")
    before = rollout.counts(EPOCH + 59)
    open_after = sum(rollout.counts(EPOCH + 3600)[state] for state in ("QUEUED", "NOTIFIED"))
    assert open_after == expected
    assert rollout.counts(EPOCH + 59) == before
    assert before["CANCELED"] == before["FAILED"] == 0

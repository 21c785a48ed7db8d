"""Both official SDKs against the IoT simulator over a real socket, for every operation that it offers."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn

from bot.model import TaskState
from bot.sandbox.fleet import Fleet
from bot.sandbox.iot import create_iot_app, load_seed
from bot.sandbox.iot_answers import OFFERED

pytestmark = [
    # What the SDKs and their own dependencies do is not ours to mend; newer Pythons warn about it.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::SyntaxWarning"),
]

SEED = load_seed()
INSTANCE = "iot-cn-0pp1n8t0001"
STATIC = "7glPHmaDYLAYMD1HHutT02"
DYNAMIC = "dYn4m1cRq2WsXe8RtGv501"
FINISHED = "F1n1shedZa3Sx5Dc7Fv201"
FIRMWARE = "Gw421aFq8LkT2nVb6Wc001"
CONFIRM = "C0nf1rmLp9OkMjUh7Yb601"


def task_id(job: str, state: TaskState) -> str:
    """A task that is in this state when the fleet begins, and some seconds later."""
    rollout = Fleet.from_seed(SEED, now=lambda: 0.0).job(job)
    return rollout.task_id(list(rollout.tasks(0.0, state=state))[-1])


PARAMS: dict[str, dict[str, Any]] = {
    "CancelOTATaskByJob": {
        "JobId": STATIC,
        "CancelQueuedTask": True,
        "CancelNotifiedTask": True,
        "CancelInProgressTask": False,
        "CancelUnconfirmedTask": False,
    },
    "CancelOTAStrategyByJob": {"JobId": DYNAMIC},
    "QueryOTAJob": {"JobId": STATIC},
    "ListOTATaskByJob": {"JobId": STATIC, "TaskStatus": "SUCCEEDED", "PageSize": 20, "CurrentPage": 1},
    "ListOTAJobByFirmware": {"FirmwareId": FIRMWARE, "PageSize": 10, "CurrentPage": 1},
    "ListOTAFirmware": {"PageSize": 10, "CurrentPage": 1, "ProductKey": "a1Gateway01"},
    "CancelOTATaskByDevice": {
        "ProductKey": "a1Gateway01",
        "FirmwareId": FIRMWARE,
        "JobId": STATIC,
        "DeviceName": ["gw-sh-00399", "gw-sh-00400"],
    },
    "ReupgradeOTATask": {"JobId": STATIC, "TaskId": [task_id(STATIC, TaskState.FAILED)]},
    "ConfirmOTATask": {"TaskId": [task_id(CONFIRM, TaskState.CONFIRM)]},
    "UpdateOTAJob": {
        "JobId": DYNAMIC,
        "MaximumPerMinute": 10,
        "TargetSelection": "ALL",
        "UpgradeType": "DYNAMIC",
        "TimeoutInMinutes": 30,
        "SrcVersionList": ["4.1.9", "4.1.8"],
        "Tags": [{"Key": "ring", "Value": "3"}, {"Key": "owner", "Value": "firmware"}],
    },
    "ListOTAJobByDevice": {
        "FirmwareId": FIRMWARE,
        "ProductKey": "a1Gateway01",
        "DeviceName": "gw-sh-00400",
        "CurrentPage": 1,
        "PageSize": 10,
    },
    "ListOTAUnfinishedTaskByDevice": {
        "ProductKey": "a1Gateway01",
        "DeviceName": "gw-sh-00400",
        "TaskStatusList": ["QUEUED", "CONFIRM"],
    },
    "QueryOTAFirmware": {"FirmwareId": FIRMWARE},
}


@dataclass
class Running:
    """A simulator that listens on this machine."""

    port: int
    fleet: Fleet
    app: Any


Start = Callable[..., Running]


class Door:
    """A server that stays up while the app behind it is changed: starting one for each test takes longer."""

    def __init__(self) -> None:
        self.app: Any = None
        self.port = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    door = Door()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        door.port = listener.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(door, log_level="critical", lifespan="off", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield door
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def start(door: Door) -> Start:
    def started(**options: Any) -> Running:
        fleet = Fleet.from_seed(SEED, now=time.time)
        door.app = create_iot_app(fleet, now=time.time, **options)
        return Running(door.port, fleet, door.app)

    return started


def new_client(running: Running, **config: Any) -> Any:
    from alibabacloud_iot20180120.client import Client
    from alibabacloud_tea_openapi.utils_models import Config

    fields = {"access_key_id": "testid", "access_key_secret": "testsecret", **config}
    return Client(Config(endpoint=f"127.0.0.1:{running.port}", protocol="http", region_id="cn-shanghai", **fields))


def new_request(action: str, params: dict[str, Any]) -> Any:
    from alibabacloud_iot20180120 import models

    request = getattr(models, f"{action}Request")()
    return request.from_map({"IotInstanceId": INSTANCE, **params})


METHODS = {
    "CancelOTATaskByJob": "cancel_otatask_by_job",
    "CancelOTAStrategyByJob": "cancel_otastrategy_by_job",
    "QueryOTAJob": "query_otajob",
    "ListOTATaskByJob": "list_otatask_by_job",
    "ListOTAJobByFirmware": "list_otajob_by_firmware",
    "ListOTAFirmware": "list_otafirmware",
    "CancelOTATaskByDevice": "cancel_otatask_by_device",
    "ReupgradeOTATask": "reupgrade_otatask",
    "ConfirmOTATask": "confirm_otatask",
    "UpdateOTAJob": "update_otajob",
    "ListOTAJobByDevice": "list_otajob_by_device",
    "ListOTAUnfinishedTaskByDevice": "list_otaunfinished_task_by_device",
    "QueryOTAFirmware": "query_otafirmware",
}


def flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The parameters of a value as the old SDK writes them: `Name.1`, `Name.1.Key` …"""
    if isinstance(value, list):
        for place, each in enumerate(value, 1):
            yield from flat(f"{name}.{place}", each)
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from flat(f"{name}.{key}", each)
    else:
        yield name, value


def ask_new_sdk(running: Running, action: str, params: dict[str, Any], *, is_async: bool = False, **config: Any) -> Any:
    """The answer's body as the SDK's model, turned into a mapping."""
    client = new_client(running, **config)
    request = new_request(action, params)
    if is_async:
        answer = asyncio.run(getattr(client, f"{METHODS[action]}_async")(request))
    else:
        answer = getattr(client, METHODS[action])(request)
    return answer.body.to_map()


def ask_old_sdk(
    running: Running,
    action: str,
    params: dict[str, Any],
    *,
    key: str = "testid",
    secret: str = "testsecret",
    token: str | None = None,
) -> Any:
    from importlib import import_module

    from aliyunsdkcore.auth.credentials import AccessKeyCredential, StsTokenCredential
    from aliyunsdkcore.client import AcsClient

    credential = StsTokenCredential(key, secret, token) if token else AccessKeyCredential(key, secret)
    client = AcsClient(region_id="cn-shanghai", credential=credential, auto_retry=False, port=running.port)
    request = getattr(import_module(f"aliyunsdkiot.request.v20180120.{action}Request"), f"{action}Request")()
    request.set_endpoint("127.0.0.1")
    request.set_protocol_type("http")
    request.set_accept_format("JSON")
    request.add_query_param("IotInstanceId", INSTANCE)
    for name, value in (pair for given in params.items() for pair in flat(*given)):
        request.add_query_param(name, value)
    answer = client.do_action_with_exception(request)
    return json.loads(answer)


ASKERS = {
    "new SDK": ask_new_sdk,
    "new SDK, async": lambda *given: ask_new_sdk(*given, is_async=True),
    "new SDK, signature 1.0": lambda *given: ask_new_sdk(*given, signature_algorithm="v2"),
    "new SDK, async, signature 1.0": lambda *given: ask_new_sdk(*given, is_async=True, signature_algorithm="v2"),
    "old SDK": ask_old_sdk,
}
every_sdk = pytest.mark.parametrize("ask", ASKERS.values(), ids=ASKERS.keys())


@every_sdk
@pytest.mark.parametrize("action", OFFERED)
def test_every_operation_answers_every_official_sdk(start: Start, ask: Any, action: str) -> None:
    body = ask(start(), action, PARAMS[action])
    assert body["Success"] is True
    assert body["RequestId"] == body["RequestId"].upper()


@every_sdk
def test_a_cancel_from_an_sdk_changes_the_fleet_once(start: Start, ask: Any) -> None:
    running = start()
    ask(running, "CancelOTATaskByJob", PARAMS["CancelOTATaskByJob"])
    (effect,) = running.fleet.history
    assert (effect.action, effect.job_id) == ("CancelOTATaskByJob", STATIC)
    assert effect.params["CancelUnconfirmedTask"].lower() == "false"
    assert effect.tasks == running.fleet.job(STATIC).counts(time.time())["CANCELED"] > 200


@every_sdk
def test_a_job_is_described_to_every_sdk(start: Start, ask: Any) -> None:
    job = ask(start(), "QueryOTAJob", {"JobId": STATIC})["Data"]
    assert (job["JobId"], job["JobStatus"], job["SelectionType"]) == (STATIC, "IN_PROGRESS", "STATIC")
    assert (job["DestVersion"], job["SrcVersions"]) == ("4.2.1", {"SrcVersion": ["4.1.9"]})
    assert {"Key": "ring", "Value": "3"} in job["Tags"]["OtaTagDTO"]


@every_sdk
def test_tasks_are_listed_and_counted_for_every_sdk(start: Start, ask: Any) -> None:
    running = start()
    body = ask(running, "ListOTATaskByJob", PARAMS["ListOTATaskByJob"])
    rows = body["Data"]["SimpleOTATaskInfo"]
    assert body["Total"] > 50
    assert len(rows) == body["PageSize"] == 20
    assert {row["TaskStatus"] for row in rows} == {"SUCCEEDED"}
    assert rows[0]["DeviceName"].startswith("gw-sh-")


@every_sdk
def test_named_devices_are_found_by_every_sdk(start: Start, ask: Any) -> None:
    given = {"JobId": STATIC, "DeviceNames": ["gw-sh-00001", "gw-sh-00003"]}
    rows = ask(start(), "ListOTATaskByJob", given)["Data"]["SimpleOTATaskInfo"]
    assert [row["DeviceName"] for row in rows] == ["gw-sh-00001", "gw-sh-00003"]


@every_sdk
def test_jobs_and_packages_are_listed_for_every_sdk(start: Start, ask: Any) -> None:
    running = start()
    jobs = ask(running, "ListOTAJobByFirmware", PARAMS["ListOTAJobByFirmware"])["Data"]["SimpleOTAJobInfo"]
    assert {STATIC, DYNAMIC} <= {job["JobId"] for job in jobs}
    packages = ask(running, "ListOTAFirmware", PARAMS["ListOTAFirmware"])["FirmwareInfo"]["SimpleFirmwareInfo"]
    assert FIRMWARE in {package["FirmwareId"] for package in packages}


CHANGES = {action: given for action, given in PARAMS.items() if not action.startswith(("List", "Query"))}


@every_sdk
@pytest.mark.parametrize("action", CHANGES)
def test_every_change_from_an_sdk_is_an_effect_with_its_parameters(start: Start, ask: Any, action: str) -> None:
    running = start()
    ask(running, action, CHANGES[action])
    (effect,) = running.fleet.history
    assert (effect.action, effect.job_id) == (action, CHANGES[action].get("JobId", ""))
    expected = {name: str(value) for given in CHANGES[action].items() for name, value in flat(*given)}
    assert {name: effect.params[name].lower() for name in expected} == {
        name: value.lower() for name, value in expected.items()
    }


@every_sdk
def test_a_rate_that_an_sdk_sets_is_shown_to_it(start: Start, ask: Any) -> None:
    running = start()
    ask(running, "UpdateOTAJob", PARAMS["UpdateOTAJob"])
    job = ask(running, "QueryOTAJob", {"JobId": DYNAMIC})["Data"]
    assert (job["MaximumPerMinute"], job["TimeoutInMinutes"]) == (10, 30)
    assert job["SrcVersions"] == {"SrcVersion": ["4.1.9", "4.1.8"]}
    assert job["Tags"] == {"OtaTagDTO": [{"Key": "ring", "Value": "3"}, {"Key": "owner", "Value": "firmware"}]}


@every_sdk
def test_settings_without_tags_come_from_every_sdk(start: Start, ask: Any) -> None:
    running = start()
    given = {"JobId": STATIC, "MaximumPerMinute": 10, "TargetSelection": "ALL", "UpgradeType": "STATIC"}
    assert ask(running, "UpdateOTAJob", given)["Success"] is True
    assert running.fleet.job(STATIC).settings.tags == {}


@every_sdk
def test_devices_and_packages_are_looked_up_by_every_sdk(start: Start, ask: Any) -> None:
    running = start()
    (task,) = ask(running, "ListOTAUnfinishedTaskByDevice", PARAMS["ListOTAUnfinishedTaskByDevice"])["Data"][
        "SimpleOTATaskInfo"
    ]
    assert (task["JobId"], task["TaskStatus"]) == (STATIC, "QUEUED")
    (job,) = ask(running, "ListOTAJobByDevice", PARAMS["ListOTAJobByDevice"])["Data"]["SimpleOTAJobInfo"]
    assert job["JobId"] == STATIC
    package = ask(running, "QueryOTAFirmware", PARAMS["QueryOTAFirmware"])["FirmwareInfo"]
    assert (package["FirmwareId"], package["VerifyProgress"], package["MultiFiles"]) == (FIRMWARE, 100, [])


@every_sdk
def test_a_failure_under_200_returns_normally(start: Start, ask: Any) -> None:
    body = ask(start(), "CancelOTATaskByJob", {"JobId": "nosuchjob", "CancelQueuedTask": True})
    assert (body["Success"], body["Code"]) == (False, "iot.ota.InvalidJobId")
    assert body["ErrorMessage"]


def refused(ask: Any, *given: Any, **options: Any) -> tuple[str, int]:
    """The code and the status of the SDK's exception."""
    from aliyunsdkcore.acs_exception.exceptions import ServerException
    from darabonba.exceptions import ResponseException

    with pytest.raises((ServerException, ResponseException)) as caught:
        ask(*given, **options)
    error: Any = caught.value
    if isinstance(error, ServerException):
        return str(error.get_error_code()), int(error.get_http_status())
    return str(error.code), int(error.status_code)


@every_sdk
def test_a_failure_under_400_is_an_exception(start: Start, ask: Any) -> None:
    running = start(business_error_status=400)
    given = {"JobId": "nosuchjob", "CancelQueuedTask": True}
    assert refused(ask, running, "CancelOTATaskByJob", given) == ("iot.ota.InvalidJobId", 400)


@every_sdk
def test_no_flag_at_all_is_refused(start: Start, ask: Any) -> None:
    running = start()
    assert ask(running, "CancelOTATaskByJob", {"JobId": STATIC})["Success"] is False
    assert running.fleet.history == []


@every_sdk
def test_a_missing_job_is_an_error_of_the_gateway(start: Start, ask: Any) -> None:
    assert refused(ask, start(), "QueryOTAJob", {}) == ("MissingJobId", 400)


@every_sdk
def test_too_many_calls_are_throttled(start: Start, ask: Any) -> None:
    running = start()
    running.app.state.faults.add(load_fault("throttle"))
    assert refused(ask, running, "QueryOTAJob", {"JobId": STATIC}) == ("Throttling.User", 400)


def load_fault(kind: str) -> Any:
    from bot.sandbox.iot_faults import Fault

    return Fault.from_json({"kind": kind})


@pytest.mark.parametrize("scheme", [{}, {"signature_algorithm": "v2"}], ids=["v3", "v1"])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
class TestKeysOfTheNewSdk:
    def test_a_wrong_secret_is_refused(self, start: Start, scheme: dict[str, str], is_async: bool) -> None:
        given: Any = {"access_key_secret": "wrong", "is_async": is_async, **scheme}
        assert refused(ask_new_sdk, start(), "QueryOTAJob", {"JobId": STATIC}, **given) == (
            "SignatureDoesNotMatch",
            400,
        )

    def test_an_unknown_key_is_refused(self, start: Start, scheme: dict[str, str], is_async: bool) -> None:
        given: Any = {"access_key_id": "nobody", "is_async": is_async, **scheme}
        assert refused(ask_new_sdk, start(), "QueryOTAJob", {"JobId": STATIC}, **given) == (
            "InvalidAccessKeyId.NotFound",
            404,
        )

    def test_a_temporary_key_needs_its_token(self, start: Start, scheme: dict[str, str], is_async: bool) -> None:
        running = start(keys={"STS.key": "s3cret"}, tokens={"STS.key": "CAIS+token/=="})
        own: Any = {"access_key_id": "STS.key", "access_key_secret": "s3cret", "is_async": is_async, **scheme}
        ask = (ask_new_sdk, running, "QueryOTAJob", {"JobId": STATIC})
        body = ask_new_sdk(*ask[1:], **own, security_token="CAIS+token/==")
        assert body["Success"] is True
        assert refused(*ask, **own)[0] == "MissingSecurityToken"
        assert refused(*ask, **own, security_token="other")[0] == "InvalidSecurityToken.MismatchWithAccessKey"


def test_the_old_sdk_recognises_a_wrong_secret(start: Start) -> None:
    # It compares the string to sign of our message with its own, and finds that only the secret can be wrong.
    code, status = refused(ask_old_sdk, start(), "QueryOTAJob", {"JobId": STATIC}, secret="wrong")
    assert (code, status) == ("InvalidAccessKeySecret", 400)


def test_the_old_sdk_meets_an_unknown_key(start: Start) -> None:
    code, status = refused(ask_old_sdk, start(), "QueryOTAJob", {"JobId": STATIC}, key="nobody")
    assert (code, status) == ("InvalidAccessKeyId.NotFound", 404)


def test_the_old_sdk_uses_a_temporary_key(start: Start) -> None:
    running = start(keys={"STS.key": "s3cret"}, tokens={"STS.key": "CAIS+token/=="})
    own: Any = {"key": "STS.key", "secret": "s3cret"}
    assert ask_old_sdk(running, "QueryOTAJob", {"JobId": STATIC}, token="CAIS+token/==", **own)["Success"] is True
    assert refused(ask_old_sdk, running, "QueryOTAJob", {"JobId": STATIC}, **own)[0] == "MissingSecurityToken"


def test_an_accepted_call_without_an_answer_is_an_effect(start: Start) -> None:
    from Tea.exceptions import TeaException

    running = start()
    running.app.state.faults.add(load_fault("accept_then_close"))
    with pytest.raises(TeaException):
        ask_new_sdk(running, "CancelOTATaskByJob", PARAMS["CancelOTATaskByJob"])
    assert len(running.fleet.history) == 1


def test_a_caller_may_give_up_on_an_accepted_call(start: Start) -> None:
    from Tea.exceptions import TeaException

    running = start()
    running.app.state.faults.add(load_fault("accept_then_timeout"))
    with pytest.raises(TeaException):
        ask_new_sdk(running, "CancelOTATaskByJob", PARAMS["CancelOTATaskByJob"], read_timeout=200)
    assert len(running.fleet.history) == 1


def test_a_finished_job_is_described_with_its_end(start: Start) -> None:
    job = ask_new_sdk(start(), "QueryOTAJob", {"JobId": FINISHED})["Data"]
    assert job["JobStatus"] == "COMPLETED"
    assert job["UtcEndTime"].endswith(".000Z")

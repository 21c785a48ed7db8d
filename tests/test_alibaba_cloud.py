"""The ports of the road over several instances: against a scripted API, and against the IoT simulator."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import Any

import httpx
import pytest

from bot.alibaba import cloud as cloud_module
from bot.alibaba.budget import LIMITS, Budget, CallClass
from bot.alibaba.cloud import Cloud
from bot.alibaba.credentials import Credentials
from bot.errors import CloudError, CloudLost, CloudRefused, CloudThrottled, CloudUnreachable
from bot.model import Instance, JobKind, JobState, Step, StepKind, Target, TaskState, Touch
from bot.sandbox.fleet import Fleet
from bot.sandbox.iot import create_iot_app, load_seed
from tests.conftest import Clock

INSTANCES = {
    "prod": Instance("prod", "cn-shanghai", instance_id="iot-cn-0pp1n8t0001", account="one"),
    "old": Instance("old", "eu-central-1", account="two", signature="v1"),
    "keyless": Instance("keyless", "cn-shanghai"),
    "lost": Instance("lost", "cn-atlantis"),
}
KEYS = {name: Credentials("testid", "testsecret") for name in ("prod", "old", "lost")}
JOB = {"JobId": "j1", "JobStatus": "IN_PROGRESS", "SelectionType": "STATIC", "JobType": "UPGRADE_FIRMWARE"}
TARGET = Target("prod", "j1")
OK: dict[str, object] = {"RequestId": "AB-1", "Success": True}


class Api:
    """Answers by action: the next of the script, then the standing answer."""

    def __init__(self) -> None:
        self.asked: list[httpx.Request] = []
        self.script: list[dict[str, object] | Exception] = []
        self.standing: Callable[[httpx.Request], dict[str, object]] = lambda request: {**OK, "Data": JOB, "Total": 3}

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        await asyncio.sleep(0)
        answer = self.script.pop(0) if self.script else self.standing(request)
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(400 if "Message" in answer else 200, content=json.dumps(answer))

    @property
    def params(self) -> dict[str, str]:
        return dict(self.asked[-1].url.params)

    @property
    def nonces(self) -> list[str]:
        return [request.headers["x-acs-signature-nonce"] for request in self.asked]


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def keys() -> dict[str, Credentials]:
    return dict(KEYS)


@pytest.fixture
def budget() -> Budget:
    return Budget()


@pytest.fixture
async def cloud(api: Api, keys: dict[str, Credentials], budget: Budget, clock: Clock) -> AsyncIterator[Cloud]:
    async with httpx.AsyncClient(transport=httpx.MockTransport(api)) as http:
        yield make_cloud(http, keys, clock, budget)


def make_cloud(
    http: httpx.AsyncClient,
    keys: dict[str, Credentials],
    clock: Clock,
    budget: Budget,
    instances: dict[str, Instance] = INSTANCES,
) -> Cloud:
    numbers = count(1)
    return Cloud(
        instances, credentials=keys, http=http, budget=budget, now=clock, new_nonce=lambda: f"nonce-{next(numbers)}"
    )


def cancel(*touches: Touch, instance: str = "prod") -> Step:
    return Step(StepKind.CANCEL_TASKS, Target(instance, "j1"), frozenset(touches))


async def test_a_job_is_put_in_the_words_of_the_core(cloud: Cloud, api: Api) -> None:
    api.script = [
        {
            **OK,
            "Data": {
                **JOB,
                "FirmwareId": "f1",
                "Name": "gateway",
                "ProductKey": "a1",
                "DestVersion": "4.2.1",
                "SrcVersions": {"SrcVersion": ["4.1.9"]},
                "JobDesc": "to all",
            },
        }
    ]
    job = await cloud.fetch_job(TARGET)
    assert (job.job_id, job.state, job.kind, job.firmware_id) == ("j1", JobState.IN_PROGRESS, JobKind.STATIC, "f1")
    assert (job.firmware, job.product, job.dest_version) == ("gateway", "a1", "4.2.1")
    assert (job.src_versions, job.description) == (("4.1.9",), "to all")
    assert api.params == {"IotInstanceId": "iot-cn-0pp1n8t0001", "JobId": "j1"}


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"SelectionType": "DYNAMIC"}, JobKind.DYNAMIC),
        ({"JobType": "VERFIY_FIRMWARE"}, JobKind.VERIFICATION),
        ({"UtcScheduleTime": "2026-03-02T00:00:00.000Z"}, JobKind.SCHEDULED),
        ({}, JobKind.STATIC),
    ],
)
async def test_a_job_has_a_kind(cloud: Cloud, api: Api, fields: dict[str, object], kind: JobKind) -> None:
    api.script = [{**OK, "Data": {**JOB, **fields}}]
    assert (await cloud.fetch_job(TARGET)).kind is kind


async def test_a_job_in_a_state_that_nobody_knows_is_not_guessed(cloud: Cloud, api: Api) -> None:
    api.script = [{**OK, "Data": {**JOB, "JobStatus": "DREAMING"}}]
    with pytest.raises(CloudLost, match="DREAMING"):
        await cloud.fetch_job(TARGET)


async def test_counts_are_totals_by_state_asked_all_at_once(cloud: Cloud, api: Api, clock: Clock) -> None:
    api.standing = lambda request: {**OK, "Total": len(request.url.params["TaskStatus"])}
    counts = await cloud.fetch_counts(TARGET, tuple(TaskState))
    assert counts.by_state == {state: len(state.value) for state in TaskState}
    assert counts.read_at == clock.at
    assert {request.url.params["PageSize"] for request in api.asked} == {"1"}


async def test_counts_in_order_are_asked_one_after_the_other(cloud: Cloud, api: Api) -> None:
    under_way = 0
    states = (TaskState.CONFIRM, TaskState.QUEUED, TaskState.NOTIFIED, TaskState.IN_PROGRESS)

    async def handle(request: httpx.Request) -> httpx.Response:
        nonlocal under_way
        api.asked.append(request)
        under_way += 1
        assert under_way == 1
        await asyncio.sleep(0)
        under_way -= 1
        return httpx.Response(200, json={**OK, "Total": 1})

    async with httpx.AsyncClient(transport=httpx.MockTransport(handle)) as http:
        cloud._http = http
        await cloud.fetch_counts(TARGET, states, in_order=True)
    assert [request.url.params["TaskStatus"] for request in api.asked] == list(states)


async def test_a_number_that_cannot_be_read_is_unknown_and_not_zero(cloud: Cloud, api: Api) -> None:
    def answer(request: httpx.Request) -> dict[str, object]:
        return OK if request.url.params["TaskStatus"] == "QUEUED" else {**OK, "Total": 2}

    api.standing = answer
    counts = await cloud.fetch_counts(TARGET, (TaskState.QUEUED, TaskState.NOTIFIED))
    assert counts.by_state == {TaskState.QUEUED: None, TaskState.NOTIFIED: 2}


async def test_counts_raise_only_if_none_can_be_read(cloud: Cloud, api: Api) -> None:
    api.standing = lambda request: {"Code": "iot.ota.InvalidJobId", "Message": "none"}
    with pytest.raises(CloudRefused, match="InvalidJobId"):
        await cloud.fetch_counts(TARGET, (TaskState.QUEUED, TaskState.NOTIFIED))


@pytest.mark.parametrize(
    "fault",
    [
        httpx.ConnectError("refused"),
        httpx.ReadError("reset"),
        {"Code": "ServiceUnavailable", "Message": "…"},
        {"Code": "SignatureNonceUsed", "Message": "…"},
    ],
    ids=["unreachable", "reset", "unavailable", "nonce used"],
)
async def test_a_read_is_repeated_once_with_a_new_nonce(cloud: Cloud, api: Api, fault: Any) -> None:
    api.script = [fault]
    await cloud.fetch_job(TARGET)
    assert api.nonces == ["nonce-1", "nonce-2"]


async def test_a_read_that_fails_twice_fails(cloud: Cloud, api: Api) -> None:
    api.script = [httpx.ReadError("reset"), httpx.ReadError("reset")]
    with pytest.raises(CloudLost):
        await cloud.fetch_job(TARGET)
    assert len(api.asked) == 2


async def test_a_refused_read_is_not_repeated(cloud: Cloud, api: Api) -> None:
    api.script = [{"Code": "Forbidden.RAM", "Message": "no"}]
    with pytest.raises(CloudRefused):
        await cloud.fetch_job(TARGET)
    assert len(api.asked) == 1


async def test_a_read_is_not_repeated_when_its_time_is_over(
    cloud: Cloud, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloud_module, "READ_SECONDS", 5.0)
    api.script = [httpx.ReadError("reset")]
    with pytest.raises(CloudLost):
        await cloud.fetch_job(TARGET)
    assert len(api.asked) == 1


async def test_a_throttled_read_waits_for_as_long_as_the_cloud_asked(
    api: Api, keys: dict[str, Credentials], clock: Clock
) -> None:
    async def handle(request: httpx.Request) -> httpx.Response:
        api.asked.append(request)
        if len(api.asked) == 1:
            return httpx.Response(429, json={"Code": "Throttling"}, headers={"x-acs-retry-after": "20"})
        return httpx.Response(200, json={**OK, "Data": JOB})

    async with httpx.AsyncClient(transport=httpx.MockTransport(handle)) as http:
        await make_cloud(http, keys, clock, Budget()).fetch_job(TARGET)
    assert len(api.asked) == 2


ALWAYS = {"IotInstanceId": "iot-cn-0pp1n8t0001", "JobId": "j1"}


@pytest.mark.parametrize(
    ("touches", "flags"),
    [
        ([Touch.QUEUED], {"CancelQueuedTask": "true", "CancelUnconfirmedTask": "false"}),
        ([Touch.CONFIRM], {"CancelUnconfirmedTask": "true"}),
        ([Touch.SCHEDULED], {"CancelScheduledTask": "true", "CancelUnconfirmedTask": "false"}),
        (
            [Touch.NOTIFIED, Touch.IN_PROGRESS, Touch.CONFIRM],
            {"CancelNotifiedTask": "true", "CancelInProgressTask": "true", "CancelUnconfirmedTask": "true"},
        ),
    ],
)
async def test_what_a_step_touches_becomes_flags_and_unconfirmed_is_always_said(
    cloud: Cloud, api: Api, touches: list[Touch], flags: dict[str, str]
) -> None:
    receipt = await cloud.send(cloud.prepare(cancel(*touches)))
    assert receipt.request_id == "AB-1"
    assert api.params == ALWAYS | flags


async def test_a_strategy_is_cancelled_by_its_own_call(cloud: Cloud, api: Api) -> None:
    await cloud.send(cloud.prepare(Step(StepKind.CANCEL_STRATEGY, TARGET)))
    assert api.asked[-1].headers["x-acs-action"] == "CancelOTAStrategyByJob"
    assert api.params == ALWAYS


async def test_an_intent_holds_what_the_signature_is_made_of(cloud: Cloud, clock: Clock) -> None:
    clock.at = clock.at.replace(microsecond=500_000)
    intent = cloud.prepare(cancel(Touch.QUEUED))
    assert (intent.nonce, intent.key_id) == ("nonce-1", "testid")
    assert intent.date == clock.at.replace(microsecond=0)
    assert intent.deadline == clock.at + timedelta(seconds=10)


@pytest.mark.parametrize("later", [0.0, 3.0, 60.0])
@pytest.mark.parametrize("instance", ["prod", "old"])
async def test_an_intent_that_is_sent_again_has_the_same_bytes(
    cloud: Cloud, api: Api, clock: Clock, later: float, instance: str
) -> None:
    intent = cloud.prepare(cancel(Touch.QUEUED, instance=instance))
    await cloud.send(intent)
    clock.pass_by(later)
    await cloud.send(replace(intent))
    first, second = [(request.url.raw_path, request.headers.raw) for request in api.asked]
    assert first == second


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (httpx.ReadTimeout("slow"), CloudLost),
        (httpx.ConnectError("refused"), CloudUnreachable),
        ({"Code": "Throttling.User", "Message": "…"}, CloudThrottled),
        ({"Code": "SignatureNonceUsed", "Message": "…"}, CloudRefused),
    ],
    ids=["lost", "unreachable", "throttled", "nonce used"],
)
async def test_a_change_is_never_repeated_here(cloud: Cloud, api: Api, fault: Any, kind: type[CloudError]) -> None:
    api.script = [fault]
    with pytest.raises(kind):
        await cloud.send(cloud.prepare(cancel(Touch.QUEUED)))
    assert len(api.asked) == 1


async def test_a_change_signed_with_a_key_that_was_replaced_is_not_sent(
    cloud: Cloud, api: Api, keys: dict[str, Credentials]
) -> None:
    intent = cloud.prepare(cancel(Touch.QUEUED))
    keys["prod"] = Credentials("another", "secret")
    with pytest.raises(CloudRefused) as caught:
        await cloud.send(intent)
    assert caught.value.code == "otabrake.KeyChanged"
    assert api.asked == []


async def test_a_change_that_finds_no_slot_in_time_is_not_sent(
    cloud: Cloud, api: Api, budget: Budget, clock: Clock
) -> None:
    intent = cloud.prepare(cancel(Touch.QUEUED))
    clock.pass_by(8.98)  # leaves a wait of some milliseconds
    for _ in range(LIMITS["CancelOTATaskByJob"]):
        async with budget.slot("one", "CancelOTATaskByJob", CallClass.STOP):
            pass
    with pytest.raises(CloudUnreachable, match="account one is at its limit"):
        await cloud.send(intent)
    assert api.asked == []


@pytest.mark.parametrize(
    ("instance", "code"),
    [
        ("nowhere", "otabrake.UnknownInstance"),
        ("keyless", "otabrake.NoCredentials"),
        ("lost", "otabrake.BadEndpoint"),
    ],
)
async def test_what_cannot_be_called_is_refused_with_a_sentence(
    cloud: Cloud, api: Api, instance: str, code: str
) -> None:
    target = Target(instance, "j1")
    with pytest.raises(CloudRefused) as caught:
        await cloud.fetch_job(target)
    assert caught.value.code == code
    notice = cloud.explain(caught.value, target)
    assert instance in notice.text
    assert api.asked == []


@pytest.mark.parametrize("instance", ["nowhere", "keyless"])
async def test_no_intent_is_made_without_an_instance_and_its_key(cloud: Cloud, instance: str) -> None:
    with pytest.raises(CloudRefused):
        cloud.prepare(cancel(Touch.QUEUED, instance=instance))


async def test_a_command_line_is_written_for_an_instance(cloud: Cloud) -> None:
    assert "--region cn-shanghai" in cloud.command_line(cancel(Touch.QUEUED))
    assert "--region" not in cloud.command_line(cancel(Touch.QUEUED, instance="nowhere"))


# The same ports against the simulator, in both signature schemes.

ROLLOUT = "7glPHmaDYLAYMD1HHutT02"


@pytest.fixture(params=["v3", "v1"])
async def simulated(request: pytest.FixtureRequest, clock: Clock) -> AsyncIterator[Cloud]:
    def seconds() -> float:
        return clock.at.timestamp()

    app = create_iot_app(Fleet.from_seed(load_seed(), now=seconds), now=seconds)
    instance = replace(INSTANCES["prod"], signature=request.param, endpoint="http://127.0.0.1:9")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app)) as http:
        yield make_cloud(http, dict(KEYS), clock, Budget(), {"prod": instance})


async def test_a_rollout_of_the_simulator_is_read_stopped_and_read_again(simulated: Cloud) -> None:
    target = Target("prod", ROLLOUT)
    job = await simulated.fetch_job(target)
    before = await simulated.fetch_counts(target, (TaskState.QUEUED, TaskState.CANCELED))
    assert job.state is JobState.IN_PROGRESS
    assert before.by_state[TaskState.QUEUED]

    intent = simulated.prepare(Step(StepKind.CANCEL_TASKS, target, frozenset({Touch.QUEUED})))
    receipt = await simulated.send(intent)
    assert receipt.request_id

    after = await simulated.fetch_counts(target, (TaskState.QUEUED, TaskState.CANCELED), in_order=True)
    assert after.by_state[TaskState.QUEUED] == 0
    assert after.by_state[TaskState.CANCELED]

    with pytest.raises(CloudRefused) as again:
        await simulated.send(intent)
    assert again.value.code == "SignatureNonceUsed"


async def test_the_simulator_refuses_a_clock_that_is_off(simulated: Cloud, clock: Clock) -> None:
    simulated._now = lambda: clock.at + timedelta(hours=1)
    with pytest.raises(CloudRefused) as caught:
        await simulated.fetch_job(Target("prod", ROLLOUT))
    assert caught.value.code == "InvalidTimeStamp.Expired"
    assert "NTP" in " ".join(simulated.explain(caught.value, Target("prod", ROLLOUT)).lines)


async def test_the_simulator_does_not_know_another_job(simulated: Cloud) -> None:
    with pytest.raises(CloudRefused) as caught:
        await simulated.fetch_job(Target("prod", "nosuchjob"))
    assert simulated.explain(caught.value, Target("prod", "nosuchjob")).text == "Instance prod has no job nosuchjob."

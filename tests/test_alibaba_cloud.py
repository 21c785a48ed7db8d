"""Changes: prepared, given a place in the budget, and sent as their intent says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import httpx
import pytest

from bot.alibaba import cloud as cloud_module
from bot.alibaba.budget import Budget
from bot.alibaba.cloud import Cloud
from bot.alibaba.credentials import Credentials
from bot.alibaba.key_sources import KeySource, StaticKey
from bot.errors import CloudError, CloudLost, CloudRefused, CloudThrottled, CloudUnreachable, StoreUnavailable
from bot.model import Instance, JobSettings, Step, StepKind, Target, Touch
from bot.ports import Claim, Lane
from tests.conftest import Clock
from tests.scripted_api import INSTANCES, Answer, Api, make_cloud, make_keys
from tests.slots import FullSlots, OpenSlots

TARGET = Target("prod", "j1", "f1", "a1")
SETTINGS = JobSettings(60, 30, "ALL", "DYNAMIC", ("4.1.0",), (("team", "gw"),))
STEPS = (
    Step(StepKind.CANCEL_STRATEGY, TARGET),
    Step(StepKind.CANCEL_TASKS, TARGET, frozenset({Touch.QUEUED, Touch.NOTIFIED})),
    Step(StepKind.CANCEL_DEVICES, TARGET, devices=("d1", "d 2", "größe/ä+&=")),
    Step(StepKind.RETRY_TASKS, TARGET, tasks=("t1", "t2")),
    Step(StepKind.SET_RATE, TARGET, settings=SETTINGS),
)
ACTIONS = (
    "CancelOTAStrategyByJob",
    "CancelOTATaskByJob",
    "CancelOTATaskByDevice",
    "ReupgradeOTATask",
    "UpdateOTAJob",
)
CANCEL = STEPS[1]


def kind_of(step: Step) -> str:
    return step.kind.value


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def keys() -> dict[str, KeySource]:
    return make_keys()


@pytest.fixture
def slots() -> OpenSlots:
    return OpenSlots()


@pytest.fixture
async def http(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.MockTransport(api)) as http:
        yield http


@pytest.fixture
async def budget(slots: OpenSlots) -> AsyncIterator[Budget]:
    async with Budget(slots) as budget:
        yield budget


@pytest.fixture
def cloud(http: httpx.AsyncClient, keys: dict[str, KeySource], budget: Budget, clock: Clock) -> Cloud:
    return make_cloud(http, clock, keys=keys, budget=budget)


def on(step: Step, instance: str) -> Step:
    return replace(step, target=replace(step.target, instance=instance))


@pytest.mark.parametrize(("step", "action"), list(zip(STEPS, ACTIONS, strict=True)), ids=ACTIONS)
async def test_every_kind_of_step_is_its_own_call_of_the_first_class(
    cloud: Cloud, api: Api, budget: Budget, slots: OpenSlots, step: Step, action: str
) -> None:
    receipt = await cloud.send(cloud.prepare(step))
    assert receipt.request_id == "AB-1"
    assert api.action == action
    assert api.params["JobId"] == "j1"
    await budget.__aexit__()
    (freed,) = slots.freed
    assert (freed.slot.lane.account, freed.slot.lane.action) == ("one", action)
    assert freed.slot.number > 0


async def test_an_intent_holds_what_the_signature_is_made_of(cloud: Cloud, clock: Clock) -> None:
    clock.at = clock.at.replace(microsecond=500_000)
    intent = cloud.prepare(CANCEL)
    assert (intent.nonce, intent.key_id) == ("nonce-1", "testid")
    assert intent.date == clock.at.replace(microsecond=0)
    assert intent.deadline == clock.at + timedelta(seconds=10)


@pytest.mark.parametrize("later", [0.0, 60.0])
@pytest.mark.parametrize("instance", ["prod", "old"])
@pytest.mark.parametrize("step", STEPS, ids=kind_of)
async def test_an_intent_that_is_sent_again_has_the_same_bytes(
    cloud: Cloud, api: Api, clock: Clock, later: float, instance: str, step: Step
) -> None:
    intent = cloud.prepare(on(step, instance))
    await cloud.send(intent)
    clock.pass_by(later)
    await cloud.send(replace(intent, step=replace(intent.step, touches=frozenset(sorted(intent.step.touches)))))
    first, second = [(request.url.raw_path, request.headers.raw, request.content) for request in api.asked]
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
@pytest.mark.parametrize("step", STEPS, ids=kind_of)
async def test_a_change_is_never_repeated_here(
    cloud: Cloud, api: Api, fault: Answer, kind: type[CloudError], step: Step
) -> None:
    api.script = [fault]
    with pytest.raises(kind):
        await cloud.send(cloud.prepare(step))
    assert len(api.asked) == 1


async def test_a_step_that_the_api_cannot_take_is_found_before_anything_is_written_down(
    cloud: Cloud, budget: Budget, slots: OpenSlots
) -> None:
    with pytest.raises(ValueError, match="DeviceName"):
        cloud.prepare(replace(STEPS[2], devices=tuple(f"d{number}" for number in range(201))))
    with pytest.raises(CloudRefused, match="SelectionType"):
        cloud.prepare(replace(STEPS[4], settings=replace(SETTINGS, upgrade_type="")))
    await budget.__aexit__()
    assert slots.freed == []


@pytest.mark.parametrize(
    ("instance", "code"),
    [
        ("nowhere", "otabrake.UnknownInstance"),
        ("keyless", "otabrake.NoCredentials"),
        ("lost", "otabrake.BadEndpoint"),
    ],
)
async def test_no_intent_is_made_for_what_cannot_be_called(cloud: Cloud, instance: str, code: str) -> None:
    with pytest.raises(CloudRefused) as caught:
        cloud.prepare(on(CANCEL, instance))
    assert caught.value.code == code


# The key.


async def test_the_second_copy_of_a_change_is_not_signed_with_another_key(
    cloud: Cloud, api: Api, keys: dict[str, KeySource]
) -> None:
    intent = cloud.prepare(CANCEL)
    await cloud.send(intent)
    keys["prod"] = StaticKey(Credentials("another", "secret"))
    with pytest.raises(CloudRefused) as caught:
        await cloud.send(intent)
    assert caught.value.code == "otabrake.KeyChanged"
    assert len(api.asked) == 1


async def test_a_key_that_is_renewed_while_the_intent_is_written_down_still_signs_it(
    cloud: Cloud, api: Api, keys: dict[str, KeySource]
) -> None:
    intent = cloud.prepare(CANCEL)
    keys["prod"] = StaticKey(Credentials("another", "secret"))
    await cloud.send(intent)
    assert "Credential=testid," in api.asked[0].headers["authorization"]


async def test_an_intent_of_another_process_is_sent_with_the_same_key(
    cloud: Cloud, api: Api, http: httpx.AsyncClient, clock: Clock
) -> None:
    intent = make_cloud(http, clock).prepare(CANCEL)
    await cloud.send(intent)
    assert api.nonces == [intent.nonce]


# The place in the budget.


class CountedSlots(OpenSlots):
    """Counts what was claimed and is not given back."""

    def __init__(self) -> None:
        super().__init__()
        self.claimed = 0

    async def claim(self, lane: Lane, *, foreground: int, background: int, hold_seconds: float) -> Claim:
        claim = await super().claim(lane, foreground=foreground, background=background, hold_seconds=hold_seconds)
        self.claimed += len(claim.slots)
        return claim

    @property
    def held(self) -> int:
        return self.claimed - len(self.freed)


async def turns(number: int = 20) -> None:
    """Lets whatever is ready run."""
    for _ in range(number):
        await asyncio.sleep(0)


@pytest.fixture
def counted(http: httpx.AsyncClient, clock: Clock) -> tuple[Cloud, CountedSlots]:
    slots = CountedSlots()
    return make_cloud(http, clock, budget=Budget(slots)), slots


async def test_a_slot_is_claimed_while_the_intent_is_written_down_and_only_once(
    counted: tuple[Cloud, CountedSlots],
) -> None:
    cloud, slots = counted
    intent = cloud.prepare(CANCEL)
    await turns()
    assert slots.claimed == 1
    await cloud.send(intent)
    await turns()
    assert (slots.claimed, slots.held) == (1, 0)


async def test_the_second_copy_takes_a_slot_of_its_own(counted: tuple[Cloud, CountedSlots]) -> None:
    cloud, slots = counted
    intent = cloud.prepare(CANCEL)
    await cloud.send(intent)
    await cloud.send(intent)
    await turns()
    assert (slots.claimed, slots.held) == (2, 0)


async def test_a_task_that_ends_without_sending_gives_its_slot_back(counted: tuple[Cloud, CountedSlots]) -> None:
    cloud, slots = counted

    async def prepare_and_forget() -> None:
        cloud.prepare(CANCEL)
        await turns()

    await asyncio.create_task(prepare_and_forget())
    await turns()
    assert (slots.claimed, slots.held) == (1, 0)


async def test_a_task_that_is_cancelled_before_it_sends_gives_its_slot_back(
    counted: tuple[Cloud, CountedSlots],
) -> None:
    cloud, slots = counted

    async def prepare_and_wait() -> None:
        cloud.prepare(CANCEL)
        await asyncio.Event().wait()

    task = asyncio.create_task(prepare_and_wait())
    await turns()
    assert slots.held == 1
    task.cancel()
    await turns()
    assert slots.held == 0


async def test_a_slot_that_nobody_uses_in_time_is_given_back(
    counted: tuple[Cloud, CountedSlots], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloud_module, "KEPT_SECONDS", 0.0)
    cloud, slots = counted
    intent = cloud.prepare(CANCEL)
    await turns()
    assert (slots.claimed, slots.held) == (1, 0)
    await cloud.send(intent)
    await turns()
    assert (slots.claimed, slots.held) == (2, 0)


async def test_a_change_that_is_not_signed_any_more_gives_its_slot_back(http: httpx.AsyncClient, clock: Clock) -> None:
    slots, instances = CountedSlots(), dict(INSTANCES)
    cloud = make_cloud(http, clock, budget=Budget(slots), instances=instances)
    intent = cloud.prepare(CANCEL)
    await turns()
    del instances["prod"]
    with pytest.raises(CloudRefused, match="UnknownInstance"):
        await cloud.send(intent)
    await turns()
    assert (slots.claimed, slots.held) == (1, 0)


async def test_a_change_that_finds_no_slot_in_time_is_not_sent(http: httpx.AsyncClient, api: Api, clock: Clock) -> None:
    async with Budget(FullSlots()) as budget:
        cloud = make_cloud(http, clock, budget=budget)
        intent = cloud.prepare(CANCEL)
        clock.pass_by(8.99)  # leaves a wait of some milliseconds
        with pytest.raises(CloudUnreachable, match="account one is at its limit"):
            await cloud.send(intent)
    assert api.asked == []


async def test_without_the_database_nothing_is_sent(http: httpx.AsyncClient, api: Api, clock: Clock) -> None:
    class NoSlots(OpenSlots):
        async def claim(self, lane: Lane, *, foreground: int, background: int, hold_seconds: float) -> Claim:
            raise StoreUnavailable("disk full")

    async with Budget(NoSlots()) as budget:
        cloud = make_cloud(http, clock, budget=budget)
        with pytest.raises(CloudUnreachable, match="disk full"):
            await cloud.send(cloud.prepare(CANCEL))
        with pytest.raises(CloudUnreachable, match="disk full"):
            await cloud.fetch_job(TARGET)
    assert api.asked == []


async def test_a_command_line_is_written_for_an_instance(cloud: Cloud) -> None:
    assert "--region cn-shanghai" in cloud.command_line(CANCEL)
    assert "--region" not in cloud.command_line(on(CANCEL, "nowhere"))


async def test_an_error_is_explained_with_the_name_of_its_instance(cloud: Cloud) -> None:
    instance: Instance = INSTANCES["prod"]
    assert instance.name in cloud.explain(CloudRefused("iot.system.BillIsOverDue", ""), TARGET).text

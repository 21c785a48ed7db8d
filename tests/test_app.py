"""The whole road: a person types and clicks in the fake Slack, signed payloads reach Bolt, signed calls reach the
simulator, devices change, and the result stands in the channel. On SQLite and on PostgreSQL, over HTTP and a socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from slack_sdk.signature import SignatureVerifier
from sqlalchemy import text

from bot.sandbox import server
from bot.sandbox.iot import create_iot_app
from bot.sandbox.iot_faults import Fault, FaultKind
from bot.sandbox.server import Sandbox, sandbox, sandbox_settings
from bot.sandbox.slack_fake import Fault as SlackFault
from bot.sandbox.workspace import Message
from tests.conftest import Clock
from tests.slots import OpenSlots

STATIC = "7glPHmaDYLAYMD1HHutT02"
DYNAMIC = "dYn4m1cRq2WsXe8RtGv501"
SCHEDULED = "Sch3dul3dQa1Ws4Ed8R301"
FINISHED = "F1n1shedZa3Sx5Dc7Fv201"
INCIDENT = "C0INCIDENT"
CLOSED = "http://127.0.0.1:1"
BECAUSE = "because 4.2.1 bricks gateways"
TASKS, STRATEGY = "CancelOTATaskByJob", "CancelOTAStrategyByJob"


class Person:
    """Somebody at the sandbox's page."""

    def __init__(self, at: Sandbox, http: httpx.AsyncClient, user: str) -> None:
        self.at = at
        self.http = http
        self.user = user

    async def _does(self, gesture: str, **what: Any) -> dict[str, Any]:
        answer = await self.http.post(f"{self.at.slack_url}/_sandbox/{gesture}", json={"user": self.user} | what)
        told: dict[str, Any] = answer.json()
        assert answer.status_code == 200, told
        return told

    async def types(self, text: str, *, channel: str = INCIDENT, copies: int = 1) -> dict[str, Any]:
        """Types a slash command and waits until everything that follows from it by itself is done."""
        told = await self._does("command", channel=channel, text=f"/ota {text}", copies=copies)
        await settled(self.at)
        return told

    async def clicks(
        self, action: str = "proposal.confirm", *, channel: str = INCIDENT, copies: int = 1
    ) -> dict[str, Any]:
        told = await self.clicks_and_leaves(action, channel=channel, copies=copies)
        await settled(self.at)
        return told

    async def clicks_and_leaves(self, action: str, *, channel: str = INCIDENT, copies: int = 1) -> dict[str, Any]:
        return await self._does(
            "click", channel=channel, ts=buttons(self.at, channel).ts, action_id=action, copies=copies
        )

    def was_told(self) -> str:
        return "\n".join(message.text for message in self.at.slack.workspace.ephemerals(self.user))


async def settled(at: Sandbox) -> None:
    """Nothing is under way and nothing is owed."""
    for _ in range(3):
        await at.bot.road.drain()
        await at.bot.notifier.drain()


def channel_texts(at: Sandbox, channel: str = INCIDENT) -> list[str]:
    return [message.text for message in at.slack.workspace.messages(channel)]


def card(at: Sandbox, channel: str = INCIDENT) -> Message:
    return next(message for message in at.slack.workspace.messages(channel) if message.thread_ts is None)


def thread(at: Sandbox, channel: str = INCIDENT) -> tuple[Message, ...]:
    return at.slack.workspace.messages(channel, card(at, channel).ts)[1:]


def buttons(at: Sandbox, channel: str = INCIDENT) -> Message:
    return thread(at, channel)[0]


def has_buttons(message: Message) -> bool:
    return '"actions"' in json.dumps(list(message.blocks))


def effects(at: Sandbox) -> list[str]:
    return [effect.action for effect in at.fleet.history]


async def audit(at: Sandbox) -> list[tuple[str, str]]:
    statement = text("SELECT name, actor FROM entries ORDER BY entry_id")
    rows = await at.bot.database.read(lambda connection: connection.execute(statement).all())
    return [(row.name, row.actor) for row in rows]


@contextlib.asynccontextmanager
async def incident(clock: Clock, **options: Any) -> AsyncIterator[tuple[Sandbox, Callable[[str], Person]]]:
    options = {"clock": clock, "sleep": clock.sleep, "slots": OpenSlots} | options
    async with httpx.AsyncClient(timeout=20) as http, sandbox(**options) as at:
        yield at, lambda user: Person(at, http, user)


@pytest.fixture
async def scene(clock: Clock) -> AsyncIterator[tuple[Sandbox, Callable[[str], Person]]]:
    async with incident(clock) as made:
        yield made


Scene = tuple[Sandbox, Callable[[str], Person]]


@pytest.mark.parametrize("is_socket_mode", [False, True], ids=["http", "socket"])
async def test_a_rollout_is_cancelled_from_the_command_to_the_last_line(
    clock: Clock, any_database_url: str, is_socket_mode: bool
) -> None:
    async with incident(clock, database_url=any_database_url, is_socket_mode=is_socket_mode) as (at, person):
        oncall = person("U0ONCALLA1")
        before = at.fleet.job(STATIC).counts(clock().timestamp())
        await oncall.types(f"cancel {STATIC} {BECAUSE}")
        assert effects(at) == []
        assert "waiting for a yes: Cancel" in card(at).text
        assert f"≈{before['QUEUED']} queued" in card(at).text
        assert BECAUSE.removeprefix("because ") in card(at).text
        assert has_buttons(buttons(at))

        await oncall.clicks()
        assert effects(at) == [TASKS]
        [effect] = at.fleet.history
        assert effect.params["CancelUnconfirmedTask"] == "true"
        assert "CancelInProgressTask" not in effect.params
        after = at.fleet.job(STATIC).counts(clock().timestamp())
        stopped = after["CANCELED"] - before["CANCELED"]
        assert stopped == effect.tasks > 200
        assert not has_buttons(buttons(at))
        final = channel_texts(at)[-1]
        assert final.startswith(f"Cancel {STATIC} on prod-shanghai:\n")
        assert f"topped {stopped}, " in final
        assert "stopped" in card(at).text
        assert effect.request_id in json.dumps(list(card(at).blocks))
        assert "That does not mean that devices stopped" in channel_texts(at)[-2]
        assert [name for name, _ in await audit(at)] == [
            "proposal:asked",
            "proposal:offered",
            "proposal:confirmed",
            "call:intended",
            "call:accepted",
            "proposal:ended",
        ]


async def test_halting_a_dynamic_rollout_cancels_its_strategy_and_then_its_tasks(scene: Scene) -> None:
    at, person = scene
    await person("U0ONCALLA1").types(f"halt {DYNAMIC} {BECAUSE}")
    await person("U0ONCALLA1").clicks()
    assert effects(at)[0] == STRATEGY
    said = "\n".join(message.text for message in thread(at))
    assert "accepted cancelling the strategy" in said


async def test_a_status_is_shown_to_the_asker_alone_with_every_number(scene: Scene, clock: Clock) -> None:
    at, person = scene
    await person("U0RELEASE1").types(f"status {STATIC}")
    told = person("U0RELEASE1").was_told()
    for state, count in at.fleet.job(STATIC).counts(clock().timestamp()).items():
        assert str(count) in told, state
    assert channel_texts(at) == []
    assert await audit(at) == [("read:shown", "U0RELEASE1")]


async def test_a_dry_run_shows_what_would_happen_and_leaves_no_trace_in_the_channel(scene: Scene) -> None:
    at, person = scene
    await person("U0RELEASE1").types(f"cancel {STATIC} --dry-run")
    assert "the policy denies it; nothing was sent" in person("U0RELEASE1").was_told()
    await person("U0ONCALLA1").types(f"cancel {STATIC} --dry-run")
    assert "the policy allows it; nothing was sent" in person("U0ONCALLA1").was_told()
    assert (channel_texts(at), effects(at)) == ([], [])


# Bad input: each gets a sentence that says what to do.


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("cancle X1", "Did you mean cancel?"),
        ("cancel", "Which job?"),
        ("", "What I can do:"),
        (f"cancel {STATIC} on prod-shangai", "Did you mean prod-shanghai?"),
        (f"cancel {STATIC} on prod-shanghai --in-progress", "this needs a reason"),
        ("cancel n0suchj0b", "there is no job n0suchj0b on prod-shanghai or staging-singapore"),
        ("cancel St4g1ngWe5Rt8Yu3Io7P01", "is on staging-singapore. If you mean that, pick it"),
        (f"cancel {FINISHED}", "already completed"),
    ],
)
async def test_what_cannot_be_done_is_answered_with_what_to_do(scene: Scene, typed: str, said: str) -> None:
    at, person = scene
    await person("U0ONCALLA1").types(typed)
    assert said in person("U0ONCALLA1").was_told()
    assert (channel_texts(at), effects(at)) == ([], [])


@pytest.mark.parametrize(
    ("user", "said"),
    [
        ("U0MEMBER01", "the policy does not allow job.cancel here for you"),
        ("U0RELEASE1", "Those who could: firmware-oncall"),
        ("U0GUEST0001", "guests may not use this"),
    ],
)
async def test_who_does_not_belong_is_refused_and_told_why(scene: Scene, user: str, said: str) -> None:
    at, person = scene
    await person(user).types(f"cancel {STATIC} on prod-shanghai")
    assert said in person(user).was_told()
    assert (channel_texts(at), effects(at)) == ([], [])
    assert (await audit(at))[-1] == ("ask:refused", user)


async def test_a_job_is_found_on_the_instance_that_knows_it(scene: Scene) -> None:
    at, person = scene
    await person("U0ONCALLA1").types("cancel St4g1ngWe5Rt8Yu3Io7P01", channel="C0GENERAL1")
    assert "on staging-singapore" in card(at, "C0GENERAL1").text


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault(FaultKind.REFUSE, code="InvalidAccessKeyId.NotFound", status=404), "access key"),
        (Fault(FaultKind.REFUSE, code="SignatureDoesNotMatch", status=400), "ecret"),
        (Fault(FaultKind.REFUSE, code="InvalidTimeStamp.Expired", status=400), "clock"),
        (Fault(FaultKind.REFUSE, code="Forbidden.RAM", status=403), "iot:"),
        (Fault(FaultKind.THROTTLE), "calls"),
        (Fault(FaultKind.DOWN), "Alibaba Cloud did not tell"),
        (Fault(FaultKind.HTML_PAGE), "Alibaba Cloud did not tell"),
    ],
)
async def test_trouble_at_the_cloud_is_explained_with_a_line_to_do_it_by_hand(
    scene: Scene, fault: Fault, said: str
) -> None:
    at, person = scene
    at.iot.state.faults.add(fault)
    await person("U0ONCALLA1").types(f"cancel {STATIC} {BECAUSE}")
    told = person("U0ONCALLA1").was_told()
    assert said in told
    assert "Nothing was changed" in told
    assert f"--JobId {STATIC}" in told
    assert (channel_texts(at), effects(at)) == ([], [])


async def test_a_cloud_that_cannot_be_reached_is_said_with_the_line_to_do_it_by_hand(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        server, "sandbox_settings", lambda folder, **given: sandbox_settings(folder, **given | {"iot_url": CLOSED})
    )
    async with incident(clock) as (_, person):
        await person("U0ONCALLA1").types(f"cancel {STATIC} {BECAUSE}")
        told = person("U0ONCALLA1").was_told()
        assert "cannot be reached at 127.0.0.1" in told
        assert f"--JobId {STATIC}" in told


async def test_a_clock_that_is_an_hour_off_is_named_with_its_mend(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        server, "create_iot_app", lambda fleet, now, **given: create_iot_app(fleet, now=lambda: now() + 3600, **given)
    )
    async with incident(clock) as (at, person):
        await person("U0ONCALLA1").types(f"cancel {STATIC} {BECAUSE}")
        told = person("U0ONCALLA1").was_told()
        assert "clock" in told
        assert "NTP" in told
        assert effects(at) == []


async def test_without_a_valid_policy_the_bot_runs_refuses_and_says_so(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "policy.yaml").write_text("rulez: []\n")
    monkeypatch.setattr("bot.sandbox.server.POLICIES", tmp_path)
    async with incident(clock) as (at, person):
        ready = (await person("U0ONCALLA1").http.get(f"{at.bot_url}/readyz")).json()
        assert ready == {"status": "not ready", "reasons": ["no valid policy: see otabrake policy check"]}
        await person("U0ONCALLA1").types(f"cancel {STATIC} {BECAUSE}")
        assert "there is no valid policy, so nothing is allowed" in person("U0ONCALLA1").was_told()
        assert effects(at) == []


async def test_a_database_that_cannot_be_written_is_said_at_once_and_the_bot_recovers(
    clock: Clock, any_database_url: str
) -> None:
    async with incident(clock, database_url=any_database_url) as (at, person):
        oncall = person("U0ONCALLA1")
        await oncall.types(f"cancel {STATIC} {BECAUSE}")
        await rename(at, "inbox", "gone")
        await oncall.types(f"halt {STATIC} {BECAUSE}")
        assert "my database cannot be written now" in oncall.was_told()
        await oncall.clicks()
        assert oncall.was_told().count("my database cannot be written now") == 2
        assert effects(at) == []
        await rename(at, "gone", "inbox")
        await oncall.clicks()
        assert effects(at) == [TASKS]


async def rename(at: Sandbox, name: str, other: str) -> None:
    await at.bot.database.run(lambda connection: connection.execute(text(f"ALTER TABLE {name} RENAME TO {other}")))


# The click is checked like the command.


async def test_a_second_click_does_nothing_and_its_sender_is_told(scene: Scene) -> None:
    at, person = scene
    await person("U0ONCALLA1").types(f"cancel {STATIC} {BECAUSE}")
    message = buttons(at)
    first, second = person("U0ONCALLA1"), person("U0ONCALLB2")
    await asyncio.gather(first.clicks_and_leaves("proposal.confirm"), second.clicks_and_leaves("proposal.confirm"))
    await settled(at)
    assert effects(at) == [TASKS]
    assert (
        "already confirmed" in first.was_told() + second.was_told()
        or "It is over" in first.was_told() + second.was_told()
    )
    assert message.ts == buttons(at).ts


async def test_copies_of_a_delivery_count_once(scene: Scene) -> None:
    at, person = scene
    await person("U0ONCALLA1").types(f"cancel {STATIC} {BECAUSE}", copies=3)
    roots = [message for message in at.slack.workspace.messages(INCIDENT) if message.thread_ts is None]
    assert len(roots) == 1
    told = await person("U0ONCALLA1").clicks(copies=3)
    assert [copy["status"] for copy in told["copies"]] == [200, 200, 200]
    assert effects(at) == [TASKS]


@pytest.mark.parametrize(
    ("user", "said"), [("U0MEMBER01", "does not allow it for you"), ("U0GUEST0001", "guests may not")]
)
async def test_a_click_of_somebody_else_does_not_count_and_leaves_the_card_usable(
    scene: Scene, user: str, said: str
) -> None:
    at, person = scene
    await person("U0ONCALLA1").types(f"cancel {STATIC} {BECAUSE}")
    await person(user).clicks()
    assert said in person(user).was_told()
    assert effects(at) == []
    await person("U0ONCALLB2").clicks()
    assert effects(at) == [TASKS]


async def test_a_dismissed_proposal_sends_nothing_and_has_no_buttons(scene: Scene) -> None:
    at, person = scene
    await person("U0ONCALLA1").types(f"cancel {STATIC} {BECAUSE}")
    await person("U0MEMBER01").clicks("proposal.dismiss")
    assert "may dismiss this" in person("U0MEMBER01").was_told()
    assert has_buttons(buttons(at))
    await person("U0ONCALLB2").clicks("proposal.dismiss")
    assert "dismissed" in card(at).text
    assert "Will not start" not in card(at).text
    assert "dismissed by <@U0ONCALLB2>" in json.dumps(list(card(at).blocks))
    assert not has_buttons(buttons(at))
    assert effects(at) == []


async def test_an_expired_offer_does_not_count_and_loses_its_buttons(scene: Scene, clock: Clock) -> None:
    at, person = scene
    await person("U0ONCALLA1").types(f"cancel {STATIC} {BECAUSE}")
    clock.pass_by(901)
    await person("U0ONCALLA1").clicks()
    assert "expired" in person("U0ONCALLA1").was_told()
    assert "expired" in card(at).text
    assert not has_buttons(buttons(at))
    assert effects(at) == []


async def test_a_pending_card_is_expired_by_the_sweep_without_a_click(scene: Scene, clock: Clock) -> None:
    at, person = scene
    await person("U0ONCALLA1").types(f"cancel {STATIC} {BECAUSE}")
    clock.pass_by(901)
    await at.bot.road.sweep_once()
    await settled(at)
    assert not has_buttons(buttons(at))


async def test_the_same_ask_again_makes_no_second_card(scene: Scene) -> None:
    at, person = scene
    await person("U0ONCALLA1").types(f"cancel {STATIC} {BECAUSE}")
    await person("U0ONCALLB2").types(f"cancel {STATIC} because me too")
    assert "already waiting" in person("U0ONCALLB2").was_told()
    assert len([message for message in at.slack.workspace.messages(INCIDENT) if message.thread_ts is None]) == 1


async def test_a_rollout_that_changed_is_offered_anew_and_the_old_yes_does_not_count(
    scene: Scene, clock: Clock
) -> None:
    at, person = scene
    clock.pass_by(1000)
    await person("U0ONCALLA1").types(f"cancel {SCHEDULED} {BECAUSE}")
    assert "scheduled" in buttons(at).text
    clock.pass_by(850)
    await person("U0ONCALLA1").clicks()
    assert effects(at) == []
    said = "\n".join(message.text for message in thread(at))
    assert "The rollout was planned, it is now in progress." in said
    assert has_buttons(buttons(at))
    await person("U0ONCALLA1").clicks()
    assert effects(at) == [TASKS]


async def test_a_button_of_an_older_offer_is_out_of_date(scene: Scene, clock: Clock) -> None:
    at, person = scene
    clock.pass_by(1000)
    await person("U0ONCALLA1").types(f"cancel {SCHEDULED} {BECAUSE}")
    clock.pass_by(850)
    old = buttons(at)
    await person("U0ONCALLA1").clicks()
    at.slack.workspace.change(buttons(at), blocks=old.blocks)
    await person("U0ONCALLB2").clicks()
    assert "out of date" in person("U0ONCALLB2").was_told()
    assert effects(at) == []


async def test_a_rollout_that_ended_before_the_click_is_not_called(scene: Scene, clock: Clock) -> None:
    at, person = scene
    await person("U0ONCALLA1").types(f"cancel {STATIC} --queued {BECAUSE}")
    at.fleet.cancel_tasks(STATIC, {"CancelQueuedTask": True}, request_id="BY-HAND")
    await person("U0ONCALLA1").clicks()
    assert [effect.request_id for effect in at.fleet.history] == ["BY-HAND"]
    assert "nothing to stop" in card(at).text


# Calls whose answer is lost.


async def test_an_answer_that_is_lost_after_it_happened_is_found_out_and_nothing_happens_twice(scene: Scene) -> None:
    at, person = scene
    at.iot.state.faults.add(Fault(FaultKind.ACCEPT_THEN_CLOSE, action=TASKS, calls=1))
    await person("U0ONCALLA1").types(f"cancel {STATIC} {BECAUSE}")
    await person("U0ONCALLA1").clicks()
    assert effects(at) == [TASKS]
    said = "\n".join(message.text for message in thread(at))
    assert "Whether it arrived is not known yet" in said
    assert "it refused a second copy of it" in said
    assert "topped " in channel_texts(at)[-1]


async def test_a_call_that_is_throttled_is_made_again_and_happens_once(scene: Scene) -> None:
    at, person = scene
    at.iot.state.faults.add(Fault(FaultKind.THROTTLE, action=TASKS, calls=2))
    await person("U0ONCALLA1").types(f"cancel {STATIC} {BECAUSE}")
    await person("U0ONCALLA1").clicks()
    assert effects(at) == [TASKS]
    assert "topped " in channel_texts(at)[-1]
    assert [name for name, _ in await audit(at)].count("call:intended") == 3


async def test_a_refused_call_is_said_in_the_channel_with_its_request_id(scene: Scene) -> None:
    at, person = scene
    at.iot.state.faults.add(Fault(FaultKind.REFUSE, action=TASKS, code="Forbidden.RAM", status=403))
    await person("U0ONCALLA1").types(f"cancel {STATIC} {BECAUSE}")
    await person("U0ONCALLA1").clicks()
    assert effects(at) == []
    final = channel_texts(at)[-1]
    assert "The cloud refused cancelling the tasks" in final
    assert "Reference: " in final
    assert "refused by the cloud" in card(at).text


async def test_a_cloud_that_stays_silent_ends_as_unknown_and_never_as_done(scene: Scene) -> None:
    at, person = scene
    await person("U0ONCALLA1").types(f"cancel {STATIC} {BECAUSE}")
    at.iot.state.faults.add(Fault(FaultKind.HTML_PAGE, action=TASKS))
    await person("U0ONCALLA1").clicks()
    assert effects(at) == []
    assert "outcome unknown" in card(at).text
    assert "Unknown: the call may or may not have arrived" in channel_texts(at)[-1]
    assert [name for name, _ in await audit(at)].count("call:intended") == 3


# Crashes: everything goes on from its row.


async def test_what_was_received_before_a_crash_is_answered_after_the_restart(
    clock: Clock, any_database_url: str
) -> None:
    async with incident(clock, database_url=any_database_url) as (at, person):
        at.bot.road.is_taking_work = False
        await person("U0ONCALLA1").types(f"cancel {STATIC} {BECAUSE}")
        assert channel_texts(at) == []
        at.bot.road.is_taking_work = True
        await at.bot.road.sweep_once()
        await settled(at)
        assert has_buttons(buttons(at))
        at.bot.road.is_taking_work = False
        await person("U0ONCALLA1").clicks()
        assert effects(at) == []
        at.bot.road.is_taking_work = True
        await at.bot.road.sweep_once()
        await settled(at)
        assert effects(at) == [TASKS]


async def test_a_post_that_slack_does_not_take_at_once_is_delivered_later_and_once(scene: Scene) -> None:
    at, person = scene
    at.slack.faults.append(SlackFault(method="chat.postMessage", error="ratelimited", status=429, retry_after=1))
    at.slack.faults.append(SlackFault(method="chat.postMessage", status=500, times=2))
    await person("U0ONCALLA1").types(f"cancel {STATIC} {BECAUSE}")
    for _ in range(4):
        await settled(at)
    assert has_buttons(buttons(at))
    assert len([message for message in at.slack.workspace.messages(INCIDENT) if message.thread_ts is None]) == 1


async def test_a_card_that_cannot_stand_where_it_was_asked_goes_to_the_instances_channel(scene: Scene) -> None:
    at, person = scene
    await person("U0ONCALLA1").types(f"cancel {STATIC} on prod-shanghai {BECAUSE}", channel="C0NEWINC01")
    assert has_buttons(buttons(at, INCIDENT))


async def test_a_card_that_no_channel_takes_stands_in_a_direct_message(scene: Scene) -> None:
    at, person = scene
    await person("U0ONCALLA1").types("cancel St4g1ngWe5Rt8Yu3Io7P01 on staging-singapore", channel="C0NEWINC01")
    assert "the card stands in our direct messages" in person("U0ONCALLA1").was_told()
    assert has_buttons(buttons(at, "D0ONCALLA1"))
    await person("U0ONCALLA1").clicks(channel="D0ONCALLA1")
    assert "Stopped" in "\n".join(message.text for message in at.slack.workspace.messages("D0ONCALLA1"))


async def test_a_card_that_can_stand_nowhere_ends_its_proposal_and_the_asker_is_told(scene: Scene) -> None:
    at, person = scene
    at.slack.faults.append(SlackFault(method="conversations.open", error="missing_scope"))
    await person("U0ONCALLA1").types("cancel St4g1ngWe5Rt8Yu3Io7P01 on staging-singapore", channel="C0NEWINC01")
    assert "I cannot post the card in this channel (not_in_channel)" in person("U0ONCALLA1").was_told()
    assert ("proposal:ended", "otabrake") in await audit(at)
    await person("U0ONCALLA1").types("cancel St4g1ngWe5Rt8Yu3Io7P01", channel="C0GENERAL1")
    assert has_buttons(buttons(at, "C0GENERAL1"))


async def test_two_minutes_without_slack_lose_nothing(scene: Scene) -> None:
    at, person = scene
    at.slack.faults.append(SlackFault(method="chat.postMessage", status=503, times=20))
    await person("U0ONCALLA1").types(f"cancel {STATIC} {BECAUSE}")
    for _ in range(12):
        await settled(at)
    assert has_buttons(buttons(at))


async def test_a_user_group_that_is_gone_locks_nobody_out(scene: Scene) -> None:
    at, person = scene
    del at.slack.workspace.usergroups["S0614TZAA"]
    await person("U0ONCALLA1").types(f"cancel {STATIC} {BECAUSE}")
    assert has_buttons(buttons(at))


@pytest.mark.parametrize(
    "bent",
    [
        {"actions": []},
        {"actions": "x"},
        {"actions": [{"action_id": ["x"], "value": "1"}]},
        {"channel": ["C1"]},
        {"user": ["U1"]},
        {"type": "view_submission", "view": {}},
        {"type": "event_callback", "event": "x"},
        {"authorizations": "x"},
        {"response_url": "https://[bad"},
    ],
)
async def test_genuine_but_malformed_deliveries_are_answered_and_hurt_nothing(
    scene: Scene, clock: Clock, bent: dict[str, Any]
) -> None:
    at, person = scene
    body = {
        "type": "block_actions",
        "api_app_id": "A0OTABRAKE",
        "team": {"id": "T0SANDBOX1"},
        "user": {"id": "U0ONCALLA1", "team_id": "T0SANDBOX1"},
        "trigger_id": json.dumps(bent),
        "actions": [{"action_id": "proposal.confirm", "value": "f" * 32, "type": "button"}],
    }
    raw = urlencode({"payload": json.dumps(body | bent)})
    now = str(int(clock().timestamp()))
    signature = SignatureVerifier(server.SIGNING_SECRET).generate_signature(timestamp=now, body=raw)
    headers = {
        "content-type": "application/x-www-form-urlencoded",
        "x-slack-request-timestamp": now,
        "x-slack-signature": signature or "",
    }
    answer = await person("U0ONCALLA1").http.post(f"{at.bot_url}/slack/events", content=raw, headers=headers)
    assert answer.status_code in (200, 400, 403)
    await settled(at)
    await person("U0ONCALLA1").types(f"cancel {STATIC} {BECAUSE}")
    assert has_buttons(buttons(at))


async def test_people_slack_does_not_tell_about_are_not_let_in(scene: Scene) -> None:
    at, person = scene
    at.slack.faults.append(SlackFault(method="users.info", status=500, times=9))
    await person("U0ONCALLA1").types(f"cancel {STATIC} {BECAUSE}")
    told = person("U0ONCALLA1").was_told()
    assert "Slack did not tell me who you are" in told
    assert f"--JobId {STATIC}" in told
    assert effects(at) == []


async def test_the_clock_of_the_scene_is_the_bots(scene: Scene, clock: Clock) -> None:
    at, person = scene
    await person("U0ONCALLA1").types(f"cancel {STATIC} {BECAUSE}")
    assert isinstance(clock.at, datetime)
    assert f"{clock.at + timedelta(minutes=15):%H:%M}" in buttons(at).text

"""What the fake Slack does to an outbox: its pace, faults of one channel, links to messages, archived channels."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest

from bot.sandbox.slack import FakeSlack, create_slack_app
from bot.sandbox.workspace import load_workspace

INCIDENT, OTHER = "C0INCIDENT", "C0GENERAL1"


@dataclass
class Caller:
    client: httpx.AsyncClient
    slack: FakeSlack
    at: float = 1_712_345_678.0

    async def __call__(self, method: str, **arguments: Any) -> httpx.Response:
        headers = {"Authorization": "Bearer xoxb-1"}
        return await self.client.post(f"/api/{method}", json=arguments, headers=headers)

    async def post(self, channel: str = INCIDENT, **bent: Any) -> httpx.Response:
        return await self("chat.postMessage", channel=channel, text="x", **bent)

    async def told(self, **faults: Any) -> int:
        return (await self.client.post("/_sandbox/faults", json=faults)).status_code


@pytest.fixture
async def call() -> AsyncIterator[Caller]:
    app = create_slack_app(
        load_workspace(), signing_secret="s", bot_token="xoxb-1", app_token="xapp-1", now=lambda: caller.at
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://slack") as client:
        caller = Caller(client, app.state.slack)
        yield caller


async def test_a_channel_takes_a_burst_and_then_one_post_in_so_many_seconds(call: Caller) -> None:
    await call.told(pace={"burst": 2, "seconds": 2.5})
    answers = [await call.post() for _ in range(3)]
    said = [(one.status_code, one.headers.get("Retry-After")) for one in answers]
    assert said == [(200, None), (200, None), (429, "3")]
    assert answers[2].json() == {"ok": False, "error": "ratelimited"}
    assert (await call.post(OTHER)).status_code == 200
    call.at += 2.5
    assert [(await call.post()).status_code for _ in range(2)] == [200, 429]
    assert len(call.slack.workspace.messages(INCIDENT)) == 3
    await call.told(pace=None)
    assert (await call.post()).status_code == 200


@pytest.mark.parametrize("wrong", [{}, {"burst": 0, "seconds": 1}, {"burst": 1, "seconds": 0}, {"burst": "x"}, 5])
async def test_a_pace_that_is_none_is_refused(call: Caller, wrong: object) -> None:
    assert await call.told(pace=wrong) == 400
    assert call.slack.pace is None


async def test_a_fault_of_one_channel_meets_calls_for_that_channel_alone(call: Caller) -> None:
    await call.told(method="chat.postMessage", error="restricted_action", times=2, channel=OTHER)
    errors = [(await call.post(channel)).json().get("error") for channel in (INCIDENT, OTHER, INCIDENT, OTHER, OTHER)]
    assert errors == [None, "restricted_action", None, "restricted_action", None]


async def test_a_link_leads_to_a_message_or_into_its_thread(call: Caller) -> None:
    root = (await call.post()).json()["ts"]
    reply = (await call.post(thread_ts=root)).json()["ts"]
    links = [(await call("chat.getPermalink", channel=INCIDENT, message_ts=ts)).json() for ts in (root, reply)]
    path = f"https://sandbox.slack.com/archives/{INCIDENT}/p"
    assert links[0] == {"ok": True, "channel": INCIDENT, "permalink": path + root.replace(".", "")}
    assert links[1]["permalink"] == f"{path}{reply.replace('.', '')}?thread_ts={root}&cid={INCIDENT}"


@pytest.mark.parametrize(("channel", "error"), [(INCIDENT, "message_not_found"), ("C0PRIVATE1", "channel_not_found")])
async def test_there_is_no_link_to_what_the_app_cannot_see(call: Caller, channel: str, error: str) -> None:
    told = await call("chat.postEphemeral", channel=INCIDENT, user="U0ONCALLA1", text="psst")
    answer = await call("chat.getPermalink", channel=channel, message_ts=told.json()["message_ts"])
    assert answer.json()["error"] == error


async def test_in_an_archived_channel_nothing_is_posted_and_nothing_changed(call: Caller) -> None:
    ts = (await call.post()).json()["ts"]
    workspace = call.slack.workspace
    workspace.put_channel(replace(workspace.channels[INCIDENT], is_archived=True))
    assert (await call.post()).json()["error"] == "is_archived"
    update = await call("chat.update", channel=INCIDENT, ts=ts, text="y")
    assert update.json()["error"] == "is_inactive"

"""`/healthz` and `/readyz`: what stops a process from being sent to, and what only somebody should look at."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from bot.alibaba.budget import Budget
from bot.alibaba.client import open_http
from bot.alibaba.cloud import Cloud
from bot.alibaba.credentials import Credentials
from bot.alibaba.key_sources import StaticKey
from bot.health import Health
from bot.model import Instance
from bot.sandbox.slack_fake import Fault as SlackFault
from bot.storage.census import Census
from bot.storage.tables import SCHEMA
from tests.conftest import Clock
from tests.serving import eventually
from tests.slots import OpenSlots
from tests.test_app import BECAUSE, INCIDENT, STATIC, incident
from tests.values import AT

KEY = StaticKey(Credentials("testid", "testsecret"))
POLICY = "no valid policy: see otabrake policy check"


class Seen:
    """A `DatabaseWatch` that saw what the test says."""

    def __init__(self, census: Census | None, *, can_write: bool = True) -> None:
        self._census = census
        self._can_write = can_write
        self.looks = 0

    async def census(self) -> Census | None:
        self.looks += 1
        return self._census

    async def can_write(self) -> bool:
        self.looks += 1
        return self._can_write


WELL = Census(SCHEMA)


async def no() -> bool:
    return False


async def yes() -> bool:
    return True


def health(census: Census | None = WELL, *, can_write: bool = True, **bent: Any) -> Health:
    made = Health(
        Seen(census, can_write=can_write),
        clock=lambda: AT,
        has_policy=lambda: True,
        is_draining=lambda: False,
        is_socket_alive=yes,
    )
    return replace(made, **bent)


async def get(what: Health, path: str = "/readyz") -> tuple[int, dict[str, Any]]:
    transport = httpx.ASGITransport(Starlette(routes=what.routes()))
    async with httpx.AsyncClient(transport=transport, base_url="http://bot") as http:
        answer = await http.get(path)
    return answer.status_code, answer.json()


def owed(seconds: float, number: int = 3) -> Census:
    return Census(SCHEMA, owed=number, owed_since=AT - timedelta(seconds=seconds))


async def test_nothing_wrong_is_ready() -> None:
    assert await get(health()) == (200, {"status": "ready", "reasons": []})


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (health(is_draining=lambda: True), "shutting down"),
        (health(has_policy=lambda: False), POLICY),
        (health(None), "the database does not answer"),
        (health(Census("0003")), f"the database is at revision 0003, not {SCHEMA}"),
        (health(Census(None)), f"the database is at revision None, not {SCHEMA}"),
        (health(can_write=False), "the database cannot be written"),
        (health(is_socket_alive=no), "the Socket Mode connection is down"),
    ],
)
async def test_what_no_request_should_be_sent_to_is_not_ready(what: Health, reason: str) -> None:
    assert await get(what) == (503, {"status": "not ready", "reasons": [reason]})


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (health(keys_missing=lambda: ["prod"]), "there is no access key for prod: the log says why"),
        (
            health(policy_refused=lambda: True),
            "the policy on disk was refused, the last good one is used: see otabrake policy check",
        ),
        (health(owed(61)), "Slack does not take what is owed to people: 3 posts, for 61 s"),
        (health(discovery_behind=lambda: ["prod"]), "discovery is behind on prod: lists may be old"),
    ],
)
async def test_what_people_are_served_without_is_degraded(what: Health, reason: str) -> None:
    assert await get(what) == (200, {"status": "degraded", "reasons": [reason]})


async def test_a_post_that_is_owed_for_a_moment_is_no_reason() -> None:
    assert (await get(health(owed(59))))[1]["status"] == "ready"


async def test_every_reason_is_told_at_once_and_the_worst_first() -> None:
    what = health(
        None,
        is_draining=lambda: True,
        has_policy=lambda: False,
        policy_refused=lambda: True,
        is_socket_alive=no,
        keys_missing=lambda: ["prod"],
    )
    status, body = await get(what)
    assert (status, body["status"]) == (503, "not ready")
    assert body["reasons"] == [
        "shutting down",
        POLICY,
        "the database does not answer",
        "the Socket Mode connection is down",
        "there is no access key for prod: the log says why",
    ]


async def test_healthz_says_only_that_it_answers_and_looks_at_nothing() -> None:
    what = health(None, is_draining=lambda: True)
    assert await get(what, "/healthz") == (200, {"status": "ok"})
    assert what.watch.looks == 0  # type: ignore[attr-defined]


# The whole bot.


async def readiness(url: str) -> tuple[int, dict[str, Any]]:
    async with httpx.AsyncClient() as http:
        answer = await http.get(f"{url}/readyz", timeout=5)
    return answer.status_code, answer.json()


@pytest.mark.parametrize("is_socket_mode", [False, True], ids=["http", "socket"])
async def test_a_running_bot_is_ready_until_it_drains(clock: Clock, is_socket_mode: bool) -> None:
    async with incident(clock, is_socket_mode=is_socket_mode) as (at, _):
        assert await readiness(at.bot_url) == (200, {"status": "ready", "reasons": []})
        at.bot.is_draining = True
        assert await readiness(at.bot_url) == (503, {"status": "not ready", "reasons": ["shutting down"]})


async def test_a_slack_that_takes_no_posts_is_told_after_a_minute(clock: Clock) -> None:
    async with incident(clock, sleep=forever) as (at, person):
        at.slack.faults.append(SlackFault(method="chat.postMessage", status=503, times=1))
        await person("U0ONCALLA1")._does("command", channel=INCIDENT, text=f"/ota cancel {STATIC} {BECAUSE}")
        await at.bot.road.drain()
        clock.pass_by(75)

        async def is_told() -> bool:  # what was seen is kept for two seconds
            return bool((await readiness(at.bot_url))[1]["reasons"])

        await eventually(is_told)
        status, body = await readiness(at.bot_url)
        assert (status, body["status"]) == (200, "degraded")
        assert body["reasons"][0].startswith("Slack does not take what is owed to people: ")
        assert body["reasons"][0].endswith(" for 75 s")


async def forever(seconds: float) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(("keys", "missing"), [({}, ("prod-shanghai",)), ({"prod-shanghai": KEY}, ())])
async def test_an_instance_without_a_key_is_named(keys: dict[str, StaticKey], missing: tuple[str, ...]) -> None:
    instances = {"prod-shanghai": Instance("prod-shanghai", "cn-shanghai")}
    async with open_http() as http, Budget(OpenSlots(None)) as budget:
        cloud = Cloud(instances, keys=keys, http=http, budget=budget, now=lambda: AT, new_nonce=lambda: "n")
        assert cloud.without_key() == missing

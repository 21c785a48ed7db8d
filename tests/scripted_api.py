"""The cloud as a script: what it answers, action by action, and what it was asked. And a `Cloud` that asks it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

import httpx

from bot.alibaba.budget import Budget
from bot.alibaba.cloud import Cloud
from bot.alibaba.credentials import Credentials
from bot.alibaba.key_sources import KeySource, StaticKey
from bot.model import Instance
from tests.conftest import Clock
from tests.slots import OpenSlots

INSTANCES = {
    "prod": Instance("prod", "cn-shanghai", instance_id="iot-cn-0pp1n8t0001", account="one"),
    "old": Instance("old", "eu-central-1", account="two", signature="v1"),
    "keyless": Instance("keyless", "cn-shanghai"),
    "lost": Instance("lost", "cn-atlantis"),
}
KEY = StaticKey(Credentials("testid", "testsecret"))
OK: dict[str, Any] = {"RequestId": "AB-1", "Success": True}
JOB = {"JobId": "j1", "JobStatus": "IN_PROGRESS", "SelectionType": "STATIC", "JobType": "UPGRADE_FIRMWARE"}

Answer = dict[str, Any] | Exception


class Api:
    """Answers with the next of the script, then with what stands. Counts how many calls are under way at once."""

    def __init__(self) -> None:
        self.asked: list[httpx.Request] = []
        self.script: list[Answer] = []
        self.standing: Callable[[httpx.Request], Answer] = lambda request: {**OK, "Data": JOB, "Total": 3}
        self.most_at_once = 0
        self._at_once = 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        await asyncio.sleep(0)
        self._at_once -= 1
        answer = self.script.pop(0) if self.script else self.standing(request)
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(400 if "Message" in answer else 200, content=json.dumps(answer))

    @property
    def action(self) -> str:
        return self.asked[-1].headers["x-acs-action"]

    @property
    def params(self) -> dict[str, str]:
        return dict(self.asked[-1].url.params)

    @property
    def nonces(self) -> list[str]:
        return [request.headers["x-acs-signature-nonce"] for request in self.asked]

    def asked_for(self, param: str) -> list[str | None]:
        """The values of one parameter, call by call."""
        return [request.url.params.get(param) for request in self.asked]


def make_keys() -> dict[str, KeySource]:
    return dict.fromkeys(("prod", "old", "lost"), KEY)


def make_cloud(
    http: httpx.AsyncClient,
    clock: Clock,
    *,
    keys: Mapping[str, KeySource] | None = None,
    budget: Budget | None = None,
    instances: Mapping[str, Instance] = INSTANCES,
) -> Cloud:
    numbers = count(1)
    return Cloud(
        instances,
        keys=make_keys() if keys is None else keys,
        http=http,
        budget=budget or Budget(OpenSlots()),
        now=clock,
        new_nonce=lambda: f"nonce-{next(numbers)}",
    )

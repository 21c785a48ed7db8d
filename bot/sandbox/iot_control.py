"""How tests, benchmarks and the page drive the simulated service: the `/_sandbox/` endpoints.

Whoever reaches them may set faults and habits, so keep them on this machine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bot.sandbox.fleet import Fleet
from bot.sandbox.iot_calls import Calls
from bot.sandbox.iot_faults import Fault, Faults
from bot.sandbox.questions import QUESTIONS, changed_habits, habits_as_json

_MOST_BYTES = 1_000_000


class Control:
    """Shows and changes what stands behind the service."""

    def __init__(self, fleet: Fleet, faults: Faults, calls: Calls) -> None:
        self._fleet = fleet
        self._faults = faults
        self._calls = calls
        self._first_habits = fleet.habits

    def routes(self) -> list[Route]:
        return [
            Route("/_sandbox/faults", self._show_or_set_faults, methods=["GET", "POST", "DELETE"]),
            Route("/_sandbox/habits", self._show_or_set_habits, methods=["GET", "POST", "DELETE"]),
            Route("/_sandbox/calls", self._show_calls, methods=["GET", "DELETE"]),
            Route("/_sandbox/fleet", self._show_fleet),
            Route("/_sandbox/effects", self._show_effects),
        ]

    async def _show_or_set_faults(self, request: Request) -> Response:
        if request.method == "DELETE":
            self._faults.clear()
        if request.method == "POST":
            try:
                self._faults.add(Fault.from_json(await _object(request)))
            except (ValueError, RecursionError) as error:
                return JSONResponse({"error": str(error)}, status_code=400)
        return JSONResponse({"faults": [asdict(fault) for fault in self._faults.standing]})

    async def _show_or_set_habits(self, request: Request) -> Response:
        """POST takes the habits that are to change, DELETE sets those of the start again."""
        if request.method == "DELETE":
            self._fleet.habits = self._first_habits
        if request.method == "POST":
            try:
                self._fleet.habits = changed_habits(self._fleet.habits, await _object(request))
            except (ValueError, RecursionError) as error:
                return JSONResponse({"error": str(error)}, status_code=400)
        questions = [{**asdict(question), "default": question.default} for question in QUESTIONS]
        return JSONResponse({"habits": habits_as_json(self._fleet.habits), "questions": questions})

    async def _show_calls(self, request: Request) -> Response:
        if request.method == "DELETE":
            self._calls.clear()
        return JSONResponse({"calls": self._calls.as_json()})

    async def _show_fleet(self, request: Request) -> Response:
        now = self._fleet.now()
        jobs = [
            {
                "job_id": rollout.facts.job_id,
                "instance": self._fleet.instances[rollout.facts.instance_id].name,
                "instance_id": rollout.facts.instance_id,
                "product_key": rollout.facts.product_key,
                "firmware": self._fleet.firmwares[rollout.facts.firmware_id].name,
                "kind": rollout.facts.kind.value,
                "description": rollout.facts.description,
                "state": rollout.state(now).value,
                "counts": rollout.counts(now),
            }
            for rollout in self._fleet.rollouts.values()
        ]
        return JSONResponse({"now": now, "jobs": jobs})

    async def _show_effects(self, request: Request) -> Response:
        return JSONResponse({"effects": [asdict(effect) for effect in self._fleet.history]})


async def body_of(request: Request) -> bytes:
    """The body, of which what is too long to be a call is not kept."""
    chunks = bytearray()
    async for chunk in request.stream():
        chunks += chunk[: _MOST_BYTES - len(chunks)]
    return bytes(chunks)


async def _object(request: Request) -> Mapping[str, Any]:
    """The JSON object of a request. Raises ValueError with a sentence."""
    fields = json.loads(await body_of(request))
    if not isinstance(fields, dict):
        raise ValueError("what is sent here is an object")
    return fields

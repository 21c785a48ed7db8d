"""The IoT simulator: a Starlette app that takes signed calls like the real service, for any SDK.

It puts the gateway, the fleet's answers and the faults together, and writes JSON or XML. An error of the service
(`RequestId, Success, Code, ErrorMessage`) has the status of the habit `error_status`: the documents admit 200 and 400,
and 200 is the default because it is the one that clients get wrong. An error of the gateway (`RequestId, HostId, Code,
Message, Recommend`) has its own status. No input gives a 500. It speaks plain HTTP and listens nowhere by itself:
uvicorn does. `/_sandbox/` is described in `iot_control`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from importlib import resources
from typing import Any
from uuid import uuid4

import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bot.sandbox.fleet import Fleet
from bot.sandbox.habits import EmptyRows
from bot.sandbox.inventory import FleetRefusal
from bot.sandbox.iot_answers import OFFERED, answer
from bot.sandbox.iot_asked import Asked
from bot.sandbox.iot_broken import BREAKING, MISSING, proxy_page
from bot.sandbox.iot_calls import Calls
from bot.sandbox.iot_control import Control, body_of
from bot.sandbox.iot_faults import FaultKind, Faults
from bot.sandbox.iot_gateway import VERSION, Gateway, GatewayRefusal, Received, action_of, missing_parameter
from bot.sandbox.iot_rendering import refused, written

_METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"]


def load_seed() -> Mapping[str, Any]:
    """The fleet that the sandbox starts with, as `Fleet.from_seed` takes it."""
    text = resources.files("bot.sandbox").joinpath("seed_fleet.yaml").read_text(encoding="utf-8")
    loaded: Mapping[str, Any] = yaml.safe_load(text)
    return loaded


def _new_request_id() -> str:
    return str(uuid4()).upper()


def create_iot_app(
    fleet: Fleet,
    *,
    now: Callable[[], float],
    keys: Mapping[str, str] | None = None,
    tokens: Mapping[str, str] | None = None,
    business_error_status: int | None = None,
    is_throttling: bool = True,
    empty_rows: str | None = None,
    hang_seconds: float = 60.0,
    seed: int = 1,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    monotonic: Callable[[], float] = time.monotonic,
    new_request_id: Callable[[], str] = _new_request_id,
) -> Starlette:
    """The simulator of `fleet`. `app.state` has the `fleet`, its `faults`, and the `calls` as they arrived.

    `keys` maps access key ids to secrets (default: testid, testsecret), `tokens` those ids that are temporary to their
    STS token. `now` is the clock of the gateway, in seconds since the epoch, `monotonic` that of arrivals.
    `business_error_status` and `empty_rows` set the habits `error_status` and `empty_rows` of the fleet. A call that
    hangs is answered 504 after `hang_seconds`, if the caller still waits. `seed` is that of jitter.
    """
    if business_error_status is not None:
        fleet.habits = replace(fleet.habits, error_status=business_error_status)
    if empty_rows is not None:
        fleet.habits = replace(fleet.habits, empty_rows=EmptyRows(empty_rows))
    faults, calls = Faults(seed=seed), Calls()
    gateway = Gateway(
        keys={"testid": "testsecret"} if keys is None else keys,
        tokens=tokens or {},
        now=now,
        limits={name: offered.calls_per_second for name, offered in OFFERED.items()} if is_throttling else {},
        habits=lambda: fleet.habits,
    )
    simulator = _Simulator(
        fleet=fleet,
        gateway=gateway,
        faults=faults,
        calls=calls,
        hang_seconds=hang_seconds,
        sleep=sleep,
        monotonic=monotonic,
        new_request_id=new_request_id,
    )
    routes = [*Control(fleet, faults, calls).routes(), Route("/{path:path}", simulator.serve, methods=_METHODS)]
    app = Starlette(routes=routes)
    app.state.faults = faults
    app.state.fleet = fleet
    app.state.calls = calls
    return app


class _Simulator:
    def __init__(
        self,
        *,
        fleet: Fleet,
        gateway: Gateway,
        faults: Faults,
        calls: Calls,
        hang_seconds: float,
        sleep: Callable[[float], Awaitable[None]],
        monotonic: Callable[[], float],
        new_request_id: Callable[[], str],
    ) -> None:
        self._fleet = fleet
        self._gateway = gateway
        self._faults = faults
        self._calls = calls
        self._hang_seconds = hang_seconds
        self._sleep = sleep
        self._monotonic = monotonic
        self._new_request_id = new_request_id

    async def serve(self, request: Request) -> Response:
        """One call, from the wire to the answer."""
        arrived_at, request_id = self._monotonic(), self._new_request_id()
        received = Received(
            method=request.method,
            path=request.scope.get("raw_path", b"/").decode("latin-1").partition("?")[0],
            query_string=request.scope["query_string"].decode("latin-1"),
            headers=dict(reversed(request.headers.items())),
            body=await body_of(request),
        )
        action = "Error"
        try:
            action = self._known_action(received)
            self._calls.note(action, arrived_at)
            return await self._serve(request, received, action, request_id)
        except (GatewayRefusal, FleetRefusal) as refusal:
            return refused(received, self._root(action), request_id, refusal, habits=self._fleet.habits)

    async def _serve(self, request: Request, received: Received, action: str, request_id: str) -> Response:
        if fault := self._faults.take(FaultKind.LATENCY, action):
            await self._sleep(self._faults.delay(fault))
        if fault := self._faults.take(FaultKind.HTML_PAGE, action):
            return proxy_page(fault)
        if self._faults.take(FaultKind.LOST_THEN_TIMEOUT, action):
            return await self._hang(request)
        self._refuse_by_fault(FaultKind.DOWN, action)
        body = self._carried_out(received, action, request_id)
        if self._faults.take(FaultKind.ACCEPT_THEN_TIMEOUT, action):
            return await self._hang(request)
        if fault := self._faults.take(FaultKind.ACCEPT_THEN_HTML, action):
            return proxy_page(fault)
        self._refuse_by_fault(FaultKind.ACCEPT_THEN_ERROR, action)
        for kind, name in MISSING.items():
            if self._faults.take(kind, action):
                body.pop(name, None)
        response = written(received, self._root(action), body, status=200)
        for kind, breaking in BREAKING.items():
            if self._faults.take(kind, action):
                return breaking(response)
        return response

    def _carried_out(self, received: Received, action: str, request_id: str) -> dict[str, Any]:
        """The fields of a success, after it took effect. Raises a refusal of the gateway or of the service."""
        habits, params = self._fleet.habits, received.params
        nonce = self._gateway.admit(received, action)
        keeps_nonce = habits.throttled_burns_nonce
        try:
            self._refuse_by_fault(FaultKind.THROTTLE, action)
            keeps_nonce = habits.refused_burns_nonce
            self._refuse_by_fault(FaultKind.REFUSE, action)
            asked = Asked(self._fleet, params, request_id, self._instance(params))
            code = {"Code": habits.success_code} if habits.success_code else {}
            return {"RequestId": request_id, "Success": True, **code, **answer(action, asked)}
        except (GatewayRefusal, FleetRefusal):
            if not keeps_nonce:
                self._gateway.release(nonce)
            raise

    def _refuse_by_fault(self, kind: FaultKind, action: str) -> None:
        if fault := self._faults.take(kind, action):
            code, status = fault.answer
            wait = round(fault.seconds * 1000) if kind is FaultKind.THROTTLE else 0
            message = "This answer was asked for under /_sandbox/faults."
            raise GatewayRefusal(status, code, message, retry_after_ms=wait)

    def _known_action(self, received: Received) -> str:
        if received.method not in ("GET", "POST"):
            raise GatewayRefusal(400, "UnsupportedHTTPMethod", "This HTTP method is not supported.")
        if received.is_v3 and not self._fleet.habits.accepts_v3:
            raise missing_parameter("Action")
        action, version = action_of(received)
        is_offered = received.path == "/" and version == VERSION and action in OFFERED
        if not is_offered or received.method not in OFFERED[action].methods:
            raise GatewayRefusal(
                404, "InvalidApi.NotFound", "Specified api is not found, please check your url and method."
            )
        return action

    def _root(self, action: str) -> str:
        """The name of the XML's root element."""
        is_bare = action in OFFERED and OFFERED[action].has_bare_root and self._fleet.habits.bare_xml_roots
        return action if is_bare else f"{action}Response"

    def _instance(self, params: Mapping[str, str]) -> str:
        """The instance that the call means. An account with instances that have ids must name one."""
        instance = self._fleet.instances.get(params.get("IotInstanceId", ""))
        if instance is None or params.get("RegionId", instance.region) != instance.region:
            raise FleetRefusal(self._fleet.habits.unknown_instance_code, "The IoT instance is not found.")
        return instance.instance_id

    async def _hang(self, request: Request) -> Response:
        """Says nothing until the caller gives up."""
        # The body was read to its end, so what can still be received is that the caller is gone.
        waits = [
            asyncio.ensure_future(request.receive()),
            asyncio.ensure_future(self._sleep(self._hang_seconds)),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return Response(status_code=504)

"""The IoT simulator: a Starlette app that takes signed calls like the real service, for any SDK.

It puts the gateway, the fleet's answers and the faults together, and writes JSON or XML. An error of the service
(`RequestId, Success, Code, ErrorMessage`) has `business_error_status`: the documents admit 200 and 400, and 200 is the
default because it is the one that clients get wrong. An error of the gateway (`RequestId, HostId, Code, Message,
Recommend`) has its own status. No input gives a 500. It speaks plain HTTP and listens nowhere by itself: uvicorn does.
Whoever reaches `/_sandbox/` may set faults, so keep it on this machine.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from importlib import resources
from typing import Any
from uuid import uuid4

import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from bot.sandbox.fleet import Fleet, FleetRefusal
from bot.sandbox.iot_answers import OFFERED, Asked, EmptyRows, answer
from bot.sandbox.iot_faults import Fault, FaultKind, Faults
from bot.sandbox.iot_gateway import VERSION, Gateway, GatewayRefusal, Received, action_of
from bot.sandbox.iot_rendering import written

_METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"]
_MOST_BYTES = 1_000_000
_PROXY_PAGE = "<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"
_RECOMMEND = "https://api.aliyun.com/troubleshoot?q={code}&product=Iot"


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
    business_error_status: int = 200,
    is_throttling: bool = True,
    empty_rows: EmptyRows = "list",
    hang_seconds: float = 60.0,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    new_request_id: Callable[[], str] = _new_request_id,
) -> Starlette:
    """The simulator of `fleet`. Its faults are `app.state.faults`.

    `keys` maps access key ids to secrets (default: testid, testsecret), `tokens` those ids that are temporary to their
    STS token. `now` is the clock of the gateway, in seconds since the epoch. `empty_rows` says how a list with nothing
    in it is written. A call that hangs is answered 504 after `hang_seconds`, if the caller still waits.
    """
    simulator = _Simulator(
        fleet=fleet,
        gateway=Gateway(
            keys={"testid": "testsecret"} if keys is None else keys,
            tokens=tokens or {},
            now=now,
            limits={name: offered.calls_per_second for name, offered in OFFERED.items()} if is_throttling else {},
        ),
        faults=Faults(),
        business_error_status=business_error_status,
        empty_rows=empty_rows,
        hang_seconds=hang_seconds,
        sleep=sleep,
        new_request_id=new_request_id,
    )
    app = Starlette(
        routes=[
            Route("/_sandbox/faults", simulator.show_or_set_faults, methods=["GET", "POST", "DELETE"]),
            Route("/_sandbox/fleet", simulator.show_fleet),
            Route("/_sandbox/effects", simulator.show_effects),
            Route("/{path:path}", simulator.serve, methods=_METHODS),
        ]
    )
    app.state.faults = simulator.faults
    app.state.fleet = fleet
    return app


class _Simulator:
    def __init__(
        self,
        *,
        fleet: Fleet,
        gateway: Gateway,
        faults: Faults,
        business_error_status: int,
        empty_rows: EmptyRows,
        hang_seconds: float,
        sleep: Callable[[float], Awaitable[None]],
        new_request_id: Callable[[], str],
    ) -> None:
        self._fleet = fleet
        self._gateway = gateway
        self.faults = faults
        self._business_error_status = business_error_status
        self._empty_rows = empty_rows
        self._hang_seconds = hang_seconds
        self._sleep = sleep
        self._new_request_id = new_request_id

    async def serve(self, request: Request) -> Response:
        """One call, from the wire to the answer."""
        request_id = self._new_request_id()
        received = Received(
            method=request.method,
            path=request.scope.get("raw_path", b"/").decode("latin-1").partition("?")[0],
            query_string=request.scope["query_string"].decode("latin-1"),
            headers=dict(reversed(request.headers.items())),
            body=await _body(request),
        )
        try:
            return await self._serve(request, received, request_id)
        except GatewayRefusal as refusal:
            return _gateway_error(received, request_id, refusal)

    async def _serve(self, request: Request, received: Received, request_id: str) -> Response:
        action = _known_action(received)
        if fault := self.faults.take(FaultKind.LATENCY, action):
            await self._sleep(fault.seconds)
        if self.faults.take(FaultKind.HTML_PAGE, action):
            return HTMLResponse(_PROXY_PAGE, status_code=502)
        if self.faults.take(FaultKind.LOST_THEN_TIMEOUT, action):
            return await self._hang(request)
        if self.faults.take(FaultKind.DOWN, action):
            raise GatewayRefusal(503, "ServiceUnavailable", "The request has failed due to a temporary failure.")
        self._gateway.admit(received, action)
        for kind in (FaultKind.THROTTLE, FaultKind.REFUSE):
            if fault := self.faults.take(kind, action):
                return _fault_error(received, request_id, fault)
        response = self._answer(received, action, request_id)
        if self.faults.take(FaultKind.ACCEPT_THEN_TIMEOUT, action):
            return await self._hang(request)
        if self.faults.take(FaultKind.ACCEPT_THEN_CLOSE, action):
            return _BrokenAnswer(response.body, media_type=response.media_type)
        if self.faults.take(FaultKind.TRUNCATED, action):
            half = bytes(response.body)[: len(response.body) // 2]
            return Response(half, response.status_code, media_type=response.media_type)
        return response

    def _answer(self, received: Received, action: str, request_id: str) -> Response:
        params = received.params
        try:
            asked = Asked(self._fleet, params, request_id, self._instance(params), self._empty_rows)
            body = {"RequestId": request_id, "Success": True, **answer(action, asked)}
            status = 200
        except FleetRefusal as refusal:
            body = {
                "RequestId": request_id,
                "Success": False,
                "Code": refusal.code,
                "ErrorMessage": refusal.message,
            }
            status = self._business_error_status
        return written(received, f"{action}Response", body, status=status)

    def _instance(self, params: Mapping[str, str]) -> str:
        """The instance that the call means. An account with instances that have ids must name one."""
        instance = self._fleet.instances.get(params.get("IotInstanceId", ""))
        if instance is None or params.get("RegionId", instance.region) != instance.region:
            raise FleetRefusal("iot.Sre.IotInstanceNotFound", "The IoT instance is not found.")
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

    async def show_or_set_faults(self, request: Request) -> Response:
        if request.method == "DELETE":
            self.faults.clear()
        if request.method == "POST":
            try:
                fields = json.loads(await _body(request))
                if not isinstance(fields, dict):
                    raise ValueError("a fault is an object")
                self.faults.add(Fault.from_json(fields))
            except (ValueError, RecursionError) as error:
                return JSONResponse({"error": str(error)}, status_code=400)
        return JSONResponse({"faults": [asdict(fault) for fault in self.faults.standing]})

    async def show_fleet(self, request: Request) -> Response:
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

    async def show_effects(self, request: Request) -> Response:
        return JSONResponse({"effects": [asdict(effect) for effect in self._fleet.history]})


class _BrokenAnswer(Response):
    """Half of an answer, and then the server closes the connection."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        half = bytes(self.body)[: len(self.body) // 2]
        await send({"type": "http.response.body", "body": half, "more_body": True})


def _known_action(received: Received) -> str:
    if received.method not in ("GET", "POST"):
        raise GatewayRefusal(400, "UnsupportedHTTPMethod", "This HTTP method is not supported.")
    action, version = action_of(received)
    if received.path != "/" or version != VERSION or action not in OFFERED:
        raise GatewayRefusal(
            404, "InvalidApi.NotFound", "Specified api is not found, please check your url and method."
        )
    return action


def _gateway_error(received: Received, request_id: str, refusal: GatewayRefusal) -> Response:
    body = {
        "RequestId": request_id,
        "HostId": received.headers.get("host", ""),
        "Code": refusal.code,
        "Message": refusal.message,
        "Recommend": _RECOMMEND.format(code=refusal.code),
    }
    return written(received, "Error", body, status=refusal.status)


def _fault_error(received: Received, request_id: str, fault: Fault) -> Response:
    code, status = fault.answer
    refusal = GatewayRefusal(status, code, "This answer was asked for under /_sandbox/faults.")
    response = _gateway_error(received, request_id, refusal)
    if fault.kind is FaultKind.THROTTLE and fault.seconds:
        response.headers["x-acs-retry-after"] = str(round(fault.seconds * 1000))
    return response


async def _body(request: Request) -> bytes:
    """The body, of which what is too long to be a call is not kept."""
    chunks = bytearray()
    async for chunk in request.stream():
        chunks += chunk[: _MOST_BYTES - len(chunks)]
    return bytes(chunks)

"""The two doors to the bot, HTTP and Socket Mode: both lead through the gate to the same listeners."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from slack_bolt.async_app import AsyncApp, AsyncBoltRequest
from slack_bolt.response import BoltResponse
from slack_sdk.socket_mode.aiohttp import SocketModeClient
from slack_sdk.socket_mode.async_client import AsyncBaseSocketModeClient
from slack_sdk.socket_mode.request import SocketModeRequest
from slack_sdk.socket_mode.response import SocketModeResponse
from slack_sdk.web.async_client import AsyncWebClient
from starlette.types import Receive, Scope, Send

from bot.ports.telemetry import AckResult, Telemetry, TurnedAway
from bot.slack.acks import Ack
from bot.slack.gate import MAX_BYTES, Admitted, Answered, Gate

_READ = {name.encode(): name for name in ("content-type", "x-slack-request-timestamp", "x-slack-signature")}
"""The headers that the gate reads, as ASGI spells them (in lower case)."""


async def dispatch(app: AsyncApp, admitted: Admitted, known: Ack) -> BoltResponse:
    """Hands what was admitted to Bolt, already parsed; the listeners find it in their context, and fill in `known`.

    Bolt reads many fields on its way to a listener, and stumbles over some that are not what Slack sends.
    """
    try:
        request = AsyncBoltRequest(
            body=admitted.body, context={"admitted": admitted, "known": known}, mode="socket_mode"
        )
        response: BoltResponse = await app.async_dispatch(request)
    except Exception as error:  # genuine but unreadable: an answer, not a crash
        return _unreadable(known, type(error).__name__)
    if response.status >= 500:  # not a listener of ours: those answer in any case
        return _unreadable(known, "Bolt could not read it")
    return response


def _unreadable(known: Ack, why: str) -> BoltResponse:
    known.result, known.why = AckResult.MALFORMED, why
    return BoltResponse(status=400, body="malformed request")


class HttpDoor:
    """`POST /slack/events`, an ASGI app."""

    def __init__(
        self, app: AsyncApp, gate: Gate, *, telemetry: Telemetry, now: Callable[[], float] = time.time
    ) -> None:
        self._app = app
        self._gate = gate
        self._telemetry = telemetry
        self._now = now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        headers = {_READ[name]: value.decode("latin-1") for name, value in scope["headers"] if name in _READ}
        raw = await _body(receive)
        verdict = self._gate.admit_http(headers, raw, now=self._now())
        if isinstance(verdict, Answered):
            self._telemetry.note(TurnedAway(verdict.status, verdict.why))
            await _respond(send, verdict.status, {}, verdict.text)
            return
        known = Ack()
        response = await dispatch(self._app, verdict, known)
        status = 200 if response.status == 404 else response.status  # what nobody listens to is no error of Slack's
        await _respond(send, status, response.headers, response.body if status == response.status else "")
        self._telemetry.note(known.given(verdict.kind, time.perf_counter() - began))


async def _body(receive: Receive) -> bytes:
    """The request's body, read no further than the gate would allow."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"".join(chunks)
        chunk = message.get("body", b"")
        size += len(chunk)
        if size <= MAX_BYTES + len(chunk):
            chunks.append(chunk)
        if not message.get("more_body"):
            return b"".join(chunks)


async def _respond(send: Send, status: int, headers: Mapping[str, Any], body: str) -> None:
    raw = body.encode()
    lines = [(b"content-length", str(len(raw)).encode())]
    for name, values in ({"content-type": ["text/plain; charset=utf-8"]} | dict(headers)).items():
        lines += [(name.lower().encode("latin-1"), str(value).encode("latin-1")) for value in values]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": raw})


class SocketDoor:
    """Socket Mode: Slack's client keeps the connection; each envelope goes through the gate and is acknowledged."""

    def __init__(
        self, app: AsyncApp, gate: Gate, *, app_token: str, client: AsyncWebClient, telemetry: Telemetry
    ) -> None:
        self._app = app
        self._gate = gate
        self._telemetry = telemetry
        self._socket = SocketModeClient(app_token=app_token, web_client=client)
        self._socket.socket_mode_request_listeners.append(self._take)

    async def __aenter__(self) -> SocketDoor:
        await self._socket.connect()  # type: ignore[no-untyped-call]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._socket.close()  # type: ignore[no-untyped-call]

    async def is_alive(self) -> bool:
        alive: bool = await self._socket.is_connected() and not await self._socket.is_ping_pong_failing()
        return alive

    async def _take(self, client: AsyncBaseSocketModeClient, request: SocketModeRequest) -> None:
        began = time.perf_counter()
        verdict = self._gate.admit_socket(request.payload)
        if isinstance(verdict, Answered):
            self._telemetry.note(TurnedAway(verdict.status, verdict.why))
            await client.send_socket_mode_response(SocketModeResponse(envelope_id=request.envelope_id))
            return
        known = Ack()
        response = await dispatch(self._app, verdict, known)
        payload = json.loads(response.body) if response.status == 200 and response.body else None
        await client.send_socket_mode_response(SocketModeResponse(envelope_id=request.envelope_id, payload=payload))
        self._telemetry.note(known.given(verdict.kind, time.perf_counter() - began))

"""Brings deliveries to an app: signed over HTTP, or as envelopes over a Socket Mode connection.

It waits for the acknowledgement as long as Slack does (3 s) and says what came of it. It knows nothing of what a
delivery means, and does not repeat one by itself: Slack repeats only events, after a minute; a test asks for copies.

Sources: docs.slack.dev "Verifying requests from Slack", "Using Socket Mode", "Implementing slash commands".
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import uuid4

import httpx
from starlette.websockets import WebSocket, WebSocketDisconnect

OPERATION_TIMEOUT = "operation_timeout"
DISPATCH_FAILED = "dispatch_failed"
MAX_CONNECTIONS = 10


@dataclass(frozen=True, slots=True)
class Parcel:
    """One delivery in both of its shapes: the signed bytes for HTTP, the payload for a socket."""

    kind: Literal["slash_commands", "interactive", "events_api"]
    payload: Mapping[str, Any]
    body: bytes
    content_type: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What the app said. `error` is what Slack would show instead (None: acknowledged in time)."""

    road: Literal["http", "socket"]
    status: int | None = None
    body: str = ""
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {"road": self.road, "status": self.status, "body": self.body, "error": self.error}


@dataclass(eq=False, slots=True)
class Connection:
    """One open socket and the envelopes on it that wait for an answer."""

    socket: WebSocket
    waiting: dict[str, asyncio.Future[Mapping[str, Any]]] = field(default_factory=dict)


def signature(signing_secret: str, *, timestamp: str, body: bytes) -> str:
    """Slack's v0 signature of one request."""
    base = b"v0:" + timestamp.encode() + b":" + body
    return "v0=" + hmac.new(signing_secret.encode(), base, hashlib.sha256).hexdigest()


class Sockets:
    """The app's Socket Mode connections. A delivery goes to any one of them."""

    def __init__(self, app_id: str) -> None:
        self._app_id = app_id
        self._tickets: set[str] = set()
        self._open: list[Connection] = []

    def __bool__(self) -> bool:
        return bool(self._open)

    def mint_ticket(self) -> str:
        """What opens one connection, once."""
        ticket = uuid4().hex
        self._tickets.add(ticket)
        return ticket

    async def serve(self, socket: WebSocket) -> None:
        """Holds one connection until the app leaves."""
        ticket = socket.query_params.get("ticket", "")
        if ticket not in self._tickets:
            await socket.close(code=4001, reason="invalid ticket")
            return
        self._tickets.remove(ticket)
        await socket.accept()
        if len(self._open) >= MAX_CONNECTIONS:
            await socket.send_json(self._goodbye("too_many_websockets"))
            await socket.close()
            return
        await self._hold(Connection(socket))

    async def _hold(self, connection: Connection) -> None:
        self._open.append(connection)
        try:
            await connection.socket.send_json(self._hello())
            while True:
                answer = json.loads(await connection.socket.receive_text())
                waiting = connection.waiting.get(answer.get("envelope_id", ""))
                if waiting is not None and not waiting.done():
                    waiting.set_result(answer)
        except WebSocketDisconnect:
            return
        finally:
            if connection in self._open:
                self._open.remove(connection)

    async def send(self, parcel: Parcel, *, ack_seconds: float, envelope_id: str) -> Answer:
        """Sends one envelope to the connection that has waited longest."""
        connection = self._open.pop(0)
        self._open.append(connection)
        waiting = connection.waiting[envelope_id] = asyncio.get_running_loop().create_future()
        envelope: dict[str, Any] = {
            "envelope_id": envelope_id,
            "type": parcel.kind,
            "payload": parcel.payload,
            "accepts_response_payload": parcel.kind == "slash_commands",
        }
        if parcel.kind == "events_api":
            envelope |= {"retry_attempt": 0, "retry_reason": ""}
        try:
            async with asyncio.timeout(ack_seconds):
                await connection.socket.send_json(envelope)
                answer = await waiting
        except TimeoutError:
            return Answer("socket", error=OPERATION_TIMEOUT)
        except (WebSocketDisconnect, RuntimeError):  # Starlette's words for a socket that went away meanwhile
            return Answer("socket", error=DISPATCH_FAILED)
        finally:
            connection.waiting.pop(envelope_id, None)
        payload = answer.get("payload")
        text = payload.get("text") if isinstance(payload, Mapping) and payload.keys() == {"text"} else None
        return Answer("socket", 200, "" if not payload else text or json.dumps(payload))

    async def disconnect(self, reason: str) -> int:
        """Tells every connection to go; how many there were. New deliveries wait for new connections."""
        leaving, self._open = self._open, []
        for connection in leaving:
            await connection.socket.send_json(self._goodbye(reason))
        return len(leaving)

    def _hello(self) -> dict[str, Any]:
        debug = {"host": "applink-sandbox", "build_number": 1, "approximate_connection_time": 18_060}
        return {
            "type": "hello",
            "num_connections": len(self._open),
            "debug_info": debug,
            "connection_info": {"app_id": self._app_id},
        }

    def _goodbye(self, reason: str) -> dict[str, Any]:
        return {
            "type": "disconnect",
            "reason": reason,
            "debug_info": {"host": "applink-sandbox"},
            "connection_info": {"app_id": self._app_id},
        }


class Courier:
    """Carries parcels: through a socket if one is open, else to `deliver_to`."""

    def __init__(
        self,
        *,
        signing_secret: str,
        deliver_to: str | None,
        sockets: Sockets,
        now: Callable[[], float],
        ack_seconds: float,
        transport: httpx.AsyncBaseTransport | None,
    ) -> None:
        self.deliver_to = deliver_to
        self.sockets = sockets
        self._signing_secret = signing_secret
        self._now = now
        self._ack_seconds = ack_seconds
        self._transport = transport
        self._client: httpx.AsyncClient | None = None

    async def carry(self, parcel: Parcel, *, copies: int = 1) -> tuple[Answer, ...]:
        """Delivers the same bytes `copies` times, one after the other, as a replay would."""
        if self.sockets:
            envelope_id = str(uuid4())
            return tuple(
                [
                    await self.sockets.send(parcel, ack_seconds=self._ack_seconds, envelope_id=envelope_id)
                    for _ in range(copies)
                ]
            )
        headers = self._headers(parcel)
        return tuple([await self._post(parcel, headers | _retry(parcel, copy)) for copy in range(copies)])

    def _headers(self, parcel: Parcel) -> dict[str, str]:
        timestamp = str(int(self._now()))
        return {
            "Content-Type": parcel.content_type,
            "User-Agent": "Slackbot 1.0 (+https://api.slack.com/robots)",
            "X-Slack-Request-Timestamp": timestamp,
            "X-Slack-Signature": signature(self._signing_secret, timestamp=timestamp, body=parcel.body),
        }

    async def _post(self, parcel: Parcel, headers: Mapping[str, str]) -> Answer:
        if self.deliver_to is None:
            return Answer("http", error=DISPATCH_FAILED)
        if self._client is None:
            self._client = httpx.AsyncClient(transport=self._transport, timeout=None, trust_env=False)  # noqa: S113
        try:
            async with asyncio.timeout(self._ack_seconds):
                answer = await self._client.post(self.deliver_to, content=parcel.body, headers=dict(headers))
        except TimeoutError:
            return Answer("http", error=OPERATION_TIMEOUT)
        except httpx.HTTPError:
            return Answer("http", error=DISPATCH_FAILED)
        error = None if answer.status_code == 200 else DISPATCH_FAILED
        return Answer("http", answer.status_code, answer.text, error)

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None


def _retry(parcel: Parcel, copy: int) -> dict[str, str]:
    if parcel.kind != "events_api" or copy == 0:
        return {}
    return {"X-Slack-Retry-Num": str(copy), "X-Slack-Retry-Reason": "http_timeout"}

"""The load generator, a process of its own: keep-alive connections that send one signed slash command after another.

The commands are signed before the measurement, each with a trigger_id of its own, so that none is a duplicate. It does
not judge: it tells statuses, times and counts.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from tests.bench.machine import Broken, Json, answer_asks, be_a_child

MOST_PER_SECOND = {1: 6000, 10: 14000}
"""How many commands are signed for each second; a server that is faster is measured until they are used up."""

FIELDS = {
    "token": "gIkuvaNzQIHg97ATvDxqgjtO",
    "team_id": "T0SANDBOX1",
    "team_domain": "sandbox",
    "channel_id": "C0INCIDENT",
    "channel_name": "incident",
    "user_id": "U0ONCALLA1",
    "user_name": "oncall",
    "command": "/ota",
    "api_app_id": "A0OTABRAKE",
    "is_enterprise_install": "false",
}


def signature(secret: str, timestamp: str, body: bytes) -> str:
    return "v0=" + hmac.new(secret.encode(), b"v0:" + timestamp.encode() + b":" + body, hashlib.sha256).hexdigest()


def http_request(body: bytes, *, port: int, secret: str, is_forged: bool = False) -> bytes:
    """One delivery to `/slack/events`, as bytes for the wire."""
    timestamp = str(int(time.time()))
    signed = signature("not the secret" if is_forged else secret, timestamp, body)
    head = (
        f"POST /slack/events HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nuser-agent: Slackbot 1.0\r\naccept: */*\r\n"
        f"content-type: application/x-www-form-urlencoded\r\ncontent-length: {len(body)}\r\n"
        f"x-slack-request-timestamp: {timestamp}\r\nx-slack-signature: {signed}\r\n\r\n"
    )
    return head.encode() + body


def commands(count: int, *, port: int, secret: str, text: str, response_url: str) -> list[bytes]:
    """`count` distinct signed commands."""
    start = urlencode(FIELDS | {"text": text, "response_url": response_url}).encode()
    run = secrets.token_hex(8)
    return [http_request(start + f"&trigger_id={at}.{run}".encode(), port=port, secret=secret) for at in range(count)]


def length_of_answer(got: bytes) -> int | None:
    """How many bytes a complete answer at the start of `got` has; None while it is not complete."""
    end = got.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = got[:end].lower()
    at = head.find(b"content-length:")
    if at >= 0:
        whole = end + 4 + int(head[at + 15 :].split(b"\r\n", 1)[0])
        return whole if len(got) >= whole else None
    last = got.find(b"0\r\n\r\n", end + 4)
    return last + 5 if last >= 0 else None


class _Sender(asyncio.Protocol):
    """Sends a command, waits for the answer, sends the next, until time or commands are used up."""

    def __init__(self, pending: Iterator[bytes], until: float, took: list[float], statuses: dict[str, int]) -> None:
        self._pending = pending
        self._until = until
        self._took = took
        self._statuses = statuses
        self._got = b""
        self._sent_at = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:  # uvloop's is not an asyncio.Transport
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._sent_at = time.perf_counter()
        request = next(self._pending, None) if self._sent_at < self._until else None
        if request is None:
            self._transport.close()
            return
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._got += data
        if length_of_answer(self._got) is None:
            return
        self._took.append(time.perf_counter() - self._sent_at)
        status = self._got[9:12].decode("ascii", "replace")
        self._statuses[status] = self._statuses.get(status, 0) + 1
        self._got = b""
        self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


class Connection:
    """One keep-alive connection, for one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def to(cls, port: int) -> Connection:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def send(self, request: bytes) -> int:
        """The status of the answer."""
        self._writer.write(request)
        got = b""
        async with asyncio.timeout(10):
            while length_of_answer(got) is None:
                if not (some := await self._reader.read(65536)):
                    raise Broken("the server closed the connection")
                got += some
        return int(got[9:12])

    def close(self) -> None:
        self._writer.close()


async def _run(
    *, port: int, secret: str, text: str, response_url: str, concurrency: int, seconds: float, **_: Any
) -> Json:
    most = int(MOST_PER_SECOND[concurrency] * seconds)
    signed = iter(commands(most, port=port, secret=secret, text=text, response_url=response_url))
    took: list[float] = []
    statuses: dict[str, int] = {}
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    connections = [
        (await loop.create_connection(lambda: _Sender(signed, started + seconds, took, statuses), "127.0.0.1", port))
        for _ in range(concurrency)
    ]
    await asyncio.gather(*(connection.done for _, connection in connections))
    elapsed = time.perf_counter() - started
    took.sort()
    return {
        "count": len(took),
        "rps": len(took) / elapsed,
        "p50_us": took[len(took) // 2] * 1e6 if took else None,
        "statuses": statuses,
    }


async def _check(*, port: int, secret: str, text: str, response_url: str, **_: Any) -> Json:
    """The statuses of a good command, a copy of it, and a forged one."""
    [good] = commands(1, port=port, secret=secret, text=text, response_url=response_url)
    body = good.partition(b"\r\n\r\n")[2]
    forged = http_request(body, port=port, secret=secret, is_forged=True)
    statuses = []
    for request in (good, good, forged):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        statuses.append(int((await reader.readline()).split()[1]))
        writer.close()
    return {"good": statuses[0], "copy": statuses[1], "forged": statuses[2]}


async def _main(options: Json) -> None:
    asks = {"run": _run, "check": _check}
    await answer_asks({}, lambda what: asks[what.pop("ask")](**what))


if __name__ == "__main__":
    be_a_child(_main)

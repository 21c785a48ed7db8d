"""HTTP/1.1 for the signed calls: a transport for httpx whose calls at the same moment cost little more than one.

httpx's own transport looks at all its connections each time one is taken or given back, so a preview's eight calls at
once cost it more time than the cloud takes. Here a connection says itself when it is gone. An answer is read whole,
up to a bound. What it does not do: proxies, HTTP/2, redirects, decoding, or repeating anything.
https://www.rfc-editor.org/rfc/rfc9112
"""

from __future__ import annotations

import asyncio
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import httptools
import httpx

_Origin = tuple[str, str, int]
_LENGTHS = {b"content-length", b"transfer-encoding"}


class WireTransport(httpx.AsyncBaseTransport):
    """At most `most` calls under way; a connection is kept for `idle_seconds` after its last answer.

    Of an answer `most_bytes` are read, head and all; the rest is cut off. Raises httpx's own errors; `ConnectError`,
    `ConnectTimeout` and `PoolTimeout` mean that nothing was sent.
    """

    def __init__(self, context: ssl.SSLContext, *, most: int, idle_seconds: float, most_bytes: int) -> None:
        self._context = context
        self._idle_seconds = idle_seconds
        self._most_bytes = most_bytes
        self._room = asyncio.Semaphore(most)
        self._idle: dict[_Origin, list[_Connection]] = defaultdict(list)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        seconds: dict[str, float | None] = request.extensions.get("timeout", {})
        written = _written(request, await request.aread())
        async with _in_time(seconds.get("pool"), httpx.PoolTimeout, "no connection came free"):
            await self._room.acquire()
        try:
            origin = _origin(request.url)
            connection = self._take(origin) or await self._connect(origin, seconds.get("connect"))
            try:
                async with _in_time(seconds.get("read"), httpx.ReadTimeout, "no answer came in time"):
                    response = await connection.exchange(written)
            except BaseException:
                connection.close()
                raise
            if connection.is_open:
                self._idle[origin].append(connection)
            return response
        finally:
            self._room.release()

    async def aclose(self) -> None:
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()

    def _take(self, origin: _Origin) -> _Connection | None:
        """The connection that was used last, so that those that are not needed grow old."""
        oldest = asyncio.get_running_loop().time() - self._idle_seconds
        idle = self._idle[origin]
        while idle and not (idle[0].is_open and idle[0].used_at > oldest):
            idle.pop(0).close()
        while idle:
            if (connection := idle.pop()).is_open:
                return connection
        return None

    async def _connect(self, origin: _Origin, seconds: float | None) -> _Connection:
        scheme, host, port = origin
        try:
            async with _in_time(seconds, httpx.ConnectTimeout, "no connection in time"):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: _Connection(self._most_bytes),
                    host,
                    port,
                    ssl=self._context if scheme == "https" else None,
                )
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(str(error) or type(error).__name__) from error
        return connection


class _Connection(asyncio.Protocol):
    """One connection, with one call under way at most."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._transport: asyncio.Transport | None = None
        self._answer: _Answer | None = None
        self.is_open = False
        self.used_at = 0.0

    async def exchange(self, written: bytes) -> httpx.Response:
        if self._transport is None or not self.is_open:
            raise httpx.ConnectError("the connection closed before anything was sent")
        answer = self._answer = _Answer(self._most_bytes)
        self._transport.write(written)
        await answer.is_whole
        self._answer = None
        self.used_at = asyncio.get_running_loop().time()
        if not answer.may_be_followed:
            self.close()
        return httpx.Response(answer.status, headers=answer.headers, stream=httpx.ByteStream(bytes(answer.body)))

    def close(self) -> None:
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self.is_open = cast(asyncio.Transport, transport), True

    def data_received(self, data: bytes) -> None:
        if self._answer is None or not self._answer.feed(data):
            # What nobody asked for, or what comes behind an answer, could be taken for the next one.
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        if self._answer is not None:
            self._answer.end(error)


class _Answer:
    """An answer as it comes in, part by part as httptools calls back; `is_whole` is done when it is, or has failed."""

    def __init__(self, most_bytes: int) -> None:
        self.is_whole: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.may_be_followed = False
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = bytearray()
        self._parser = httptools.HttpResponseParser(self)
        self._left = most_bytes
        self._ends_with_connection = False

    def feed(self, data: bytes) -> bool:
        """Takes what came. False: nothing more may come on this connection."""
        if self.is_whole.done():
            return False
        try:
            self._parser.feed_data(data[: self._left])
        except httptools.HttpParserError as error:
            self._fail(httpx.RemoteProtocolError(f"no answer in HTTP/1.1 ({type(error).__name__})"))
        self._left -= len(data)
        if self._left <= 0:
            self._finish()
        return not self.is_whole.done() or self.may_be_followed

    def end(self, error: Exception | None) -> None:
        """The connection is gone."""
        if self._ends_with_connection and error is None:
            self._finish()
        self._fail(httpx.ReadError("the connection was lost before the answer was whole"))

    def on_message_begin(self) -> None:
        if self.is_whole.done():
            self.may_be_followed = False  # a second answer, to nothing that was asked

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self.is_whole.done() or status < 200:
            self.headers.clear()  # a notice ahead of the answer
            return
        self.status = status
        self._ends_with_connection = not {name.lower() for name, _ in self.headers} & _LENGTHS

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        if self.status and not self.is_whole.done():
            self.may_be_followed = self._parser.should_keep_alive()
            self._finish()

    def _finish(self) -> None:
        if not self.status:
            self._fail(httpx.RemoteProtocolError("an answer whose head has no end"))
        elif not self.is_whole.done():
            self.is_whole.set_result(None)

    def _fail(self, error: httpx.TransportError) -> None:
        if not self.is_whole.done():
            self.is_whole.set_exception(error)


def _origin(url: httpx.URL) -> _Origin:
    if url.scheme not in ("http", "https"):
        raise httpx.UnsupportedProtocol(f"no calls by {url.scheme}")
    return url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80)


def _written(request: httpx.Request, body: bytes) -> bytes:
    """The request as it goes out, its headers in the order in which httpx has them."""
    lines = [request.method.encode() + b" " + request.url.raw_path + b" HTTP/1.1"]
    lines += [name + b": " + value for name, value in request.headers.raw]
    if any(b"\r" in line or b"\n" in line for line in lines):
        raise httpx.LocalProtocolError("a header holds a line break")
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@asynccontextmanager
async def _in_time(seconds: float | None, late: type[httpx.TimeoutException], why: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise late(why) from error

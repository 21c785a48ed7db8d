"""HTTP/1.1 for the signed calls: aiohttp's client behind httpx, whose own pool grows slow when calls come at once.

What it does not do: proxies, redirects, cookies, decoding, or sending anything a second time.
https://docs.aiohttp.org/en/stable/client_reference.html
"""

from __future__ import annotations

import select
import ssl
from weakref import WeakSet

import aiohttp
import httpx
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from yarl import URL

_ADDED_BY_AIOHTTP = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


class WireTransport(httpx.AsyncBaseTransport):
    """At most `most` calls under way; a connection is kept for `idle_seconds` after its last answer.

    Of an answer's body `most_bytes` are read, and the rest is cut off; aiohttp bounds the head. Raises httpx's errors,
    without the URL; `ConnectError`, `ConnectTimeout`, `LocalProtocolError` and `UnsupportedProtocol` mean that nothing
    was sent. The times for room and for connecting are added up.
    """

    def __init__(self, context: ssl.SSLContext, *, most: int, idle_seconds: float, most_bytes: int) -> None:
        self._context = context
        self._most = most
        self._idle_seconds = idle_seconds
        self._most_bytes = most_bytes
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url, headers, body = _url(request.url), _headers(request), await request.aread()
        asked = self._opened().request(
            request.method, url, headers=headers, data=body or None, timeout=_timeout(request), allow_redirects=False
        )
        try:
            async with asked as response:
                stream = httpx.ByteStream(await self._read(response.content))
                return httpx.Response(response.status, headers=response.raw_headers, stream=stream)
        except aiohttp.InvalidURL as error:
            raise httpx.LocalProtocolError("no URL that can be called") from error
        except TimeoutError as error:
            raise httpx.ReadTimeout("no answer came in time") from error
        except aiohttp.ClientResponseError as error:
            raise httpx.RemoteProtocolError("no answer in HTTP/1.1") from error
        except (aiohttp.ClientError, OSError) as error:
            raise _lost(error) from error

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        """The session; it can be made only on the loop that it is for."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=_Connector(self._context, most=self._most, idle_seconds=self._idle_seconds),
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=_ADDED_BY_AIOHTTP,
                auto_decompress=False,
                middlewares=[_send_once],
            )
        return self._session

    async def _read(self, content: aiohttp.StreamReader) -> bytes:
        body = bytearray()
        while len(body) < self._most_bytes and (part := await content.readany()):
            body += part
        return bytes(body[: self._most_bytes])


class _Connector(aiohttp.TCPConnector):
    """Tells what failed before anything was written, and gives a kept connection out again only if it is quiet."""

    def __init__(self, context: ssl.SSLContext, *, most: int, idle_seconds: float) -> None:
        super().__init__(ssl=context, limit=most, keepalive_timeout=idle_seconds)
        self._kept: WeakSet[ResponseHandler] = WeakSet()

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's name
    ) -> Connection:
        try:
            connection = await super().connect(req, traces, timeout)
            while connection.protocol in self._kept and not _is_quiet(connection):
                connection.close()
                connection = await super().connect(req, traces, timeout)
        except TimeoutError as error:
            raise httpx.ConnectTimeout("no connection in time") from error
        except (aiohttp.ClientError, OSError, UnicodeError) as error:
            cause = error.__cause__ or error
            raise httpx.ConnectError(str(cause) or type(cause).__name__) from error
        if connection.protocol is not None:
            self._kept.add(connection.protocol)
        return connection


def _is_quiet(connection: Connection) -> bool:
    """Whether nothing (the end of it, most likely) has come since the last answer, seen by the loop or not yet."""
    if connection.protocol is None or connection.protocol.should_close or connection.transport is None:
        return False
    poll = select.poll()
    poll.register(connection.transport.get_extra_info("socket").fileno(), select.POLLIN)
    return not poll.poll(0)


async def _send_once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Hides from aiohttp that a connection broke: it would send a GET (or the like) again."""
    try:
        return await handler(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _lost(error) from error


def _lost(error: Exception) -> httpx.ReadError:
    return httpx.ReadError(f"the answer did not come whole ({type(error).__name__})")


def _url(url: httpx.URL) -> URL:
    """Byte for byte the same, but for who asks: that is in the headers by now."""
    if url.scheme not in ("http", "https"):
        raise httpx.UnsupportedProtocol(f"no calls by {url.scheme}")
    return URL(f"{url.scheme}://{url.netloc.decode()}{url.raw_path.decode()}", encoded=True)


def _headers(request: httpx.Request) -> list[tuple[str, str]]:
    headers = [(name.decode(), value.decode()) for name, value in request.headers.raw]
    if any(character in name + value for name, value in headers for character in "\r\n\0"):
        raise httpx.LocalProtocolError("a header holds a line break")
    return headers


def _timeout(request: httpx.Request) -> aiohttp.ClientTimeout:
    """The time for reading is that of the whole call: aiohttp's own does not run behind a notice or a broken chunk."""
    seconds: dict[str, float | None] = request.extensions.get("timeout", {})
    connect, pool = seconds.get("connect"), seconds.get("pool")
    both = None if connect is None or pool is None else connect + pool
    return aiohttp.ClientTimeout(total=seconds.get("read"), connect=both, sock_connect=connect)

"""HTTP/1.1 over real sockets, against a server that writes bytes as a test says."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from bot.alibaba.client import AlibabaClient, open_http
from bot.alibaba.credentials import Credentials
from bot.alibaba.wire import WireTransport
from bot.errors import CloudUnreachable
from tests.bench.certificate import make_certificate

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CLOSE = b"\x00close"
"""What is not written: the connection is closed instead."""


class Wire(asyncio.Protocol):
    """A connection as the server sees it: answers each request with the next of the script, `OK` when it is over."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.server.connections.append(self)
        self.server.open += 1

    def data_received(self, data: bytes) -> None:
        self.server.asked.append(data)
        self.server.was_asked.set()
        for part in self.server.script.pop(0) if self.server.script else (OK,):
            if part is CLOSE:
                self.transport.close()
            else:
                self.transport.write(part)

    def connection_lost(self, error: Exception | None) -> None:
        self.server.open -= 1
        self.server.closed.set()


class Server:
    def __init__(self) -> None:
        self.script: list[tuple[bytes, ...]] = []
        self.asked: list[bytes] = []
        self.connections: list[Wire] = []
        self.open = 0
        self.was_asked = asyncio.Event()
        self.closed = asyncio.Event()
        self.url = ""

    async def all_closed(self) -> None:
        while self.open:
            self.closed.clear()
            await self.closed.wait()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    listening = await asyncio.get_running_loop().create_server(lambda: Wire(server), "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    yield server
    listening.close()
    await server.all_closed()


@asynccontextmanager
async def opened(
    *, most: int = 50, idle_seconds: float = 30.0, most_bytes: int = 10_000
) -> AsyncIterator[httpx.AsyncClient]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    transport = WireTransport(context, most=most, idle_seconds=idle_seconds, most_bytes=most_bytes)
    async with httpx.AsyncClient(transport=transport, timeout=5) as http:
        yield http


@pytest.fixture
async def http(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with opened() as http:
        yield http


@pytest.mark.parametrize(("method", "body"), [("POST", b"body"), ("POST", b""), ("GET", b"")])
async def test_a_request_goes_out_with_its_headers_and_body_as_httpx_has_them(
    http: httpx.AsyncClient, server: Server, method: str, body: bytes
) -> None:
    request = http.build_request(method, server.url, content=body, headers=[("x-One", "1"), ("x-One", "2")])
    for name in ("accept", "accept-encoding", "user-agent"):
        del request.headers[name]
    response = await http.send(request)
    assert (response.status_code, response.text) == (200, "ok")
    head, _, sent = server.asked[0].partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0] == f"{method} / HTTP/1.1".encode()
    assert sorted(head.split(b"\r\n")[1:]) == sorted(name + b": " + value for name, value in request.headers.raw)
    assert sent == body


@pytest.mark.parametrize(
    "target", ["/?a=%2F&b=%20", "/?a=%2f%41%7E~+*%2A&b=", "/a//b/%2E%2e/;c?x?y=%25&&=", "/?a=%C3%A4%FF#not-sent"]
)
async def test_an_address_goes_out_byte_for_byte(http: httpx.AsyncClient, server: Server, target: str) -> None:
    request = http.build_request("POST", server.url + target)
    await http.send(request)
    assert server.asked[0].split(b"\r\n")[0] == b"POST " + target.partition("#")[0].encode() + b" HTTP/1.1"
    assert request.url.raw_path.decode() == target.partition("#")[0]


async def test_what_an_answer_sets_or_names_has_no_influence_on_the_next_call(server: Server) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    transport = WireTransport(context, most=5, idle_seconds=30, most_bytes=1000)
    head = b"HTTP/1.1 302 Found\r\nset-cookie: a=b\r\nlocation: /other\r\ncontent-encoding: gzip\r\n"
    server.script = [(head + b"content-length: 2\r\n\r\nok",)]
    answers = [await transport.handle_async_request(httpx.Request("POST", server.url)) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [302, 200]
    assert b"".join([part async for part in answers[0].aiter_raw()]) == b"ok"
    assert server.asked[0] == server.asked[1]
    await transport.aclose()


async def test_calls_one_after_the_other_share_a_connection_and_calls_at_once_do_not(
    http: httpx.AsyncClient, server: Server
) -> None:
    for _ in range(3):
        await http.get(server.url)
    assert len(server.connections) == 1
    await asyncio.gather(*(http.get(server.url) for _ in range(4)))
    assert len(server.connections) == 4
    await asyncio.gather(*(http.get(server.url) for _ in range(4)))
    assert len(server.connections) == 4


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        ((b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel", b"lo"), "hello"),
        ((b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n", b"3\r\nllo\r\n0\r\n\r\n"), "hello"),
        ((b"HTTP/1.1 200 OK\r\nconn", b"ection: close\r\n\r\nhello", CLOSE), "hello"),
        ((b"HTTP/1.0 200 OK\r\n\r\nhello", CLOSE), "hello"),
        ((b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"), "hello"),
        ((b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",), ""),
        ((b"HTTP/1.1 204 No Content\r\n\r\n",), ""),
    ],
    ids=["length", "chunks", "until closed", "HTTP/1.0", "notice first", "empty", "no content"],
)
async def test_an_answer_is_read_whole_however_its_end_is_told(
    http: httpx.AsyncClient, server: Server, answer: tuple[bytes, ...], body: str
) -> None:
    server.script = [answer]
    assert (await http.get(server.url)).text == body
    assert (await http.get(server.url)).text == "ok"


@pytest.mark.parametrize(
    "answer",
    [
        (CLOSE,),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhalf", CLOSE),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhe", CLOSE),
        (b"HTTP/1.1 200 OK\r\nhalf-a-he", CLOSE),
        (b"HTTP/1.1 100 Continue\r\n\r\n", CLOSE),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello", b"no length\r\n", CLOSE),
        (b"<html>no HTTP</html>",),
        (b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",),
        (b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 20_000,),
    ],
    ids=[
        "nothing",
        "half",
        "half a chunk",
        "no chunk",
        "half a head",
        "notice only",
        "no HTTP",
        "bad length",
        "endless head",
    ],
)
async def test_an_answer_that_is_not_whole_is_an_error_and_the_next_call_is_not_hurt(
    http: httpx.AsyncClient, server: Server, answer: tuple[bytes, ...]
) -> None:
    server.script = [answer]
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        await http.get(server.url)
    assert (await http.get(server.url)).text == "ok"
    assert len(server.connections) == 2


async def test_what_comes_behind_an_answer_is_not_taken_for_the_next_one(
    http: httpx.AsyncClient, server: Server
) -> None:
    forged = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged"
    server.script = [(OK + forged,), (OK,), (OK + forged[:10],), (OK,)]
    assert [(await http.get(server.url)).text for _ in range(4)] == ["ok"] * 4
    assert len(server.connections) == 2


@pytest.mark.parametrize("turns", [0, 5], ids=["not seen yet", "seen"])
async def test_what_comes_on_an_idle_connection_ends_it(http: httpx.AsyncClient, server: Server, turns: int) -> None:
    await http.get(server.url)
    server.connections[0].transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged")
    for _ in range(turns):
        await asyncio.sleep(0)
    assert (await http.get(server.url)).text == "ok"
    assert len(server.connections) == 2


async def test_a_connection_that_the_server_closed_while_idle_is_not_used(
    http: httpx.AsyncClient, server: Server
) -> None:
    await http.get(server.url)
    server.connections[0].transport.close()
    await server.closed.wait()
    await http.get(server.url)
    assert len(server.connections) == 2


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_what_was_sent_on_a_kept_connection_that_then_broke_is_not_sent_again(
    http: httpx.AsyncClient, server: Server, method: str
) -> None:
    server.script = [(OK,), (CLOSE,)]
    await http.get(server.url)
    with pytest.raises(httpx.ReadError):
        await http.request(method, server.url)
    assert (len(server.asked), len(server.connections)) == (2, 1)


async def test_a_connection_that_idled_too_long_is_not_used(server: Server) -> None:
    async with opened(idle_seconds=0.0) as http:
        await http.get(server.url)
        await http.get(server.url)
    assert len(server.connections) == 2


async def test_of_an_answer_without_end_only_so_much_is_read(server: Server) -> None:
    async with opened(most_bytes=1000) as http:
        server.script = [(b"HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n" + b"x" * 2000,)]
        response = await http.get(server.url)
        assert len(response.content) == 1000
        assert (await http.get(server.url)).text == "ok"
    assert len(server.connections) == 2


async def test_a_call_that_is_cancelled_takes_its_connection_with_it(http: httpx.AsyncClient, server: Server) -> None:
    server.script = [()]
    call = asyncio.create_task(http.get(server.url))
    await server.was_asked.wait()
    call.cancel()
    await server.closed.wait()
    assert call.cancelled()
    assert (await http.get(server.url)).text == "ok"


@pytest.mark.parametrize(
    "answer",
    [(), (b"HTTP/1.1 100 Continue\r\n\r\n",), (b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhalf",)],
    ids=["nothing", "notice only", "half"],
)
async def test_an_answer_that_does_not_come_in_time_is_a_time_out(
    http: httpx.AsyncClient, server: Server, answer: tuple[bytes, ...]
) -> None:
    server.script = [answer]
    with pytest.raises(httpx.ReadTimeout):
        await http.get(server.url, timeout=httpx.Timeout(5, read=0.02))
    await server.closed.wait()


async def test_more_calls_than_there_is_room_for_wait_and_time_out_unsent(server: Server) -> None:
    async with opened(most=1) as http:
        server.script = [()]
        first = asyncio.create_task(http.get(server.url))
        await server.was_asked.wait()
        with pytest.raises(httpx.ConnectTimeout):
            await http.get(server.url, timeout=httpx.Timeout(5, connect=0.01, pool=0.01))
        server.connections[0].transport.write(OK)
        assert (await first).text == "ok"
        await asyncio.gather(*(http.get(server.url) for _ in range(3)))
    assert len(server.asked) == 4


async def test_a_connection_that_is_refused_is_an_error_of_connecting(http: httpx.AsyncClient) -> None:
    listening = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    listening.close()
    await listening.wait_closed()
    with pytest.raises(httpx.ConnectError):
        await http.get(f"http://127.0.0.1:{port}")


async def test_a_name_that_cannot_be_looked_up_is_an_error_of_connecting(http: httpx.AsyncClient) -> None:
    with pytest.raises(httpx.ConnectError):
        await http.get(f"http://{'a' * 70}.example/")


async def test_tls_with_somebody_who_is_not_trusted_is_an_error_of_connecting(
    http: httpx.AsyncClient, server: Server
) -> None:
    with pytest.raises((httpx.ConnectError, httpx.ConnectTimeout)):
        await http.get(server.url.replace("http:", "https:"))


async def test_a_header_that_would_break_out_of_its_line_is_not_sent(http: httpx.AsyncClient, server: Server) -> None:
    with pytest.raises(httpx.LocalProtocolError):
        await http.get(server.url, headers={"x-one": "1\r\nx-two: 2"})
    assert server.asked == []


async def test_other_protocols_are_not_spoken(http: httpx.AsyncClient) -> None:
    with pytest.raises(httpx.UnsupportedProtocol):
        await http.get("ftp://127.0.0.1/")


async def test_over_tls_a_connection_is_kept_and_its_name_is_checked(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    assert certificate is not None
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(certificate.certificate, certificate.key)
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    theirs.load_verify_locations(certificate.certificate)
    server = Server()
    listening = await asyncio.get_running_loop().create_server(lambda: Wire(server), "127.0.0.1", 0, ssl=ours)
    port = listening.sockets[0].getsockname()[1]
    async with httpx.AsyncClient(transport=WireTransport(theirs, most=5, idle_seconds=30, most_bytes=1000)) as http:
        assert [(await http.get(f"https://127.0.0.1:{port}")).text for _ in range(3)] == ["ok"] * 3
        assert len(server.connections) == 1
        with pytest.raises(httpx.ConnectError, match=r"(?i)certificate"):
            await http.get(f"https://localhost:{port}")
    listening.close()
    await server.all_closed()


@pytest.mark.parametrize(("variable", "is_ours"), [("HTTPS_PROXY", False), ("ALL_PROXY", False), ("NO_PROXY", True)])
async def test_where_the_environment_names_a_proxy_httpx_finds_the_way(
    monkeypatch: pytest.MonkeyPatch, variable: str, is_ours: bool
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    async with open_http() as http:
        assert isinstance(http._transport, WireTransport) is is_ours


async def test_a_key_that_would_break_a_header_is_a_call_that_was_not_sent(server: Server) -> None:
    async with open_http() as http:
        client = AlibabaClient(
            http, endpoint=server.url, credentials=Credentials("id", "s", "to\r\nken"), region="cn-shanghai"
        )
        with pytest.raises(CloudUnreachable):
            await client.call("QueryOTAJob", {}, nonce="n", date=datetime(2026, 3, 1, tzinfo=UTC), timeout_seconds=5)
    assert server.asked == []

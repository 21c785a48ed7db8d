"""One call against every kind of answer and every kind of silence."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import certifi
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.alibaba.answers import MAX_MESSAGE_CHARACTERS, Denial, Refusal, parse_body, plain_text
from bot.alibaba.client import MAX_ANSWER_BYTES, AlibabaClient, open_http
from bot.alibaba.credentials import Credentials
from bot.errors import CloudError, CloudLost, CloudRefused, CloudThrottled, CloudUnreachable

DATE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
KEY = Credentials("testid", "s3cret-of-test", "t0ken-of-test")
OK = {"RequestId": "AB-1", "Success": True}
HTML = "<html><body><h1>502 Bad Gateway</h1></body></html>"
XML_ERROR = (
    '<?xml version="1.0" encoding="UTF-8"?><Error><RequestId>AB-2</RequestId><HostId>iot</HostId>'
    "<Code>SignatureDoesNotMatch</Code><Message>Specified signature is not matched.</Message></Error>"
)

Handler = Callable[[httpx.Request], httpx.Response]


async def call(
    handler: Handler, *, signature: str = "v3", params: dict[str, str] | None = None, **more: Any
) -> dict[str, object]:
    async with httpx.AsyncClient(transport=httpx.MockTransport(handler)) as http:
        client = AlibabaClient(
            http,
            endpoint="https://iot.cn-shanghai.aliyuncs.com",
            credentials=KEY,
            region="cn-shanghai",
            signature=signature,
        )
        answer = await client.call(
            "QueryOTAJob", params or {"JobId": "j*1"}, nonce="n1", date=DATE, timeout_seconds=more.get("seconds", 10)
        )
        return dict(answer)


def answering(content: object, *, status: int = 200, headers: dict[str, str] | None = None) -> Handler:
    body = content if isinstance(content, (str, bytes)) else json.dumps(content)
    return lambda request: httpx.Response(status, content=body, headers=headers)


async def error_of(handler: Handler, **more: Any) -> CloudError:
    with pytest.raises(CloudError) as caught:
        await call(handler, **more)
    return caught.value


async def refusal_of(handler: Handler) -> Refusal:
    error = await error_of(handler)
    assert type(error) is Refusal
    return error


def raising(error: Exception) -> Handler:
    def handle(request: httpx.Request) -> httpx.Response:
        raise error

    return handle


@pytest.mark.parametrize(
    "body",
    [
        OK,
        {"requestId": "AB-1", "code": "", "success": True},
        {"RequestId": "AB-1", "Success": "true"},
        {"RequestId": "AB-1", "Success": True, "Code": "200"},
        "<QueryOTAJobResponse><RequestId>AB-1</RequestId><Success>true</Success></QueryOTAJobResponse>",
        "\ufeff<Whatever xmlns='urn:x'><Success>True</Success></Whatever>",
    ],
    ids=["json", "lower case", "text", "with a code", "xml", "xml with a namespace and a mark"],
)
async def test_a_success_is_recognised_however_it_is_spelt(body: object) -> None:
    assert await call(answering(body))


async def test_the_content_type_is_not_believed() -> None:
    assert await call(answering(OK, headers={"content-type": "text/html"})) == OK


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"RequestId": "AB-2", "Success": False, "Code": "iot.ota.InvalidJobId", "ErrorMessage": "no job"}, 200),
        ({"RequestId": "AB-2", "Success": False, "Code": "iot.ota.InvalidJobId", "ErrorMessage": "no job"}, 400),
        ({"RequestId": "AB-2", "HostId": "x", "Code": "iot.ota.InvalidJobId", "Message": "no job"}, 404),
        ({"requestId": "AB-2", "code": "iot.ota.InvalidJobId", "message": "no job", "success": "false"}, 200),
        ({"RequestId": "AB-2", "Code": "iot.ota.InvalidJobId", "Message": "no job"}, 200),
        ({"RequestId": "AB-2", "Success": True, "Code": "iot.ota.InvalidJobId", "Message": "no job"}, 400),
    ],
    ids=["iot 200", "iot 400", "gateway", "lower case", "gateway under 200", "status against body"],
)
async def test_a_refusal_is_recognised_in_both_envelopes_and_under_any_status(body: object, status: int) -> None:
    error = await refusal_of(answering(body, status=status))
    assert (error.code, error.message, error.request_id, error.status, error.action) == (
        "iot.ota.InvalidJobId",
        "no job",
        "AB-2",
        status,
        "QueryOTAJob",
    )


async def test_a_refusal_in_xml_is_read() -> None:
    error = await refusal_of(answering(XML_ERROR, status=400))
    assert (error.code, error.request_id) == ("SignatureDoesNotMatch", "AB-2")


async def test_a_refusal_without_a_code_is_still_a_refusal() -> None:
    error = await refusal_of(answering({"Success": False}, headers={"x-acs-request-id": "AB-9"}))
    assert (error.code, error.request_id) == ("(no code)", "AB-9")


async def test_a_used_nonce_is_a_refusal_that_the_caller_judges() -> None:
    error = await refusal_of(answering({"Code": "SignatureNonceUsed", "Message": "used"}, status=400))
    assert error.code == "SignatureNonceUsed"


@pytest.mark.parametrize(
    ("date", "ahead"),
    [("Fri, 02 Jan 2026 02:04:05 GMT", 3600), ("Fri, 02 Jan 2026 04:04:05 GMT", -3600), ("soon", None), ("", None)],
)
async def test_a_clock_that_is_off_is_measured_against_the_answer(date: str, ahead: float | None) -> None:
    body = {"Code": "InvalidTimeStamp.Expired", "Message": "…"}
    error = await refusal_of(answering(body, status=400, headers={"date": date} if date else {}))
    assert error.clock_ahead_seconds == ahead


DETAIL = {
    "AuthAction": "iot:CancelOTATaskByJob",
    "AuthPrincipalDisplayName": "bot",
    "AuthPrincipalType": "SubUser",
    "NoPermissionType": "ImplicitDeny",
    "PolicyType": "AccountLevelIdentityBasedPolicy",
    "EncodedDiagnosticMessage": "AQEAAAA",
}
CAMEL = {name[0].lower() + name[1:]: value for name, value in DETAIL.items()}
XML_DENIAL = (
    "<Error><Code>Forbidden.RAM</Code><Message>no</Message><AccessDeniedDetail>"
    + "".join(f"<{name}>{value}</{name}>" for name, value in DETAIL.items())
    + "</AccessDeniedDetail></Error>"
)
DENIED = Denial("iot:CancelOTATaskByJob", "bot", "ImplicitDeny", "AccountLevelIdentityBasedPolicy")


@pytest.mark.parametrize(
    ("body", "denial"),
    [
        ({"Code": "Forbidden.RAM", "AccessDeniedDetail": DETAIL}, DENIED),
        ({"code": "Forbidden.RAM", "accessDeniedDetail": CAMEL}, DENIED),
        (XML_DENIAL, DENIED),
        ({"Code": "Forbidden.RAM", "AccessDeniedDetail": {"AuthAction": 7}}, Denial("7")),
        (
            {"Code": "Forbidden.RAM", "AccessDeniedDetail": {"NoPermissionType": "a\nb" + "c" * 999}},
            Denial(kind="a b" + "c" * 97),
        ),
        ({"Code": "Forbidden.RAM", "AccessDeniedDetail": {"Other": "x"}}, None),
        ({"Code": "Forbidden.RAM", "AccessDeniedDetail": "x"}, None),
        ({"Code": "Forbidden.RAM"}, None),
    ],
    ids=["json", "lower case", "xml", "numbers", "long", "nothing known", "text", "none"],
)
async def test_what_ram_tells_of_a_refusal_is_kept_but_for_what_is_encoded(body: object, denial: Denial | None) -> None:
    error = await refusal_of(answering(body, status=403))
    assert error.denial == denial
    assert "AQEAAAA" not in repr(error.denial)


@pytest.mark.parametrize(
    ("body", "status", "headers", "seconds"),
    [
        ({"Code": "Throttling.User", "Message": "slow"}, 400, {}, None),
        ({"Code": "throttling", "Message": "slow"}, 503, {}, None),
        ({"Success": False, "Code": "iot.common.TooManyRequest"}, 200, {}, None),
        ({"Code": "Other"}, 429, {"x-acs-retry-after": "1500"}, 1.5),
        (HTML, 429, {"x-acs-retry-after": "0"}, None),
        ({"Code": "Busy"}, 400, {"x-acs-retry-after": "250"}, 0.25),
        ({"Code": "Throttling"}, 400, {"x-acs-retry-after": "-5"}, None),
    ],
)
async def test_throttling_is_told_apart(
    body: object, status: int, headers: dict[str, str], seconds: float | None
) -> None:
    error = await error_of(answering(body, status=status, headers=headers))
    assert isinstance(error, CloudThrottled)
    assert error.retry_after_seconds == seconds


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (HTML, 200),
        (HTML, 502),
        ("", 200),
        ("", 504),
        ('{"RequestId": "AB-1", "Succ', 200),
        ("<A><Success>true</Succ", 200),
        (b"\xff\xfe\x00", 200),
        ("[]", 200),
        ("{}", 200),
        ('"yes"', 200),
        ({"Code": "200", "RequestId": "AB-1"}, 200),
        ("[" * 100_000, 200),
        ("<a>" * 40 + "</a>" * 40, 200),
        ('<!DOCTYPE a [<!ENTITY b "c">]><a><Success>true</Success></a>', 200),
        ({"Success": False, "Code": "iot.system.SystemException"}, 200),
        ({"Success": False, "Code": "IOT.System.SystemError"}, 400),
        ({"Code": "InternalError"}, 500),
        ({"Code": "UnknownError"}, 400),
        ({"Code": "ServiceUnavailable"}, 503),
        ({"Success": True}, 500),
    ],
)
async def test_what_says_neither_yes_nor_no_is_a_lost_answer(body: object, status: int) -> None:
    assert type(await error_of(answering(body, status=status))) is CloudLost


async def test_a_lost_answer_keeps_the_request_id_it_came_with() -> None:
    body = {"RequestId": "AB-3", "Code": "ServiceUnavailable"}
    error = await error_of(answering(body, status=503))
    assert isinstance(error, CloudLost)
    assert error.request_id == "AB-3"


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (httpx.ConnectError("Name or service not known"), CloudUnreachable),
        (httpx.ConnectTimeout("slow"), CloudUnreachable),
        (httpx.PoolTimeout("full"), CloudUnreachable),
        (httpx.ProxyError("407"), CloudUnreachable),
        (httpx.ReadTimeout("slow"), CloudLost),
        (httpx.WriteTimeout("slow"), CloudLost),
        (httpx.ReadError("reset"), CloudLost),
        (httpx.WriteError("reset"), CloudLost),
        (httpx.RemoteProtocolError("Server disconnected without sending a response."), CloudLost),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.__name__,
)
async def test_a_failure_says_whether_the_call_can_have_arrived(raised: Exception, kind: type[CloudError]) -> None:
    assert type(await error_of(raising(raised))) is kind


@pytest.mark.parametrize("location", ["http:elsewhere/", "http://elsewhere:port/", "ftp://elsewhere/", "/elsewhere"])
async def test_an_answer_that_points_elsewhere_is_a_lost_one(location: str) -> None:
    assert type(await error_of(answering("", status=302, headers={"location": location}))) is CloudLost


async def test_an_answer_that_never_ends_is_lost_when_the_time_is_over() -> None:
    async def hang(request: httpx.Request) -> httpx.Response:
        raise TimeoutError

    assert isinstance(await error_of(hang), CloudLost)  # type: ignore[arg-type]


async def test_an_answer_is_read_only_up_to_its_bound() -> None:
    assert isinstance(await error_of(answering(b" " * (MAX_ANSWER_BYTES + 1))), CloudLost)


@asynccontextmanager
async def server(answer: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[str]:
    """A server on this machine that reads a whole call, and then does as `answer` says."""
    served: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            await answer(writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(asyncio.create_task(serve(reader, writer)))

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    await asyncio.gather(*served)


async def error_over_the_wire(url: str) -> CloudError:
    async with open_http() as http:
        client = AlibabaClient(http, endpoint=url, credentials=KEY, region="cn-shanghai")
        with pytest.raises(CloudError) as caught:
            await client.call("QueryOTAJob", {"JobId": "j1"}, nonce="n1", date=DATE, timeout_seconds=0.2)
        return caught.value


async def test_a_refused_connection_is_a_call_that_was_not_sent() -> None:
    async with server(lambda writer: writer.drain()) as url:
        pass
    assert type(await error_over_the_wire(url)) is CloudUnreachable


async def test_an_expected_certificate_that_does_not_come_is_a_call_that_was_not_sent() -> None:
    async with server(lambda writer: writer.drain()) as url:
        assert type(await error_over_the_wire(url.replace("http:", "https:"))) is CloudUnreachable


async def test_a_connection_that_closes_without_an_answer_is_a_lost_one() -> None:
    async with server(lambda writer: writer.drain()) as url:
        assert type(await error_over_the_wire(url)) is CloudLost


async def test_a_connection_that_closes_within_the_answer_is_a_lost_one() -> None:
    async def half(writer: asyncio.StreamWriter) -> None:
        writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{"Success": true')
        await writer.drain()

    async with server(half) as url:
        assert type(await error_over_the_wire(url)) is CloudLost


async def test_an_answer_that_trickles_is_lost_when_the_time_is_over() -> None:
    async def trickle(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n")
        while not writer.is_closing():  # always faster than a read would time out
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with server(trickle) as url:
        error = await error_over_the_wire(url)
    assert isinstance(error, CloudLost)
    assert error.why == "no answer within 0.2 s"


@pytest.mark.parametrize("job", ["x" * 70_000, "\ud800"])
async def test_a_call_that_fits_in_no_url_is_not_sent(job: str) -> None:
    assert isinstance(await error_of(answering(OK), params={"JobId": job}), CloudUnreachable)


@pytest.mark.parametrize("signature", ["v3", "v1"])
async def test_a_call_that_is_sent_again_has_the_same_bytes(signature: str) -> None:
    seen: list[tuple[bytes, list[tuple[bytes, bytes]]]] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append((request.url.raw_path, list(request.headers.raw)))
        return httpx.Response(200, json=OK, headers={"set-cookie": "a=b"})

    await call(handle, signature=signature)
    await call(handle, signature=signature)
    assert seen[0] == seen[1]


async def test_parameters_travel_in_the_query_as_they_are_signed() -> None:
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=OK)

    await call(handle)
    await call(handle, signature="v1")
    v3, v1 = seen
    assert (v3.method, v3.url.query, v3.content) == ("POST", b"JobId=j%2A1", b"")
    assert (v3.headers["accept"], v3.headers["x-acs-action"]) == ("application/json", "QueryOTAJob")
    assert dict(v1.url.params) | {"Signature": ""} == {
        "AccessKeyId": "testid",
        "Action": "QueryOTAJob",
        "Format": "JSON",
        "JobId": "j*1",
        "RegionId": "cn-shanghai",
        "SecurityToken": "t0ken-of-test",
        "Signature": "",
        "SignatureMethod": "HMAC-SHA1",
        "SignatureNonce": "n1",
        "SignatureVersion": "1.0",
        "Timestamp": "2026-01-02T03:04:05Z",
        "Version": "2018-01-20",
    }


@pytest.mark.parametrize("signature", ["v3", "v1"])
async def test_neither_error_nor_log_holds_a_secret_or_a_url(signature: str, caplog: pytest.LogCaptureFixture) -> None:
    async with open_http():  # what quiets httpx's own log
        pass
    caplog.set_level(logging.DEBUG)
    faults = [
        answering(HTML, status=502),
        answering(XML_ERROR, status=400),
        raising(httpx.ReadTimeout("slow")),
        raising(httpx.ConnectError("refused")),
    ]
    said = [await error_of(fault, signature=signature) for fault in faults]
    everything = " ".join([caplog.text, *(f"{error!r} {error.__dict__} {error.__cause__!r}" for error in said)])
    assert not [word for word in ("s3cret", "t0ken", "Signature=", "https://", "JobId") if word in everything]
    assert "testid" in repr(KEY)
    assert not [word for word in ("s3cret", "t0ken") if word in repr(KEY)]


IOT = "https://iot.cn-shanghai.aliyuncs.com/"


@pytest.fixture(params=["none", "file", "folder"])
def named_authorities(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """What the environment says about whom to trust."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    if request.param == "file":
        bundle = Path(certifi.where()).read_text()
        end = "-----END CERTIFICATE-----\n"
        (tmp_path / "one.pem").write_text(bundle[bundle.index("-----BEGIN") : bundle.index(end) + len(end)])
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "one.pem"))
    if request.param == "folder":
        monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    return str(request.param)


async def test_authorities_are_trusted_from_the_first_https_call_on(named_authorities: str) -> None:
    async with open_http() as http:
        context = tls_of(http)
        prepare = http.event_hooks["request"][0]
        await prepare(httpx.Request("POST", "http://127.0.0.1/"))
        assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
        assert context.cert_store_stats()["x509_ca"] == 0

        await asyncio.gather(prepare(httpx.Request("POST", IOT)), prepare(httpx.Request("POST", IOT)))
        trusted = context.cert_store_stats()["x509_ca"]
        assert {"none": trusted > 10, "file": trusted == 1, "folder": trusted == 0}[named_authorities]


async def test_cookies_are_not_kept() -> None:
    async with open_http() as http:
        answer = httpx.Response(
            200, headers={"set-cookie": "a=b; Path=/"}, request=httpx.Request("POST", "https://iot.example.com/")
        )
        http.cookies.extract_cookies(answer)
        assert not http.cookies


def tls_of(http: httpx.AsyncClient) -> ssl.SSLContext:
    context: ssl.SSLContext = http._transport._context  # type: ignore[attr-defined]
    return context


def test_xml_has_the_shape_of_json() -> None:
    xml = (
        b"<R><Total>2</Total><Data><Row><A>1</A></Row><Row><A>2</A></Row><Row><A>3</A></Row></Data>"
        b"<Empty/><One><Row><A>1</A></Row></One></R>"
    )
    assert parse_body(xml) == {
        "Total": "2",
        "Data": {"Row": [{"A": "1"}, {"A": "2"}, {"A": "3"}]},
        "Empty": "",
        "One": {"Row": {"A": "1"}},
    }


@pytest.mark.parametrize(
    ("foreign", "plain"),
    [("a\nb\x1b[31m\u202ec", "a b [31m c"), (None, ""), (7, "7"), ({"a": 1}, ""), ("  x\t y ", "x y")],
)
def test_foreign_text_becomes_one_plain_line(foreign: object, plain: str) -> None:
    assert plain_text(foreign) == plain


@given(st.text(st.sampled_from("ab \t\u3000\u202e\x07ä"), max_size=12) | st.text("x ", min_size=298, max_size=302))
def test_foreign_text_is_the_same_line_whether_it_had_to_be_cleaned_or_not(text: str) -> None:
    assert plain_text(text) == plain_text(f" {text}")


def test_foreign_text_is_cut() -> None:
    assert len(plain_text("x" * 10_000)) == MAX_MESSAGE_CHARACTERS


def test_a_refusal_is_one_that_the_core_knows() -> None:
    assert isinstance(Refusal("c", "m"), CloudRefused)

"""One signed call to Alibaba Cloud's RPC-style API, and the HTTP client that all calls share.

POST with the parameters in the query and no body, as the official SDK sends it. No retries, no queueing and no
knowledge of any operation: who calls decides. Nothing that leaves here (errors, logs) holds a URL, a signature or a
secret. https://help.aliyun.com/document_detail/159972.htm
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping
from datetime import datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from urllib.request import getproxies

import httpx

from bot.alibaba.answers import NotMade, read_answer
from bot.alibaba.credentials import Credentials
from bot.alibaba.signing import Acs3Auth, RpcAuth, canonical_query
from bot.alibaba.wire import WireTransport
from bot.errors import CloudLost, CloudUnreachable

VERSION = "2018-01-20"
MAX_ANSWER_BYTES = 8 * 1024 * 1024
_CONNECTIONS = 50
_IDLE_SECONDS = 30.0
_PROXIES = {"http", "https", "all"}
# Waiting for a connection, TCP and TLS must together give up before the whole call does: only then is it certain that
# nothing was sent.
_POOL_SHARE = 0.2
_CONNECT_SHARE = 0.35
_NOT_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.LocalProtocolError,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)


def open_http() -> httpx.AsyncClient:
    """The one HTTP client. TLS is made ready at the first https call, off the loop: start-up does not wait for it."""
    # httpx logs whole URLs at INFO, and those of signature 1.0 hold key id, token and signature.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # Made empty, this context trusts nobody, so a call that came before `_load_authorities` would fail.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ready = asyncio.Lock()
    is_loaded = False

    async def prepare_tls(request: httpx.Request) -> None:
        nonlocal is_loaded
        if is_loaded or request.url.scheme != "https":
            return
        async with ready:
            if not is_loaded:
                await asyncio.to_thread(_load_authorities, context)
                is_loaded = True

    return httpx.AsyncClient(
        verify=context,
        # Where the environment names a proxy, httpx's own transport knows the way.
        transport=None if _PROXIES & getproxies().keys() else _transport(context),
        event_hooks={"request": [prepare_tls]},
        # Without cookies a call that is sent again has the same bytes, and instances cannot mix.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        headers={"user-agent": "otabrake", "accept-encoding": "identity"},
        limits=httpx.Limits(max_connections=_CONNECTIONS, keepalive_expiry=_IDLE_SECONDS),
        timeout=httpx.Timeout(10),
    )


def _transport(context: ssl.SSLContext) -> WireTransport:
    most_bytes = MAX_ANSWER_BYTES + 1  # the one too many says that there is more
    return WireTransport(context, most=_CONNECTIONS, idle_seconds=_IDLE_SECONDS, most_bytes=most_bytes)


def _load_authorities(context: ssl.SSLContext) -> None:
    """What httpx would trust: SSL_CERT_FILE or SSL_CERT_DIR where set, else the bundle of certifi."""
    paths = ssl.get_default_verify_paths()
    if paths.cafile and paths.cafile != paths.openssl_cafile:
        context.load_verify_locations(cafile=paths.cafile)
    elif paths.capath and paths.capath != paths.openssl_capath:
        context.load_verify_locations(capath=paths.capath)
    else:
        import certifi

        context.load_verify_locations(cafile=certifi.where())


class AlibabaClient:
    """Calls of one account in one region.

    `endpoint` is scheme and host (``https://iot.cn-shanghai.aliyuncs.com``), `signature` "v3" or "v1".
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        *,
        endpoint: str,
        credentials: Credentials,
        region: str,
        signature: str = "v3",
    ) -> None:
        self._http = http
        self._endpoint = endpoint.rstrip("/")
        self._credentials = credentials
        self._region = region
        self._is_rpc = signature == "v1"

    async def call(
        self, action: str, params: Mapping[str, str], *, nonce: str, date: datetime, timeout_seconds: float
    ) -> Mapping[str, object]:
        """The parsed answer of a success.

        Raises `CloudRefused` (as `Refusal`), `CloudThrottled`, `CloudUnreachable` (not sent) or `CloudLost`. The same
        nonce and date give the same bytes.
        """
        request = self._signed(action, params, nonce=nonce, date=date, timeout_seconds=timeout_seconds)
        try:
            async with asyncio.timeout(timeout_seconds):
                status, headers, body = await self._exchange(request)
        except TimeoutError:
            raise CloudLost(f"no answer within {timeout_seconds:g} s") from None
        except _NOT_SENT as error:
            raise CloudUnreachable(f"{type(error).__name__}: {error}"[:300]) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:  # the URL that an answer names, nobody else's
            raise CloudLost(f"the connection broke before the answer was complete ({type(error).__name__})") from None
        return read_answer(body, status=status, headers=headers, action=action, sent_date=date)

    def _signed(
        self, action: str, params: Mapping[str, str], *, nonce: str, date: datetime, timeout_seconds: float
    ) -> httpx.Request:
        """The request as it goes out. Raises `NotMade`."""
        auth = (RpcAuth if self._is_rpc else Acs3Auth)(self._credentials, nonce=nonce, date=date)
        try:
            request = self._http.build_request(
                "POST",
                f"{self._endpoint}/?{canonical_query(self._query(action, params))}",
                headers=self._headers(action),
                timeout=httpx.Timeout(
                    timeout_seconds, connect=timeout_seconds * _CONNECT_SHARE, pool=timeout_seconds * _POOL_SHARE
                ),
            )
            return next(auth.sync_auth_flow(request))
        except (httpx.InvalidURL, UnicodeEncodeError):
            raise NotMade("it cannot be put into a URL") from None

    async def _exchange(self, request: httpx.Request) -> tuple[int, httpx.Headers, bytes]:
        response = await self._http.send(request, auth=httpx.Auth(), stream=True, follow_redirects=False)
        try:
            return response.status_code, response.headers, await _read_bounded(response)
        finally:
            await response.aclose()

    def _query(self, action: str, params: Mapping[str, str]) -> Mapping[str, str]:
        if not self._is_rpc:
            return params
        return {**params, "Action": action, "Format": "JSON", "RegionId": self._region, "Version": VERSION}

    def _headers(self, action: str) -> dict[str, str]:
        headers = {"accept": "application/json"}
        return headers if self._is_rpc else headers | {"x-acs-action": action, "x-acs-version": VERSION}


async def _read_bounded(response: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise CloudLost(f"HTTP {response.status_code} with an answer of more than {MAX_ANSWER_BYTES} bytes")
    return bytes(body)

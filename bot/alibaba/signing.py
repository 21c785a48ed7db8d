"""Alibaba Cloud's two request signatures, as pure functions and as two small `httpx.Auth`.

V3 is ACS3-HMAC-SHA256 (https://help.aliyun.com/document_detail/159972.htm), V1 is the RPC signature 1.0 with HMAC-SHA1
(https://www.alibabacloud.com/help/doc-detail/30563.htm). Each step is a function of its own, so that a wrong signature
can be traced to the first step that differs.

No clock and no randomness is read here: the same nonce and date give the same bytes. Form bodies of V1 are not signed,
because IoT takes every parameter in the query. Only what proxies leave alone is signed in V3: host, content-type and
x-acs-*.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64encode
from collections.abc import Generator, Iterable, Mapping
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote

import httpx

from bot.alibaba.credentials import Credentials

ACS3_ALGORITHM = "ACS3-HMAC-SHA256"
_UNRESERVED = re.compile(r"[A-Za-z0-9\-_.~]*").fullmatch

Parameters = Mapping[str, str] | Iterable[tuple[str, str]]


def percent_encode(text: str) -> str:
    """RFC 3986 with upper-case hex: letters, digits and ``-_.~`` stay, a space is ``%20``."""
    return text if _UNRESERVED(text) else quote(text, safe="-_.~")


def canonical_query(params: Parameters) -> str:
    """The parameters sorted by name, encoded and joined: what is signed, and also a query that can be sent."""
    pairs = params.items() if isinstance(params, Mapping) else params
    return "&".join([f"{percent_encode(name)}={percent_encode(value)}" for name, value in sorted(pairs)])


def timestamp(date: datetime) -> str:
    """An aware time as both schemes write it, e.g. ``2026-01-02T03:04:05Z``."""
    return date.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def acs3_canonical_request(
    *, method: str, path: str, query: Parameters, headers: Mapping[str, str], body: bytes
) -> str:
    """The text that V3 hashes. `headers` are the signed ones, `path` stands as it is on the wire."""
    signed = sorted((name.lower(), value.strip()) for name, value in headers.items())
    lines = "".join([f"{name}:{value}\n" for name, value in signed])
    return (
        f"{method}\n{path or '/'}\n{canonical_query(query)}\n{lines}\n{acs3_signed_headers(headers)}\n"
        f"{hashlib.sha256(body).hexdigest()}"
    )


def acs3_signed_headers(headers: Mapping[str, str]) -> str:
    """The names of the signed headers as the Authorization header lists them."""
    return ";".join(sorted([name.lower() for name in headers]))


def acs3_string_to_sign(canonical_request: str) -> str:
    return f"{ACS3_ALGORITHM}\n{hashlib.sha256(canonical_request.encode()).hexdigest()}"


def acs3_signature(secret: str, string_to_sign: str) -> str:
    """64 hex digits."""
    return hmac.digest(secret.encode(), string_to_sign.encode(), "sha256").hex()


def rpc_string_to_sign(method: str, params: Parameters) -> str:
    """The text that V1 signs. `params` are all parameters but ``Signature``."""
    return f"{method}&%2F&{percent_encode(canonical_query(params))}"


def rpc_signature(secret: str, string_to_sign: str) -> str:
    """28 characters of base64, not percent-encoded. V1 puts an ampersand behind the secret."""
    return b64encode(hmac.digest(f"{secret}&".encode(), string_to_sign.encode(), "sha1")).decode()


class Acs3Auth(httpx.Auth):
    """Signs one request with V3. The caller sets x-acs-action and x-acs-version.

    `nonce` and `date` come from the caller: an intent that is sent again must be the same bytes.
    """

    requires_request_body = True

    def __init__(self, credentials: Credentials, *, nonce: str, date: datetime) -> None:
        self._credentials = credentials
        self._nonce = nonce
        self._date = timestamp(date)

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        own = {
            "x-acs-date": self._date,
            "x-acs-signature-nonce": self._nonce,
            "x-acs-content-sha256": hashlib.sha256(request.content).hexdigest(),
        }
        if self._credentials.security_token:
            own["x-acs-security-token"] = self._credentials.security_token
        request.headers.update(own)
        signed = {name: value for name, value in request.headers.items() if _is_signed(name)}
        canonical = acs3_canonical_request(
            method=request.method,
            path=request.url.raw_path.partition(b"?")[0].decode("ascii"),
            query=_query_of(request),
            headers=signed,
            body=request.content,
        )
        signature = acs3_signature(self._credentials.secret, acs3_string_to_sign(canonical))
        request.headers["authorization"] = (
            f"{ACS3_ALGORITHM} Credential={self._credentials.key_id},"
            f"SignedHeaders={acs3_signed_headers(signed)},Signature={signature}"
        )
        yield request


class RpcAuth(httpx.Auth):
    """Signs one request with V1: everything goes into the query. The caller sets Action and Version there."""

    def __init__(self, credentials: Credentials, *, nonce: str, date: datetime) -> None:
        self._credentials = credentials
        self._nonce = nonce
        self._date = timestamp(date)

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        own = {
            "AccessKeyId": self._credentials.key_id,
            "SignatureMethod": "HMAC-SHA1",
            "SignatureNonce": self._nonce,
            "SignatureVersion": "1.0",
            "Timestamp": self._date,
        }
        if self._credentials.security_token:
            own["SecurityToken"] = self._credentials.security_token
        params = [*_query_of(request), *own.items()]
        signature = rpc_signature(self._credentials.secret, rpc_string_to_sign(request.method, params))
        query = canonical_query([*params, ("Signature", signature)])
        request.url = request.url.copy_with(query=query.encode("ascii"))
        yield request


def _query_of(request: httpx.Request) -> list[tuple[str, str]]:
    return parse_qsl(request.url.query.decode("ascii"), keep_blank_values=True)


def _is_signed(name: str) -> bool:
    return name in ("host", "content-type") or name.startswith("x-acs-")

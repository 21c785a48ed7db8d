"""The gateway in front of the simulated IoT service: who calls, is it signed, is it fresh, is it too often.

Takes a request apart and verifies both signature schemes with the functions that the client signs with
(`bot.alibaba.signing`, itself tested against published vectors and the official SDKs): V3
(https://help.aliyun.com/document_detail/159972.htm) and the RPC signature 1.0
(https://www.alibabacloud.com/help/doc-detail/30563.htm). All access keys belong to one account. It doesn't know what an
operation does, and whether the region of the host fits is not looked at. What is not known of it is a habit.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import parse_qsl

from bot.alibaba.signing import (
    ACS3_ALGORITHM,
    acs3_canonical_request,
    acs3_signature,
    acs3_string_to_sign,
    rpc_signature,
    rpc_string_to_sign,
)
from bot.sandbox.habits import Habits

SKEW_SECONDS = 15 * 60
VERSION = "2018-01-20"

_FORM = "application/x-www-form-urlencoded"
_AUTHORIZATION = re.compile(rf"{ACS3_ALGORITHM}\s+Credential=([^,]+),\s*SignedHeaders=([^,]+),\s*Signature=([^,\s]+)")
_V3_HEADERS = ("x-acs-action", "x-acs-version", "x-acs-date", "x-acs-signature-nonce", "x-acs-content-sha256")
_V1_PARAMS = ("AccessKeyId", "SignatureMethod", "SignatureVersion", "SignatureNonce", "Timestamp", "Signature")
COMMON_PARAMS = frozenset({*_V1_PARAMS, "Action", "Version", "Format", "SecurityToken", "SignatureType", "RegionId"})

Pairs = tuple[tuple[str, str], ...]
Nonce = tuple[str, str]


class GatewayRefusal(Exception):
    """The gateway says no; it never came to the operation. `retry_after_ms` 0: it doesn't say how long to wait."""

    def __init__(self, status: int, code: str, message: str, *, retry_after_ms: int = 0) -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.retry_after_ms = retry_after_ms


@dataclass(frozen=True, slots=True)
class Received:
    """A request off the wire. Header names are lower-case."""

    method: str
    path: str
    query_string: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_v3(self) -> bool:
        return self.headers.get("authorization", "").startswith(ACS3_ALGORITHM)

    @property
    def query(self) -> Pairs:
        return _pairs(self.query_string)

    @property
    def form(self) -> Pairs:
        is_form = self.headers.get("content-type", "").partition(";")[0].strip().lower() == _FORM
        return _pairs(_ascii(self.body)) if is_form else ()

    @property
    def params(self) -> dict[str, str]:
        """All parameters by name. Raises `GatewayRefusal` for one that is given twice or cannot be read."""
        params: dict[str, str] = {}
        for name, value in (*self.query, *self.form):
            if name in params:
                raise GatewayRefusal(400, "InvalidParameter", f"The parameter {name} is given twice.")
            params[name] = value
        return params

    @property
    def wants_xml(self) -> bool:
        """V3 asks by its accept header, V1 by Format, and V1 that says nothing gets XML."""
        if self.is_v3:
            accept = self.headers.get("accept", "").lower()
            return "xml" in accept and "json" not in accept
        try:
            return self.params.get("Format", "XML").upper() != "JSON"
        except GatewayRefusal:
            return True


@dataclass(frozen=True, slots=True)
class Claim:
    """What a request says about itself, and what its signature should be for a secret."""

    key_id: str
    token: str | None
    nonce: str
    date: str
    signature: str
    string_to_sign: str
    expected: Callable[[str, str], str]


def action_of(received: Received) -> tuple[str, str]:
    """The action and its version, in either scheme. Raises `GatewayRefusal` if one is missing."""
    if received.is_v3:
        action, version = received.headers.get("x-acs-action"), received.headers.get("x-acs-version")
    else:
        action, version = received.params.get("Action"), received.params.get("Version")
    if not action:
        raise missing_parameter("Action")
    if not version:
        raise missing_parameter("Version")
    return action, version


def v3_claim(received: Received) -> Claim:
    """Reads the headers of ACS3-HMAC-SHA256. What a proxy may not change must be signed."""
    headers = received.headers
    match = _AUTHORIZATION.fullmatch(headers["authorization"].strip())
    if match is None:
        raise GatewayRefusal(400, "IncompleteSignature", "The Authorization header cannot be read.")
    key_id, signed_names, signature = match.groups()
    for name in _V3_HEADERS:
        if not headers.get(name):
            raise missing_parameter(name)
    signed = {name: headers[name] for name in signed_names.split(";") if name in headers}
    must = {"host", *(name for name in headers if name.startswith("x-acs-"))}
    if received.body and "content-type" in headers:
        must.add("content-type")
    if set(signed_names.split(";")) != set(signed) or not must <= set(signed):
        raise GatewayRefusal(400, "IncompleteSignature", "SignedHeaders does not fit the headers of the request.")
    if headers["x-acs-content-sha256"] != hashlib.sha256(received.body).hexdigest():
        raise GatewayRefusal(400, "InvalidParameter", "x-acs-content-sha256 is not the hash of the body.")
    canonical = acs3_canonical_request(
        method=received.method, path=received.path, query=received.query, headers=signed, body=received.body
    )
    return Claim(
        key_id=key_id,
        token=headers.get("x-acs-security-token"),
        nonce=headers["x-acs-signature-nonce"],
        date=headers["x-acs-date"],
        signature=signature,
        string_to_sign=acs3_string_to_sign(canonical),
        expected=acs3_signature,
    )


def v1_claim(received: Received) -> Claim:
    """Reads the parameters of signature 1.0; those of a form body are signed like those of the query."""
    params = received.params
    for name in _V1_PARAMS:
        if not params.get(name):
            raise missing_parameter(name)
    if params["SignatureMethod"] != "HMAC-SHA1" or params["SignatureVersion"] != "1.0":
        raise GatewayRefusal(400, "InvalidSignatureMethod", "Only HMAC-SHA1 in version 1.0 is supported.")
    signed = {name: value for name, value in params.items() if name != "Signature"}
    return Claim(
        key_id=params["AccessKeyId"],
        token=params.get("SecurityToken"),
        nonce=params["SignatureNonce"],
        date=params["Timestamp"],
        signature=params["Signature"],
        string_to_sign=rpc_string_to_sign(received.method, signed),
        expected=rpc_signature,
    )


class Gateway:
    """Remembers nonces and the calls of the last second. `limits` are calls per second by action; none: no limit."""

    def __init__(
        self,
        *,
        keys: Mapping[str, str],
        tokens: Mapping[str, str],
        now: Callable[[], float],
        limits: Mapping[str, int],
        habits: Callable[[], Habits],
    ) -> None:
        self._keys = keys
        self._tokens = tokens
        self._now = now
        self._limits = limits
        self._habits = habits
        self._nonces: dict[Nonce, float] = {}
        self._calls: dict[str, deque[float]] = {}

    def admit(self, received: Received, action: str) -> Nonce:
        """Lets an authentic, fresh call within the limit pass. Raises `GatewayRefusal`."""
        if not received.is_v3 and received.params.get("Format", "XML").upper() not in ("JSON", "XML"):
            raise GatewayRefusal(400, "InvalidParameter.Format", "The parameter Format must be XML or JSON.")
        claim = v3_claim(received) if received.is_v3 else v1_claim(received)
        now = self._now()
        _check_date(claim.date, now)
        self._check_signature(claim)
        nonce = self._checked_nonce(claim, now)
        try:
            self._check_limit(action, now)
        except GatewayRefusal:
            if not self._habits().throttled_burns_nonce:
                self.release(nonce)
            raise
        return nonce

    def release(self, nonce: Nonce) -> None:
        """Lets the nonce of a refused call be used again."""
        self._nonces.pop(nonce, None)

    def _check_signature(self, claim: Claim) -> None:
        secret = self._keys.get(claim.key_id)
        if secret is None:
            raise GatewayRefusal(404, "InvalidAccessKeyId.NotFound", "Specified access key is not found.")
        token = self._tokens.get(claim.key_id)
        if token is not None and not claim.token:
            raise GatewayRefusal(400, "MissingSecurityToken", "SecurityToken is mandatory for this action.")
        if (token or "") != (claim.token or ""):
            raise GatewayRefusal(
                400,
                "InvalidSecurityToken.MismatchWithAccessKey",
                "Specified SecurityToken mismatch with the AccessKey.",
            )
        expected = claim.expected(secret, claim.string_to_sign)
        if not hmac.compare_digest(expected.encode(), claim.signature.encode()):
            raise GatewayRefusal(
                400,
                "SignatureDoesNotMatch",
                "Specified signature is not matched with our calculation. "
                f"server string to sign is:{claim.string_to_sign}",
            )

    def _checked_nonce(self, claim: Claim, now: float) -> Nonce:
        habits = self._habits()
        # In order of age, so that the forgotten ones stand in front.
        while self._nonces and (oldest := next(iter(self._nonces.items())))[1] + habits.nonce_seconds < now:
            del self._nonces[oldest[0]]
        if 0 < habits.longest_nonce < len(claim.nonce):
            raise GatewayRefusal(400, "InvalidParameter", "Specified parameter SignatureNonce is too long.")
        nonce = (claim.key_id if habits.nonce_is_per_key else "", claim.nonce)
        if nonce in self._nonces:
            raise GatewayRefusal(400, "SignatureNonceUsed", "Specified signature nonce was used already.")
        self._nonces[nonce] = now
        return nonce

    def _check_limit(self, action: str, now: float) -> None:
        limit = self._limits.get(action)
        if limit is None:
            return
        calls = self._calls.setdefault(action, deque())
        while calls and calls[0] + 1.0 <= now:
            calls.popleft()
        if len(calls) >= limit:
            habits = self._habits()
            raise GatewayRefusal(
                habits.throttling_status,
                habits.throttling_code,
                "Request was denied due to user flow control.",
                retry_after_ms=habits.retry_after_ms,
            )
        calls.append(now)


def _check_date(date: str, now: float) -> None:
    try:
        at = datetime.strptime(date, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise GatewayRefusal(400, "InvalidTimeStamp.Format", "Specified time stamp is not well formatted.") from None
    if abs(now - at) > SKEW_SECONDS:
        raise GatewayRefusal(400, "InvalidTimeStamp.Expired", "Specified time stamp or date value is expired.")


def missing_parameter(name: str) -> GatewayRefusal:
    """A parameter that must be given was not."""
    return GatewayRefusal(400, f"Missing{name}", f"{name} is mandatory for this action.")


def _ascii(raw: bytes) -> str:
    try:
        return raw.decode("ascii")
    except UnicodeDecodeError:
        raise GatewayRefusal(400, "InvalidParameter", "The parameters are not percent-encoded.") from None


def _pairs(text: str) -> Pairs:
    try:
        return tuple(parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=1000))
    except ValueError:
        raise GatewayRefusal(400, "InvalidParameter", "The parameters are not percent-encoded UTF-8.") from None

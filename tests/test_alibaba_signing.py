"""Both signatures, step by step, against published vectors and against Alibaba's own signers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl

import httpx
import pytest
from alibabacloud_tea_openapi.utils import Utils
from aliyunsdkcore.auth.algorithm import sha_hmac1
from aliyunsdkcore.auth.composer import rpc_signature_composer
from darabonba.request import DaraRequest
from hypothesis import given
from hypothesis import strategies as st

from bot.alibaba.credentials import Credentials
from bot.alibaba.signing import (
    Acs3Auth,
    RpcAuth,
    acs3_canonical_request,
    acs3_signature,
    acs3_signed_headers,
    acs3_string_to_sign,
    canonical_query,
    percent_encode,
    rpc_signature,
    rpc_string_to_sign,
    timestamp,
)

VECTORS = Path(__file__).parent / "vectors"
V1 = json.loads((VECTORS / "signature_v1.json").read_text())
V3 = json.loads((VECTORS / "signature_v3.json").read_text())["vectors"]
NONCE = "0123456789abcdef0123456789abcdef"
DATE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
KEY = Credentials("testid", "testsecret")
HOST = "iot.cn-shanghai.aliyuncs.com"
CANCEL = next(vector for vector in V3 if vector["name"] == "cancel")

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
parameters = st.dictionaries(names, texts.filter(bool), min_size=1, max_size=6)
header_values = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=20)


def named(vectors: list[dict[str, Any]]) -> Any:
    return pytest.mark.parametrize("vector", vectors, ids=lambda vector: vector["name"])


@named(V1["vectors"])
def test_v1_string_to_sign_is_that_of_the_vector(vector: dict[str, Any]) -> None:
    assert rpc_string_to_sign(vector["method"], vector["params"]) == vector["string_to_sign"]


@named(V1["vectors"])
def test_v1_signature_is_that_of_the_vector(vector: dict[str, Any]) -> None:
    assert rpc_signature(V1["secret"], vector["string_to_sign"]) == vector["signature"]


@named(V3)
def test_v3_canonical_request_is_that_of_the_vector(vector: dict[str, Any]) -> None:
    canonical = acs3_canonical_request(
        method="POST", path="/", query=vector["query"], headers=vector["headers"], body=b""
    )
    assert canonical.split("\n") == vector["canonical_request"]


@named(V3)
def test_v3_string_to_sign_holds_the_hash_of_the_vector(vector: dict[str, Any]) -> None:
    string_to_sign = acs3_string_to_sign("\n".join(vector["canonical_request"]))
    assert string_to_sign == f"ACS3-HMAC-SHA256\n{vector['canonical_hash']}"


@named(V3)
def test_v3_signature_is_that_of_the_vector(vector: dict[str, Any]) -> None:
    string_to_sign = f"ACS3-HMAC-SHA256\n{vector['canonical_hash']}"
    assert acs3_signature(vector["secret"], string_to_sign) == vector["signature"]


# The official V3 signer leaves names unencoded, against its own document: so names are those that an API can have.
@given(
    query=st.dictionaries(st.from_regex(r"[A-Za-z][A-Za-z0-9._-]{0,12}", fullmatch=True), texts, max_size=6),
    headers=st.dictionaries(st.from_regex(r"x-acs-[a-z-]{1,10}", fullmatch=True), header_values),
)
def test_v3_agrees_with_the_official_signer(query: dict[str, str], headers: dict[str, str]) -> None:
    signed = {"host": HOST, "content-type": "application/json", **headers}
    request = DaraRequest()
    request.method, request.pathname, request.query, request.headers = "POST", "/", dict(query), dict(signed)
    payload = acs3_canonical_request(method="", path="/", query={}, headers={}, body=b"{}").rpartition("\n")[2]
    official = Utils.get_authorization(request, "ACS3-HMAC-SHA256", payload, "testid", "testsecret")

    canonical = acs3_canonical_request(method="POST", path="/", query=query, headers=signed, body=b"{}")
    ours = acs3_signature("testsecret", acs3_string_to_sign(canonical))

    assert official == (
        f"ACS3-HMAC-SHA256 Credential=testid,SignedHeaders={acs3_signed_headers(signed)},Signature={ours}"
    )


@given(params=parameters, method=st.sampled_from(["GET", "POST"]))
def test_v1_agrees_with_the_official_signer(params: dict[str, str], method: str) -> None:
    compose = rpc_signature_composer.__compose_string_to_sign
    official = compose(method, params)
    assert rpc_string_to_sign(method, params) == official
    assert rpc_signature("testsecret", official) == sha_hmac1.get_sign_string(official, "testsecret&")


@given(params=st.lists(st.tuples(names, texts), max_size=6))
def test_a_canonical_query_reads_back_as_the_same_parameters(params: list[tuple[str, str]]) -> None:
    assert parse_qsl(canonical_query(params), keep_blank_values=True) == sorted(params)


@pytest.mark.parametrize(
    ("text", "encoded"),
    [("a b", "a%20b"), ("*", "%2A"), ("~-_.", "~-_."), ("+", "%2B"), ("/", "%2F"), ("é", "%C3%A9"), ("", "")],
)
def test_percent_encoding_follows_rfc_3986(text: str, encoded: str) -> None:
    assert percent_encode(text) == encoded


def test_header_names_are_lowered_and_values_trimmed_before_they_are_signed() -> None:
    lines = acs3_canonical_request(
        method="POST", path="", query=[], headers={"X-Acs-B": " two ", "Host": "h"}, body=b""
    ).split("\n")
    assert lines[:7] == ["POST", "/", "", "host:h", "x-acs-b:two", "", "host;x-acs-b"]


def test_a_time_of_another_zone_is_written_in_utc() -> None:
    assert timestamp(DATE.astimezone(timezone(timedelta(hours=8))).replace(microsecond=9)) == "2026-01-02T03:04:05Z"


def request_of(query: Mapping[str, str], **more: Any) -> httpx.Request:
    return httpx.Request("POST", f"https://{HOST}/", params=dict(query), **more)


def acs3_request(credentials: Credentials = KEY, **more: Any) -> httpx.Request:
    action = {"x-acs-action": "CancelOTATaskByJob", "x-acs-version": "2018-01-20"}
    headers = {**action, **more.pop("headers", {})}
    request = request_of(CANCEL["query"], headers=headers, **more)
    return next(Acs3Auth(credentials, nonce=NONCE, date=DATE).auth_flow(request))


def rpc_request(credentials: Credentials = KEY) -> httpx.Request:
    common = {"Action": "CancelOTATaskByJob", "Version": "2018-01-20", "Format": "JSON", "RegionId": "cn-shanghai"}
    return next(RpcAuth(credentials, nonce=NONCE, date=DATE).auth_flow(request_of({**CANCEL["query"], **common})))


def wire(request: httpx.Request) -> tuple[bytes, list[tuple[bytes, bytes]], bytes]:
    return request.url.raw_path, list(request.headers.raw), request.content


def test_the_v3_auth_signs_a_call_as_the_vector_says() -> None:
    authorization = acs3_request().headers["authorization"]
    assert authorization == (
        "ACS3-HMAC-SHA256 Credential=testid,SignedHeaders=host;x-acs-action;x-acs-content-sha256;x-acs-date;"
        f"x-acs-signature-nonce;x-acs-version,Signature={CANCEL['signature']}"
    )


def test_the_v3_auth_signs_the_token_of_temporary_keys() -> None:
    vector = next(vector for vector in V3 if vector["name"] == "cancel-STS")
    request = acs3_request(Credentials("testid", "testsecret", "CAISstsTOKEN"))
    assert request.headers["x-acs-security-token"] == "CAISstsTOKEN"
    assert request.headers["authorization"].endswith(f"Signature={vector['signature']}")


def test_the_v3_auth_signs_what_proxies_leave_alone_and_nothing_else() -> None:
    request = acs3_request(headers={"accept": "application/json", "user-agent": "x"}, json={"a": 1})
    names_signed = request.headers["authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
    assert names_signed == [
        "content-type",
        "host",
        "x-acs-action",
        "x-acs-content-sha256",
        "x-acs-date",
        "x-acs-signature-nonce",
        "x-acs-version",
    ]
    assert request.headers["x-acs-content-sha256"] != CANCEL["headers"]["x-acs-content-sha256"]


def test_the_v1_auth_signs_a_call_as_the_vector_says() -> None:
    query = parse_qs(rpc_request().url.query.decode())
    assert query["Signature"] == ["5bKI0IsJ5vVqotcGMNXUO0xnC3Y="]
    assert query["JobId"] == ["7glPHmaDYLAYMD1HHutT02****"]


def test_the_v1_auth_sends_and_signs_the_token_of_temporary_keys() -> None:
    query = dict(parse_qsl(rpc_request(Credentials("testid", "testsecret", "CAISstsTOKEN")).url.query.decode()))
    signature = query.pop("Signature")
    assert query["SecurityToken"] == "CAISstsTOKEN"
    assert signature == rpc_signature("testsecret", rpc_string_to_sign("POST", query))


@pytest.mark.parametrize("make", [acs3_request, rpc_request])
def test_the_same_nonce_and_date_give_the_same_bytes(make: Any) -> None:
    assert wire(make()) == wire(make())


@pytest.mark.parametrize("auth", [Acs3Auth, RpcAuth])
def test_a_request_that_is_signed_twice_differs_in_its_nonce(auth: Any) -> None:
    first = next(auth(KEY, nonce="one", date=DATE).auth_flow(request_of(CANCEL["query"])))
    second = next(auth(KEY, nonce="two", date=DATE).auth_flow(request_of(CANCEL["query"])))
    assert wire(first) != wire(second)


@pytest.mark.parametrize("make", [acs3_request, rpc_request])
def test_the_secret_is_never_sent(make: Any) -> None:
    assert "testsecret" not in str(wire(make()))

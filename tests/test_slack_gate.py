"""The gate: what Slack signed for us comes in, whatever else there is does not, and nothing makes it stumble."""

from __future__ import annotations

import hashlib
import hmac
import json
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slack_sdk.signature import SignatureVerifier

from bot.slack.gate import MAX_BYTES, Admitted, Answered, Gate, Identity, Kind

SECRET = "8f742231b10e8888abcd99yyyzzz85a5"
NOW = 1531420618
PUBLISHED_BODY = (
    "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
    "&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
    "&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
    "&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
)
PUBLISHED_SIGNATURE = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"
GATE = Gate(Identity("T1DC2JH3J", "A1", "E1", "UBOT"), signing_secret=SECRET)
FORM = "application/x-www-form-urlencoded"


def signed(body: str, *, at: int = NOW, content_type: str = FORM) -> dict[str, str]:
    signature = SignatureVerifier(SECRET).generate_signature(timestamp=str(at), body=body)
    return {"x-slack-request-timestamp": str(at), "x-slack-signature": signature or "", "content-type": content_type}


def signature_of(raw: bytes) -> str:
    """For bytes that are no text, which Slack's own verifier cannot sign."""
    return "v0=" + hmac.new(SECRET.encode(), b"v0:%d:%b" % (NOW, raw), hashlib.sha256).hexdigest()


def admit(body: str, **options: object) -> Admitted | Answered:
    return GATE.admit_http(signed(body, **options), body.encode(), now=NOW)  # type: ignore[arg-type]


def click(**bent: object) -> str:
    body = {
        "type": "block_actions",
        "api_app_id": "A1",
        "team": {"id": "T1DC2JH3J"},
        "user": {"id": "U1", "team_id": "T1DC2JH3J"},
        "trigger_id": "1.2.3",
        "actions": [],
    }
    return urlencode({"payload": json.dumps(body | bent)})


def test_slacks_published_example_is_admitted() -> None:
    headers = {"x-slack-request-timestamp": str(NOW), "x-slack-signature": PUBLISHED_SIGNATURE, "content-type": FORM}
    verdict = GATE.admit_http(headers, PUBLISHED_BODY.encode(), now=NOW)
    assert isinstance(verdict, Admitted)
    assert verdict.kind is Kind.COMMAND
    assert verdict.body["command"] == "/webhook-collect"
    assert verdict.key == "command:398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-slack-signature": PUBLISHED_SIGNATURE},
        {"x-slack-request-timestamp": str(NOW)},
        {"x-slack-request-timestamp": str(NOW), "x-slack-signature": PUBLISHED_SIGNATURE[:-1] + "0"},
        {"x-slack-request-timestamp": str(NOW), "x-slack-signature": "v0=é"},
        {"x-slack-request-timestamp": "soon", "x-slack-signature": PUBLISHED_SIGNATURE},
        {"x-slack-request-timestamp": "-1", "x-slack-signature": PUBLISHED_SIGNATURE},
        {"x-slack-request-timestamp": "９", "x-slack-signature": PUBLISHED_SIGNATURE},
        {"x-slack-request-timestamp": "9" * 400, "x-slack-signature": PUBLISHED_SIGNATURE},
    ],
)
def test_what_is_not_signed_by_slack_is_refused(headers: dict[str, str]) -> None:
    verdict = GATE.admit_http(headers, PUBLISHED_BODY.encode(), now=NOW)
    assert verdict == Answered(401, "invalid request", "signature or time")


@pytest.mark.parametrize("age", [-301, 301, 86400])
def test_what_is_not_fresh_is_refused_although_it_is_signed(age: int) -> None:
    verdict = GATE.admit_http(signed(click(), at=NOW - age), click().encode(), now=NOW)
    assert isinstance(verdict, Answered)
    assert verdict.status == 401


def test_without_a_signing_secret_nothing_is_admitted_over_http() -> None:
    socket_only = Gate(Identity("T1DC2JH3J"), signing_secret=None)
    assert isinstance(socket_only.admit_http(signed(click()), click().encode(), now=NOW), Answered)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("payload=%7Bbroken", FORM),
        ("payload=[1]", FORM),
        ("payload=" + "[" * 100_000, FORM),
        ("{broken", "application/json"),
        ('"text"', "application/json; charset=utf-8"),
        ("=&" * 65, FORM),
    ],
)
def test_a_signed_but_malformed_body_is_answered_without_stumbling(body: str, content_type: str) -> None:
    assert admit(body, content_type=content_type) == Answered(400, "malformed request", "malformed")


def test_a_signed_body_that_is_no_text_is_malformed() -> None:
    raw = b"payload=\xff\xfe"
    headers = signed("") | {"x-slack-signature": signature_of(raw)}
    assert GATE.admit_http(headers, raw, now=NOW) == Answered(400, "malformed request", "malformed")


def test_an_oversized_body_is_refused_before_anything_is_computed() -> None:
    assert GATE.admit_http({}, b"x" * (MAX_BYTES + 1), now=NOW) == Answered(413, "too large", "too large")


def test_the_url_check_is_answered_only_if_it_is_signed() -> None:
    body = json.dumps({"type": "url_verification", "challenge": "c"})
    assert admit(body, content_type="application/json") == Answered(200, "c", "url verification")
    assert GATE.admit_http({"content-type": "application/json"}, body.encode(), now=NOW).status == 401  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("bent", "why"),
    [
        ({"api_app_id": "A2"}, "another app"),
        ({"team": {"id": "T2"}}, "another team"),
        ({"user": {"id": "U1", "team_id": "T2"}}, "another team"),
        ({"team": None, "user": {"id": "U1"}}, "another team"),
        ({"team": {"id": "T2"}, "enterprise": {"id": "E2"}}, "another team"),
        ({"team": "T1DC2JH3J", "user": "U1"}, "another team"),
        ({"team_id": ["T1DC2JH3J"], "team": None, "user": None}, "another team"),
        ({"team": {"id": {"a": 1}}, "user": {"team_id": [1]}}, "another team"),
    ],
)
def test_what_belongs_to_others_is_refused(bent: dict[str, object], why: str) -> None:
    verdict = admit(click(**bent))
    assert isinstance(verdict, Answered)
    assert (verdict.status, verdict.why) == (403, why)


@pytest.mark.parametrize(
    "bent",
    [
        {},
        {"team": None, "user": {"id": "U1"}, "enterprise": {"id": "E1"}},
        {"team": {"id": "T3", "enterprise_id": "E1"}},
    ],
)
def test_what_is_ours_is_admitted(bent: dict[str, object]) -> None:
    verdict = admit(click(**bent))
    assert isinstance(verdict, Admitted)
    assert verdict.kind is Kind.ACTIONS


def test_copies_have_the_same_key_and_other_deliveries_another() -> None:
    first, copy, other = (admit(click(**bent)) for bent in ({}, {}, {"trigger_id": "9"}))
    assert isinstance(first, Admitted)
    assert isinstance(copy, Admitted)
    assert isinstance(other, Admitted)
    assert first.key == copy.key != other.key


def test_a_delivery_without_an_id_is_known_by_its_content() -> None:
    first, second = (GATE.admit_socket({"team_id": "T1DC2JH3J", "n": n}) for n in (1, 2))
    assert isinstance(first, Admitted)
    assert isinstance(second, Admitted)
    assert first.key != second.key


@given(st.binary(max_size=2000), st.sampled_from([FORM, "application/json", "", "text/é"]))
def test_no_signed_body_makes_the_gate_stumble(raw: bytes, content_type: str) -> None:
    headers = {
        "x-slack-request-timestamp": str(NOW),
        "x-slack-signature": signature_of(raw),
        "content-type": content_type,
    }
    assert isinstance(GATE.admit_http(headers, raw, now=NOW), Admitted | Answered)


@given(
    st.recursive(
        st.none() | st.booleans() | st.text() | st.integers(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_no_payload_of_the_socket_makes_the_gate_stumble(payload: object) -> None:
    assert isinstance(GATE.admit_socket(payload), Admitted | Answered)

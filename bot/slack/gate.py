"""The gate in front of everything that comes from Slack: what can be checked without a look-up.

Signature and freshness, size and form, our app, our team. It parses before Bolt does, so that nothing malformed is a
500, and what it admits is a dictionary of a known kind. Duplicates are recognised by the key that it gives to each
delivery, when the delivery is written down. Pure: bytes and a time in, a verdict out.

https://docs.slack.dev/authentication/verifying-requests-from-slack
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qsl

FRESH_SECONDS = 300
MAX_BYTES = 512 * 1024
MAX_FIELDS = 64


class Kind(StrEnum):
    """What Slack can deliver to us."""

    COMMAND = "command"
    ACTIONS = "block_actions"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Admitted:
    """A delivery that may go on to Bolt; `key` is the same for each copy of it."""

    kind: Kind
    body: dict[str, Any]
    key: str


@dataclass(frozen=True, slots=True)
class Answered:
    """A delivery that ends at the gate, with the HTTP status and text to answer. `why` is for the log."""

    status: int
    text: str
    why: str


@dataclass(frozen=True, slots=True)
class Identity:
    """Who we are at Slack, from `auth.test` at the start; `app_id` may be unknown to a bot token of old."""

    team_id: str
    app_id: str | None = None
    enterprise_id: str | None = None
    bot_user_id: str | None = None


class Gate:
    """Admits or answers. Without a signing secret (Socket Mode) nothing over HTTP is admitted."""

    def __init__(self, identity: Identity, *, signing_secret: str | None) -> None:
        self.identity = identity
        self._secret = signing_secret.encode() if signing_secret else None

    def admit_http(self, headers: Mapping[str, str], raw: bytes, *, now: float) -> Admitted | Answered:
        """`headers` with lower-case names; `now` in seconds since 1970."""
        if len(raw) > MAX_BYTES:
            return Answered(413, "too large", "too large")
        if not self._is_genuine(headers, raw, now):
            return Answered(401, "invalid request", "signature or time")
        body = _parsed(headers.get("content-type", ""), raw)
        if body is None:
            return Answered(400, "malformed request", "malformed")
        if body.get("ssl_check") == "1":
            return Answered(200, "", "ssl check")
        if body.get("type") == "url_verification":
            challenge = str(body.get("challenge", ""))[:200].encode("utf-8", "replace").decode()
            return Answered(200, challenge, "url verification")
        return self._admit(body)

    def admit_socket(self, payload: object) -> Admitted | Answered:
        """A payload from our own socket, which Slack authenticated when it was opened."""
        if not isinstance(payload, dict):
            return Answered(400, "malformed request", "malformed")
        return self._admit(payload)

    def _is_genuine(self, headers: Mapping[str, str], raw: bytes, now: float) -> bool:
        sent_at = headers.get("x-slack-request-timestamp", "")
        signature = headers.get("x-slack-signature", "")
        if self._secret is None or not (sent_at.isascii() and sent_at.isdigit() and len(sent_at) < 16):
            return False
        if abs(now - int(sent_at)) > FRESH_SECONDS or not signature.isascii():
            return False
        expected = hmac.new(self._secret, b"v0:" + sent_at.encode() + b":" + raw, hashlib.sha256).hexdigest()
        return hmac.compare_digest(f"v0={expected}", signature)

    def _admit(self, body: dict[str, Any]) -> Admitted | Answered:
        kind = _kind(body)
        if self.identity.app_id is not None and body.get("api_app_id") not in (None, self.identity.app_id):
            return Answered(403, "another app's request", "another app")
        if not self._is_our_team(body):
            return Answered(403, "another workspace's request", "another team")
        return Admitted(kind, body, _key(kind, body))

    def _is_our_team(self, body: dict[str, Any]) -> bool:
        """Commands name one team; interactions name the workspace and the person's own, and both must be ours."""
        enterprise = body.get("enterprise_id") or _at(body, "enterprise", "id") or _at(body, "team", "enterprise_id")
        named = (body.get("team_id"), _at(body, "team", "id"), _at(body, "user", "team_id"))
        teams = {team for team in named if isinstance(team, str) and team}
        if teams:
            ours = self.identity.team_id
            return teams == {ours} or (enterprise is not None and enterprise == self.identity.enterprise_id)
        return enterprise is not None and enterprise == self.identity.enterprise_id


def _at(body: dict[str, Any], name: str, field: str) -> str | None:
    inner = body.get(name)
    value = inner.get(field) if isinstance(inner, dict) else None
    return value if isinstance(value, str) else None


def _parsed(content_type: str, raw: bytes) -> dict[str, Any] | None:
    """The body of a form or of JSON as a dictionary; None if it is neither, or not what it says."""
    try:
        text = raw.decode()
        if content_type.partition(";")[0].strip().lower() == "application/json":
            body = json.loads(text)
        else:
            fields = dict(parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict"))
            body = json.loads(fields["payload"]) if "payload" in fields else fields
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _kind(body: dict[str, Any]) -> Kind:
    if isinstance(body.get("command"), str):
        return Kind.COMMAND
    return Kind.ACTIONS if body.get("type") == Kind.ACTIONS.value else Kind.OTHER


def _key(kind: Kind, body: dict[str, Any]) -> str:
    """Slack gives each command and each click a trigger of its own; an event has an id."""
    for name in ("trigger_id", "event_id"):
        if isinstance(value := body.get(name), str) and value:
            return f"{kind}:{value}"[:255]
    spelt = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return f"{kind}:{hashlib.sha256(spelt.encode()).hexdigest()}"

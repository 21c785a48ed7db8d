"""What an answer of the API says: bytes, status and headers in, a mapping or a `CloudError` out. No I/O.

The parsed body decides first: a call failed if its status is 400 or more, or if `Success` is not true. A `Code` alone
is no sign of failure. Two envelopes exist: IoT's own (Success, Code, ErrorMessage; also under HTTP 200) and the
gateway's (Code, Message), in JSON or XML, with names in either case.
https://www.alibabacloud.com/help/doc-detail/30561.html, https://www.alibabacloud.com/help/doc-detail/87387.htm
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Never
from xml.etree.ElementTree import Element, ParseError

from bot.errors import CloudLost, CloudRefused, CloudThrottled, CloudUnreachable

CLOCK_OFF = "invalidtimestamp.expired"
_TOO_MANY = "iot.common.toomanyrequest"
_BROKEN = frozenset(
    ("iot.system.systemexception", "iot.system.systemerror", "internalerror", "unknownerror", "serviceunavailable")
)
_EMPTY_CODES = frozenset(("", "200", "success", "ok"))
_XML_DEPTH = 32
MAX_MESSAGE_CHARACTERS = 300
_MAX_FACT_CHARACTERS = 100


class NotMade(CloudUnreachable):
    """The call was not made, for a reason on our side; the network has no part in it. The text is a clause."""


@dataclass(frozen=True, slots=True)
class Denial:
    """What RAM told about a refusal, as far as it did ("" is not told), in its own words.

    `kind` is ImplicitDeny (nothing allows it) or ExplicitDeny (a policy forbids it). The encoded message that comes
    with these is left out: whoever may decode it learns more than belongs into a channel.
    """

    action: str = ""
    principal: str = ""
    kind: str = ""
    policy_type: str = ""


class Refusal(CloudRefused):
    """A refusal with what only this edge knows: the refused action, what RAM told of it, how far our clock is ahead."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        request_id: str | None = None,
        status: int | None = None,
        action: str | None = None,
        clock_ahead_seconds: float | None = None,
        denial: Denial | None = None,
    ) -> None:
        super().__init__(code, message, request_id=request_id, status=status)
        self.action = action
        self.denial = denial
        self.clock_ahead_seconds = clock_ahead_seconds


def read_answer(
    body: bytes, *, status: int, headers: Mapping[str, str], action: str, sent_date: datetime
) -> Mapping[str, object]:
    """The parsed body of a success. Raises `CloudLost`, `CloudThrottled` or `Refusal` for everything else."""
    try:
        answer = parse_body(body)
    except (ValueError, ParseError, RecursionError) as problem:
        _raise_unreadable(status, headers, why=type(problem).__name__)
    fields = folded(answer)
    if status < 400 and is_true(fields.get("success")):
        return answer
    code = plain_text(fields.get("code"))
    if code.casefold() in _EMPTY_CODES and fields.get("success") is None:
        _raise_unreadable(status, headers, why="it says neither success nor failure")
    message = plain_text(fields.get("errormessage") or fields.get("message"))
    request_id = plain_text(fields.get("requestid")) or _header_id(headers)
    _raise_if_passing(code, message, request_id, status=status, headers=headers)
    ahead = _clock_ahead(headers, sent_date) if code.casefold() == CLOCK_OFF else None
    raise Refusal(
        code or "(no code)",
        message,
        request_id=request_id,
        status=status,
        action=action,
        clock_ahead_seconds=ahead,
        denial=_denial(fields.get("accessdenieddetail")),
    )


def parse_body(body: bytes) -> Mapping[str, object]:
    """The body as JSON would show it, whatever its content type claims. Raises ValueError or ParseError.

    In XML every leaf is text, and only a repeated element becomes a list: who reads a list takes a single one as well.
    """
    if body.lstrip().removeprefix(b"\xef\xbb\xbf")[:1] == b"<":
        parsed: object = _parse_xml(body)
    else:
        parsed = json.loads(body)
    if not isinstance(parsed, dict):
        raise ValueError("not an object")
    return parsed


def folded(fields: Mapping[str, object]) -> dict[str, object]:
    """The fields by lower-case name: some hosts of the API spell `requestId` for `RequestId`."""
    return {name.casefold(): value for name, value in fields.items()}


def is_true(value: object) -> bool:
    """True for JSON's true and for the text that XML and some gateways send."""
    return value is True or (isinstance(value, str) and value.strip().casefold() == "true")


def plain_text(value: object) -> str:
    """Foreign text as one harmless line: no control characters, at most 300 characters."""
    if isinstance(value, str) and _is_plain(value):
        return value
    text = value if isinstance(value, str) else "" if value is None or isinstance(value, (dict, list)) else str(value)
    line = " ".join("".join(character if character.isprintable() else " " for character in text[:2000]).split())
    return line if len(line) <= MAX_MESSAGE_CHARACTERS else line[: MAX_MESSAGE_CHARACTERS - 1] + "…"


def _is_plain(text: str) -> bool:
    """Whether `plain_text` would change nothing: most often so, and told much faster than done. Lists are long."""
    return len(text) <= MAX_MESSAGE_CHARACTERS and text.isprintable() and "  " not in text and text == text.strip()


def _parse_xml(body: bytes) -> object:
    from defusedxml.ElementTree import fromstring  # an XML answer is rare, and start-up should not pay for it

    root = fromstring(body, forbid_dtd=True)
    if _tag(root).casefold() == "html":
        raise ValueError("an HTML page")
    return _shape(root, depth=0)


def _shape(element: Element, *, depth: int) -> object:
    if depth > _XML_DEPTH:
        raise ValueError("nested too deeply")
    if not len(element):
        return (element.text or "").strip()
    children: dict[str, object] = {}
    for child in element:
        name, value = _tag(child), _shape(child, depth=depth + 1)
        if name not in children:
            children[name] = value
            continue
        earlier = children[name]
        if isinstance(earlier, list):
            earlier.append(value)
        else:
            children[name] = [earlier, value]
    return children


def _tag(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _raise_unreadable(status: int, headers: Mapping[str, str], *, why: str) -> Never:
    request_id = _header_id(headers)
    if status == 429:
        raise CloudThrottled(
            "HTTP 429", "", request_id=request_id, status=status, retry_after_seconds=_retry_after(headers)
        ) from None
    raise CloudLost(f"HTTP {status} with an answer that cannot be read ({why})", request_id=request_id) from None


def _raise_if_passing(
    code: str, message: str, request_id: str | None, *, status: int, headers: Mapping[str, str]
) -> None:
    """Raises for what is not a verdict: too many calls, or something broke over there."""
    name = code.casefold()
    retry_after = _retry_after(headers)
    is_throttling = name.startswith("throttling") or name == _TOO_MANY or status == 429
    if is_throttling or (retry_after is not None and status < 500):
        raise CloudThrottled(
            code or f"HTTP {status}", message, request_id=request_id, status=status, retry_after_seconds=retry_after
        )
    if status >= 500 or name in _BROKEN:
        raise CloudLost(f"HTTP {status}, {code or 'no code'}: {message}", request_id=request_id)


def _denial(detail: object) -> Denial | None:
    if not isinstance(detail, dict):
        return None
    given = folded(detail)
    names = ("authaction", "authprincipaldisplayname", "nopermissiontype", "policytype")
    denial = Denial(*(plain_text(given.get(name))[:_MAX_FACT_CHARACTERS] for name in names))
    return None if denial == Denial() else denial


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """x-acs-retry-after counts milliseconds; the SDK ignores what is not a positive integer, and so do we."""
    text = headers.get("x-acs-retry-after", "").strip()
    return int(text) / 1000 if text.isascii() and text.isdigit() and len(text) < 10 and int(text) else None


def _header_id(headers: Mapping[str, str]) -> str | None:
    return plain_text(headers.get("x-acs-request-id")) or None


def _clock_ahead(headers: Mapping[str, str], sent_date: datetime) -> float | None:
    try:
        theirs = parsedate_to_datetime(headers.get("date", ""))
    except ValueError:
        return None
    return (sent_date - (theirs if theirs.tzinfo else theirs.replace(tzinfo=UTC))).total_seconds()

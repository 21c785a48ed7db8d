"""Faults of the IoT simulator: what a test or a visitor of the sandbox may let go wrong.

A fault concerns one action or all, for so many calls or until it is cleared. It knows no HTTP; `iot` carries it out.
A refused connection cannot be simulated from inside a server: `DOWN` answers 503.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from random import Random
from typing import Any


class FaultKind(StrEnum):
    """What happens to a call. *It happens* means that the call takes effect, *nothing happened* that it doesn't."""

    LATENCY = "latency"
    """The call is taken up `seconds` later, and up to `jitter` seconds more."""
    DOWN = "down"
    """503, or another status; nothing happened."""
    HTML_PAGE = "html_page"
    """A proxy's page instead of an answer, 502 or another status; nothing happened."""
    LOST_THEN_TIMEOUT = "lost_then_timeout"
    """Nothing happens and no answer comes."""
    THROTTLE = "throttle"
    """The account's limit, in the words of `code`; `seconds` goes into x-acs-retry-after. Nothing happened."""
    REFUSE = "refuse"
    """An error: `code` and `status`. Codes `iot.` are the service's, others the gateway's. Nothing happened."""
    ACCEPT_THEN_TIMEOUT = "accept_then_timeout"
    """It happens, but no answer comes."""
    ACCEPT_THEN_CLOSE = "accept_then_close"
    """It happens, but the connection is closed in the middle of the answer."""
    ACCEPT_THEN_ERROR = "accept_then_error"
    """It happens, but the answer is an error: `code` and `status`."""
    ACCEPT_THEN_HTML = "accept_then_html"
    """It happens, but a proxy's page comes instead of the answer."""
    TRUNCATED = "truncated"
    """It happens, and half of the answer comes, as if it were all."""
    MALFORMED = "malformed"
    """It happens, and the answer is neither JSON nor XML, although it looks like it."""
    WRONG_TYPE = "wrong_type"
    """It happens, and the answer says that it is plain text."""
    EMPTY = "empty"
    """It happens, and the answer has no body."""
    LISTED = "listed"
    """It happens, and the answer's JSON is a list."""
    HUGE = "huge"
    """It happens, and the answer is of many megabytes."""
    NO_TOTAL = "no_total"
    """It happens, and the answer has no Total."""
    NO_SUCCESS = "no_success"
    """It happens, and the answer doesn't say whether it is a success."""


PAGES = (FaultKind.HTML_PAGE, FaultKind.ACCEPT_THEN_HTML)
_DEFAULTS = {
    FaultKind.THROTTLE: ("Throttling.User", 400),
    FaultKind.REFUSE: ("InternalError", 500),
    FaultKind.ACCEPT_THEN_ERROR: ("InternalError", 500),
    **dict.fromkeys(PAGES, ("", 502)),
}
_LONGEST_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Fault:
    """`action` None: every action. `calls` None: until cleared."""

    kind: FaultKind
    action: str | None = None
    calls: int | None = None
    seconds: float = 0.0
    code: str = ""
    status: int = 0
    jitter: float = 0.0

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Fault:
        """A fault as `POST /_sandbox/faults` takes it. Raises ValueError with a sentence."""
        unknown = set(fields) - {"kind", "action", "calls", "seconds", "code", "status", "jitter"}
        if unknown:
            raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
        try:
            kind = FaultKind(fields.get("kind", ""))
        except ValueError:
            raise ValueError(f"kind must be one of {', '.join(FaultKind)}") from None
        calls, action, code = fields.get("calls"), fields.get("action"), fields.get("code", "")
        if calls is not None and (not isinstance(calls, int) or isinstance(calls, bool) or calls < 1):
            raise ValueError("calls must be a whole number from 1, or absent")
        if not isinstance(action, str | None) or not isinstance(code, str):
            raise ValueError("action and code must be text")
        status = _status(fields.get("status", 0), may_be_200=kind in PAGES or code.startswith("iot."))
        return cls(kind, action, calls, _seconds(fields, "seconds"), code, status, _seconds(fields, "jitter"))

    @property
    def answer(self) -> tuple[str, int]:
        """The code and the status of a refusal. Status 0: that of the service's other errors."""
        code, status = _DEFAULTS.get(self.kind, ("ServiceUnavailable", 503))
        return self.code or code, self.status or (0 if self.code.startswith("iot.") else status)


class Faults:
    """The faults that stand, oldest first. Jitter is drawn from `seed`."""

    def __init__(self, *, seed: int = 1) -> None:
        self._standing: list[Fault] = []
        self._random = Random(seed)  # noqa: S311 - a game of chance, not a secret

    @property
    def standing(self) -> tuple[Fault, ...]:
        return tuple(self._standing)

    def add(self, fault: Fault) -> None:
        self._standing.append(fault)

    def clear(self) -> None:
        self._standing.clear()

    def delay(self, fault: Fault) -> float:
        """How many seconds a call waits for a fault of latency."""
        return fault.seconds + self._random.random() * fault.jitter

    def take(self, kind: FaultKind, action: str) -> Fault | None:
        """The fault that hits this call, used up by one call; or None."""
        for place, fault in enumerate(self._standing):
            if fault.kind is not kind or fault.action not in (None, action):
                continue
            if fault.calls is not None and fault.calls <= 1:
                del self._standing[place]
            elif fault.calls is not None:
                self._standing[place] = replace(fault, calls=fault.calls - 1)
            return fault
        return None


def _seconds(fields: Mapping[str, Any], name: str) -> float:
    value = fields.get(name, 0)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= _LONGEST_SECONDS:
        raise ValueError(f"{name} must be a number between 0 and {_LONGEST_SECONDS}")
    return float(value)


def _status(value: object, *, may_be_200: bool) -> int:
    if isinstance(value, int) and (value == 0 or 400 <= value <= 599 or (value == 200 and may_be_200)):
        return value
    raise ValueError("status must be between 400 and 599 (200 too, for pages and codes of the service)")

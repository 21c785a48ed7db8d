"""Faults of the IoT simulator: what a test or a visitor of the sandbox may let go wrong.

A fault concerns one action or all, for so many calls or until it is cleared. It knows no HTTP; `iot` carries it out.
A refused connection cannot be simulated from inside a server: `DOWN` answers 503.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any


class FaultKind(StrEnum):
    LATENCY = "latency"
    """The call is taken up `seconds` later."""
    DOWN = "down"
    """503, nothing happened."""
    HTML_PAGE = "html_page"
    """A proxy's page instead of an answer, nothing happened."""
    LOST_THEN_TIMEOUT = "lost_then_timeout"
    """Nothing happens and no answer comes."""
    THROTTLE = "throttle"
    """The account's limit, in the words of `code`; `seconds` goes into x-acs-retry-after."""
    REFUSE = "refuse"
    """An error of the gateway: `code` and `status`."""
    ACCEPT_THEN_TIMEOUT = "accept_then_timeout"
    """It happens, but no answer comes."""
    ACCEPT_THEN_CLOSE = "accept_then_close"
    """It happens, but the connection is closed in the middle of the answer."""
    TRUNCATED = "truncated"
    """It happens, and half of the answer comes, as if it were all."""


_DEFAULT_CODES = {FaultKind.THROTTLE: ("Throttling.User", 400), FaultKind.REFUSE: ("InternalError", 500)}


@dataclass(frozen=True, slots=True)
class Fault:
    """`action` None: every action. `calls` None: until cleared."""

    kind: FaultKind
    action: str | None = None
    calls: int | None = None
    seconds: float = 0.0
    code: str = ""
    status: int = 0

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Fault:
        """A fault as `POST /_sandbox/faults` takes it. Raises ValueError with a sentence."""
        unknown = set(fields) - {"kind", "action", "calls", "seconds", "code", "status"}
        if unknown:
            raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
        try:
            kind = FaultKind(fields.get("kind", ""))
        except ValueError:
            raise ValueError(f"kind must be one of {', '.join(FaultKind)}") from None
        calls, seconds, status = fields.get("calls"), fields.get("seconds", 0), fields.get("status", 0)
        if not _is_number(seconds) or not 0 <= seconds <= 600:
            raise ValueError("seconds must be a number between 0 and 600")
        if calls is not None and (not isinstance(calls, int) or isinstance(calls, bool) or calls < 1):
            raise ValueError("calls must be a whole number from 1, or absent")
        if not isinstance(status, int) or not (status == 0 or 400 <= status <= 599):
            raise ValueError("status must be between 400 and 599")
        action, code = fields.get("action"), fields.get("code", "")
        if not isinstance(action, str | None) or not isinstance(code, str):
            raise ValueError("action and code must be text")
        return cls(kind, action, calls, float(seconds), code, status)

    @property
    def answer(self) -> tuple[str, int]:
        """The code and the status of a refusal."""
        code, status = _DEFAULT_CODES.get(self.kind, ("ServiceUnavailable", 503))
        return self.code or code, self.status or status


class Faults:
    """The faults that stand, oldest first."""

    def __init__(self) -> None:
        self._standing: list[Fault] = []

    @property
    def standing(self) -> tuple[Fault, ...]:
        return tuple(self._standing)

    def add(self, fault: Fault) -> None:
        self._standing.append(fault)

    def clear(self) -> None:
        self._standing.clear()

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


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

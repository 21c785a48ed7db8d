"""Watching signed calls: how long each waited for its slot, how long it took, and what came of it.

What it does not do: make a call, or decide anything by what it saw.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from types import TracebackType

from bot.alibaba.answers import NotMade, plain_text
from bot.alibaba.codes import known_code
from bot.errors import CloudLost, CloudRefused, CloudThrottled, CloudUnreachable, LeaseLost
from bot.ports.telemetry import CallMade, Telemetry

OK, NOT_MADE, UNREACHABLE, LOST = "ok", "not_made", "unreachable", "lost"
CANCELLED, BROKEN, OTHER = "cancelled", "broken", "other"
MOST_CHARACTERS = 100
_PART = re.compile(r"[A-Za-z0-9_-]{1,40}")


class CallWatch:
    """Of one signed call. `begin` when its slot is waited for, enter it around the call itself; `asks` and `hears` are
    told what is in it."""

    def __init__(
        self,
        telemetry: Telemetry,
        *,
        instance: str,
        action: str,
        step: str,
        nonce: str | None = None,
        copy: int = 1,
        seconds: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._telemetry = telemetry
        self._instance = instance
        self._action = action
        self._step = step
        self._nonce = nonce
        self._copy = copy
        self._seconds = seconds
        self._job: str | None = None
        self._request_id: str | None = None
        self._began_at = seconds()
        self._sent_at: float | None = None

    def begin(self) -> None:
        self._began_at = self._seconds()

    def asks(self, params: Mapping[str, str]) -> None:
        self._job = params.get("JobId")

    def hears(self, request_id: str | None) -> None:
        self._request_id = request_id

    def not_made(self, error: NotMade) -> NotMade:
        """It got no slot."""
        self._tell(error)
        return error

    def __enter__(self) -> None:
        self._sent_at = self._seconds()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._tell(error)

    def _tell(self, error: BaseException | None) -> None:
        now, sent_at = self._seconds(), self._sent_at
        code = _code_of(error)
        is_made = sent_at is not None and code != NOT_MADE
        self._telemetry.note(
            CallMade(
                instance=self._instance,
                action=self._action,
                step=self._step,
                code=code,
                family=_family(code, error),
                waited_seconds=(now if sent_at is None else sent_at) - self._began_at,
                seconds=now - sent_at if is_made and sent_at is not None else None,
                is_throttled=isinstance(error, CloudThrottled),
                job=self._job,
                request_id=self._request_id or plain_text(getattr(error, "request_id", None)) or None,
                nonce=self._nonce,
                copy=self._copy,
            )
        )


def _code_of(error: BaseException | None) -> str:
    if error is None:
        return OK
    if isinstance(error, CloudRefused):
        return plain_text(error.code)[:MOST_CHARACTERS]
    if isinstance(error, NotMade | LeaseLost):
        return NOT_MADE
    words = {CloudUnreachable: UNREACHABLE, CloudLost: LOST, asyncio.CancelledError: CANCELLED}
    return next((word for kind, word in words.items() if isinstance(error, kind)), BROKEN)


def _family(code: str, error: BaseException | None) -> str:
    """A foreign code may hold anything, ids of devices as well: what is not known is cut down to its beginning."""
    if not isinstance(error, CloudRefused):
        return code
    if (known := known_code(code)) is not None:
        return known
    beginning = code.split(".")[:2]
    return ".".join(beginning) if all(_PART.fullmatch(part) for part in beginning) else OTHER

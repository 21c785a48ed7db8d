"""How many calls an account may have under way, per operation, so that the cloud never has to throttle us.

The limits are calls per second and account, shared by all its users and roles. A slot is one call allowed; it is free
again a second after its call completed, so that no sliding second holds more calls than the limit, as the server counts
them. This budget knows one process alone.
https://www.alibabacloud.com/help/doc-detail/147909.htm and the pages of the other operations.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import IntEnum
from typing import Protocol

from bot.errors import CloudRefused, CloudThrottled, CloudUnreachable

LIMITS = {
    "CancelOTATaskByJob": 5,
    "CancelOTAStrategyByJob": 10,
    "QueryOTAJob": 10,
    "ListOTATaskByJob": 10,
    "ListOTAJobByFirmware": 10,
    "ListOTAFirmware": 10,
}
_SMALLEST_LIMIT = 5
_SECOND = 1.0
_MARGIN = 0.05
_LONGEST_PAUSE = 60.0


class CallClass(IntEnum):
    """Who goes first. A follower may hold at most half of the slots; the others all of them."""

    STOP = 0
    PREVIEW = 1
    FOLLOW = 2


class Timer(Protocol):
    """The part of an event loop that is needed here."""

    def time(self) -> float: ...

    def call_at(self, when: float, callback: Callable[..., object], *args: object) -> object: ...


class Budget:
    """Slots by account and operation. `timer` is the running event loop unless a test brings its own."""

    def __init__(self, *, timer: Timer | None = None) -> None:
        self._timer = timer
        self._lanes: dict[tuple[str, str], _Lane] = {}

    @asynccontextmanager
    async def slot(
        self, account: str, action: str, call_class: CallClass, *, timeout_seconds: float = 10.0
    ) -> AsyncIterator[None]:
        """Waits for a slot and holds it while the call is made.

        Any end but an answer (or a call that was not sent) keeps the slot until the call's time-out and a second more:
        the cloud may still be about to count it.
        """
        timer = self._timer or asyncio.get_running_loop()
        lane = self._lanes.get((account, action))
        if lane is None:
            lane = self._lanes[account, action] = _Lane(LIMITS.get(action, _SMALLEST_LIMIT), timer)
        await lane.enter(call_class)
        free_at = timer.time() + timeout_seconds + _SECOND
        try:
            yield
            free_at = timer.time() + _SECOND + _MARGIN
        except (CloudRefused, CloudUnreachable) as error:
            free_at = timer.time() + _SECOND + _MARGIN
            if isinstance(error, CloudThrottled):
                lane.pause(min(error.retry_after_seconds or _SECOND, _LONGEST_PAUSE))
            raise
        finally:
            timer.call_at(free_at, lane.release, call_class)


class _Lane:
    """One operation of one account: slots held (by calls under way or cooling down) and who waits, by class."""

    def __init__(self, limit: int, timer: Timer) -> None:
        self._timer = timer
        self._may_hold = {
            CallClass.STOP: limit,
            CallClass.PREVIEW: limit,
            CallClass.FOLLOW: max(1, limit // 2),
        }
        self._limit = limit
        self._held = dict.fromkeys(CallClass, 0)
        self._waiting: dict[CallClass, deque[asyncio.Future[None]]] = {each: deque() for each in CallClass}
        self._paused_until = 0.0

    async def enter(self, call_class: CallClass) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[call_class].append(turn)
        self._grant()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release(call_class)
            raise

    def release(self, call_class: CallClass) -> None:
        self._held[call_class] -= 1
        self._grant()

    def pause(self, seconds: float) -> None:
        self._paused_until = max(self._paused_until, self._timer.time() + seconds)
        self._timer.call_at(self._paused_until, self._resume, self._paused_until)

    def _resume(self, until: float) -> None:
        # A loop's timer may fire a little early by its own clock, so the clock is not asked again here.
        if until >= self._paused_until:
            self._paused_until = 0.0
            self._grant()

    def _grant(self) -> None:
        if self._paused_until:
            return
        for call_class in CallClass:
            waiting = self._waiting[call_class]
            while waiting and self._has_room(call_class):
                turn = waiting.popleft()
                if not turn.done():
                    self._held[call_class] += 1
                    turn.set_result(None)

    def _has_room(self, call_class: CallClass) -> bool:
        return sum(self._held.values()) < self._limit and self._held[call_class] < self._may_hold[call_class]

"""Whose turn it is: who waits in this process for one operation of one account, and the task that claims for them.

One transaction claims for all who wait. Where nothing is free, the next look comes when something can be: nobody polls.
What it does not do: decide when a slot is free again, or know any operation's limit (`budget`).
"""

from __future__ import annotations

import asyncio
import contextlib
from bisect import insort
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from bot.errors import CloudRefused, CloudThrottled, StoreUnavailable
from bot.ports import LONGEST_HOLD_SECONDS, Freed, Lane, Slot, Slots

SECOND = 1.003
"""The cloud's second, with a margin for two clocks that do not run at quite the same speed."""

ENTER_SECONDS = 1.0
"""A slot that nobody enters so soon after it was asked for is claimed anew: its time may be too short by then."""

_POLITE_SECONDS = 0.004
"""So much later than the class before it does a class look again, for the sake of those in other processes."""

_SERVED_SECONDS = 0.002
"""So much later than others of its class does a process look that was given a slot a moment ago."""

_MOMENT_SECONDS = 1.5


class CallClass(IntEnum):
    """Who goes first. From FOLLOW on it is the background, which holds at most half of the slots altogether."""

    STOP = 0
    PREVIEW = 1
    FOLLOW = 2
    EXPORT = 3
    DISCOVERY = 4

    @property
    def is_background(self) -> bool:
        return self >= CallClass.FOLLOW


class Alarm(Protocol):
    """What `Timer.call_later` gives."""

    def cancel(self) -> None: ...


class Timer(Protocol):
    """What waiting needs: a clock in seconds that is never set, and a call at some later time."""

    def time(self) -> float: ...

    def call_later(self, delay: float, callback: Callable[[], object]) -> Alarm: ...


async def rest(timer: Timer, until: float, *, awake: asyncio.Event | None = None) -> None:
    """Until a time on `timer`, or until `awake` is set by somebody else."""
    awake = awake or asyncio.Event()
    alarm = timer.call_later(max(0.0, until - timer.time()), awake.set)
    try:
        await awake.wait()
    finally:
        alarm.cancel()


@dataclass(frozen=True, slots=True)
class Granted:
    """A slot for somebody who waited. A call that is made with it must have ended at `call_ends_by`."""

    slot: Slot
    call_ends_by: float


@dataclass(frozen=True, slots=True)
class _Waiting:
    call_class: CallClass
    timeout_seconds: float
    turn: asyncio.Future[Granted]


class Returns:
    """Slots and pauses on their way to the database: what comes while one transaction is under way shares the next.

    What cannot be written is let go: the row is free by itself when its hold is over.
    """

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._freed: list[Freed] = []
        self._pauses: dict[Lane, float] = {}
        self._writing: asyncio.Task[None] | None = None

    def put_back(self, freed: Freed) -> None:
        self._freed.append(freed)
        self._write_soon()

    def pause(self, lane: Lane, until: float) -> None:
        self._pauses[lane] = max(until, self._pauses.get(lane, until))
        self._write_soon()

    async def close(self) -> None:
        """Waits until everything is written."""
        if self._writing is not None:
            await self._writing

    def _write_soon(self) -> None:
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all())

    async def _write_all(self) -> None:
        try:
            while self._freed or self._pauses:
                freed, self._freed = self._freed, []
                pauses, self._pauses = self._pauses, {}
                with contextlib.suppress(StoreUnavailable):
                    for lane, until in pauses.items():
                        await self._slots.pause(lane, until=until)
                    await self._slots.release(freed)
        finally:
            self._writing = None


class Queue:
    """Who waits in this process for the slots of one lane, by class, then by arrival."""

    def __init__(self, lane: Lane, slots: Slots, *, returns: Returns, timer: Timer) -> None:
        self._lane = lane
        self._slots = slots
        self._returns = returns
        self._timer = timer
        self._waiting: list[_Waiting] = []
        self._claiming: asyncio.Task[None] | None = None
        self._arrival = asyncio.Event()
        self._paused_at = self._served_at = float("-inf")
        self._throttlings = 0

    def join(self, call_class: CallClass, timeout_seconds: float) -> asyncio.Future[Granted]:
        """The turn of somebody who makes a call that takes at most so long. It may end in `StoreUnavailable`."""
        turn: asyncio.Future[Granted] = asyncio.get_running_loop().create_future()
        insort(self._waiting, _Waiting(call_class, timeout_seconds, turn), key=lambda each: each.call_class)
        if not call_class.is_background:
            self._arrival.set()
        if self._claiming is None:
            self._claiming = asyncio.create_task(self._claim_for_all())
        return turn

    def leave(self, turn: asyncio.Future[Granted]) -> None:
        """Ends a turn that is not used; a slot that it got goes to the next one here, or back."""
        if not turn.done():
            turn.cancel()
        elif not turn.cancelled() and turn.exception() is None:
            self._hand_out([turn.result()])

    def put_back(self, slot: Slot, *, free_at: float) -> None:
        self._returns.put_back(Freed(slot, free_at))

    def note(self, error: BaseException | None, *, began_at: float) -> None:
        """What the cloud said to a call: throttling makes everybody wait, longer each time until a call is taken."""
        is_news = began_at >= self._paused_at  # else it was under way already when the lane was paused
        if isinstance(error, CloudThrottled):
            self._throttlings += is_news
            seconds = error.retry_after_seconds or 2.0 ** max(0, min(self._throttlings, 7) - 1)
            self._paused_at = self._timer.time()
            self._returns.pause(self._lane, self._paused_at + min(seconds, LONGEST_HOLD_SECONDS))
        elif is_news and (error is None or isinstance(error, CloudRefused)):
            self._throttlings = 0

    async def close(self) -> None:
        """Ends all waiting."""
        for each in self._waiting:
            each.turn.cancel()
        if self._claiming is not None:
            self._claiming.cancel()
            await asyncio.wait([self._claiming])

    async def _claim_for_all(self) -> None:
        try:
            while self._still_waiting():
                self._arrival.clear()
                again_at, is_full = await self._claim_once()
                if again_at > 0 and self._still_waiting():
                    await self._rest(again_at, is_full=is_full)
        except Exception as error:  # whoever waits must hear of it, whatever it was
            for each in self._still_waiting():
                each.turn.set_exception(error)
            self._waiting.clear()
        finally:
            self._claiming = None

    def _still_waiting(self) -> list[_Waiting]:
        self._waiting = [each for each in self._waiting if not each.turn.done()]
        return self._waiting

    async def _claim_once(self) -> tuple[float, bool]:
        """When something can be free for who still waits, and whether until then the whole lane is full."""
        asked_at = self._timer.time()
        background = sum(each.call_class.is_background for each in self._waiting)
        foreground = len(self._waiting) - background
        longest_call = max(each.timeout_seconds for each in self._waiting) + ENTER_SECONDS
        claim = await self._slots.claim(
            self._lane, foreground=foreground, background=background, hold_seconds=longest_call + SECOND
        )
        if claim.slots:
            self._served_at = self._timer.time()
        self._hand_out([Granted(slot, asked_at + longest_call) for slot in claim.slots])
        return claim.again_at, len(claim.slots) < foreground

    def _hand_out(self, granted: Iterable[Granted]) -> None:
        """Slots to those who wait, the first to open first, then by falling number; what fits nobody goes back."""
        left = sorted(granted, key=lambda each: (each.slot.opens_at, -each.slot.number))
        for waiting in self._still_waiting():
            fitting = next((each for each in left if self._fits(each, waiting)), None)
            if fitting is not None:
                left.remove(fitting)
                waiting.turn.set_result(fitting)
        for each in left:
            self.put_back(each.slot, free_at=max(self._timer.time(), each.slot.opens_at))

    def _fits(self, granted: Granted, waiting: _Waiting) -> bool:
        if waiting.call_class.is_background and granted.slot.number >= self._lane.background_limit:
            return False
        return self._timer.time() + waiting.timeout_seconds <= granted.call_ends_by

    async def _rest(self, until: float, *, is_full: bool) -> None:
        """Until something can be free. Where the lane is not full, somebody for the foreground ends the rest."""
        until += self._waiting[0].call_class * _POLITE_SECONDS
        if self._timer.time() - self._served_at < _MOMENT_SECONDS:
            until += _SERVED_SECONDS
        await rest(self._timer, until, awake=None if is_full else self._arrival)

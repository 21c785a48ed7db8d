"""How many calls an account may have under way, per operation, so that the cloud never has to throttle us.

The limits are calls per second and account, shared by all its users and roles, and by all our processes: the slots are
rows of the database (`Slots`). A slot is one call allowed; it is free again a second after its call completed, so that
no sliding second holds more calls than the limit, as the server counts them. What it does not do: make the call, or
repeat it. https://www.alibabacloud.com/help/doc-detail/147909.htm and the pages of the other operations.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import TracebackType

from bot.alibaba.turns import ENTER_SECONDS, SECOND, Alarm, CallClass, Queue, Returns, Timer, rest
from bot.errors import CloudRefused, CloudUnreachable
from bot.ports import LONGEST_HOLD_SECONDS, Lane, Slot, Slots

__all__ = ["LIMITS", "LONGEST_CALL_SECONDS", "Budget", "CallClass", "Reservation"]

LIMITS = {
    "CancelOTAStrategyByJob": 10,
    "CancelOTATaskByDevice": 10,
    "CancelOTATaskByJob": 5,
    "ListOTAFirmware": 10,
    "ListOTAJobByDevice": 10,
    "ListOTAJobByFirmware": 10,
    "ListOTATaskByJob": 10,
    "ListOTAUnfinishedTaskByDevice": 10,
    "QueryOTAFirmware": 20,
    "QueryOTAJob": 10,
    "ReupgradeOTATask": 20,
    "UpdateOTAJob": 10,
}
_SMALLEST_LIMIT = 5

LONGEST_CALL_SECONDS = LONGEST_HOLD_SECONDS - SECOND - ENTER_SECONDS


class _LoopTimer:
    """The running loop's timers, and the clock below them: a loop's own clock may stand while it works."""

    def time(self) -> float:
        return time.monotonic()

    def call_later(self, delay: float, callback: Callable[[], object]) -> Alarm:
        return asyncio.get_running_loop().call_later(delay, callback)


class Budget:
    """Slots by account and operation; left, it ends all waiting and writes down what is given back.

    `timer` is the running event loop unless a test brings its own.
    """

    def __init__(self, slots: Slots, *, timer: Timer | None = None) -> None:
        self._slots = slots
        self._timer = timer or _LoopTimer()
        self._returns = Returns(slots)
        self._queues: dict[tuple[str, str], Queue] = {}

    @asynccontextmanager
    async def slot(
        self, account: str, action: str, call_class: CallClass, *, timeout_seconds: float = 10.0
    ) -> AsyncIterator[None]:
        """Waits for a slot and holds it while a call is made that takes at most `timeout_seconds`.

        Any end but an answer (or a call that was not sent) keeps the slot until the call's time-out and a second more:
        the cloud may still be about to count it. Raises `StoreUnavailable`, before anything inside is done, if the
        slots cannot be asked for.
        """
        async with self.reserve(account, action, call_class, timeout_seconds=timeout_seconds):
            yield

    def reserve(
        self, account: str, action: str, call_class: CallClass, *, timeout_seconds: float = 10.0
    ) -> Reservation:
        """Begins to take a slot for a call that is made soon: enter what is given, or drop it."""
        if timeout_seconds > LONGEST_CALL_SECONDS:
            raise ValueError(f"a call may take {LONGEST_CALL_SECONDS:g} s at most, not {timeout_seconds:g}")
        queue = self._queues.get((account, action))
        if queue is None:
            lane = Lane(account, action, LIMITS.get(action, _SMALLEST_LIMIT))
            queue = self._queues[account, action] = Queue(lane, self._slots, returns=self._returns, timer=self._timer)
        return Reservation(queue, self._timer, call_class=call_class, timeout_seconds=timeout_seconds)

    async def __aenter__(self) -> Budget:
        return self

    async def __aexit__(self, *_: object) -> None:
        for queue in self._queues.values():
            await queue.close()
        await self._returns.close()


class Reservation:
    """A slot that is being taken: `async with` waits until it is, and holds it while the call is made, once."""

    def __init__(self, queue: Queue, timer: Timer, *, call_class: CallClass, timeout_seconds: float) -> None:
        self._queue = queue
        self._timer = timer
        self._call_class = call_class
        self._timeout_seconds = timeout_seconds
        self._turn = queue.join(call_class, timeout_seconds)
        self._is_over = False
        self._slot: Slot | None = None
        self._entered_at = 0.0

    def drop(self) -> None:
        """Gives back at once what was not entered. May be called at any time, and more than once."""
        if not self._is_over:
            self._is_over = True
            self._queue.leave(self._turn)

    async def __aenter__(self) -> None:
        if self._is_over:
            raise RuntimeError("a reservation is entered once, and not after it was dropped")
        try:
            slot = await self._open_slot()
            while slot is None:
                self._queue.leave(self._turn)
                self._turn = self._queue.join(self._call_class, self._timeout_seconds)
                slot = await self._open_slot()
        except BaseException:
            self.drop()
            raise
        self._is_over = True
        self._slot, self._entered_at = slot, self._timer.time()

    async def _open_slot(self) -> Slot | None:
        """The slot when it is open; None if it comes too late for the whole call."""
        granted = await self._turn
        while self._timer.time() < granted.slot.opens_at:
            await rest(self._timer, granted.slot.opens_at)
        return granted.slot if self._timer.time() + self._timeout_seconds <= granted.call_ends_by else None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._slot is not None  # noqa: S101 (what was entered has one)
        if error is None or isinstance(error, CloudRefused | CloudUnreachable):
            free_at = self._timer.time() + SECOND
        else:
            free_at = self._entered_at + self._timeout_seconds + SECOND
        self._queue.note(error, began_at=self._entered_at)
        self._queue.put_back(self._slot, free_at=free_at)

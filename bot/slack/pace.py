"""How fast posts leave this process: as Slack takes them, and what people wait for first.

Slack lets an app post about one message a second into a channel, with short bursts. What comes faster is answered with
429 or, worse, not shown to people. So a process holds itself back before it is told to, and where there is not room for
all, cards, buttons and last lines go first. Updates (some fifty a minute in a workspace, at least) wait for nobody, but
progress, which will be said again anyway, takes only what the others leave of them. A 429 closes its method for the
whole workspace, not for a channel alone: for as long as it says, the method rests for everybody in this process.

What it is not: a limit that replicas share (each paces itself, and Slack's 429 settles the rest), nor one on the whole
workspace's posts ("several hundred a minute", which Slack leaves open). It keeps no order either: a lane does that, by
sending one post after the other.

https://docs.slack.dev/apis/web-api/rate-limits · …/reference/methods/chat.postMessage
"""

from __future__ import annotations

import asyncio
import time
from bisect import insort
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from itertools import count

from bot.errors import OtabrakeError

LINES_KEPT = 1000
_NEARLY = 0.001
"""A part of a turn, and of a second, that no clock need tell apart."""


class Method(StrEnum):
    POST = "chat.postMessage"
    UPDATE = "chat.update"
    EPHEMERAL = "chat.postEphemeral"


class Urgency(IntEnum):
    """Who goes first. `SPARE` never waits: what it would say is said anew soon, and the others may need the turn."""

    NOW = 0
    SOON = 1
    LATE = 2
    SPARE = 3


@dataclass(frozen=True, slots=True)
class Rate:
    """So many calls at once, and one more every so many seconds. If it `is_loose`, only `SPARE` ones are held back."""

    burst: int
    seconds: float
    is_loose: bool = False


RATES: Mapping[Method, Rate] = {Method.POST: Rate(8, 1.0), Method.UPDATE: Rate(20, 1.2, is_loose=True)}
"""Slack's documented rates (special, and Tier 3, which is a floor); how large a burst may be it does not say."""

_A_CHANNEL = frozenset({Method.POST})
"""Methods whose rate is one for each channel; the others have one for all."""


class NoSpareTurn(OtabrakeError):
    """Others go first, or the method rests: what can be said later is not said now."""


class Pace:
    """When each call may leave. `now` tells seconds; without rates nothing waits but for a 429."""

    def __init__(
        self,
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rates: Mapping[Method, Rate] = RATES,
    ) -> None:
        self._now = now
        self._sleep = sleep
        self._rates = rates
        self._lines: dict[tuple[Method, str], _Line] = {}
        self._rests: dict[Method, _Rest] = {}
        self._numbers = count()
        self._slept_ahead = 0.0

    async def turn(self, method: Method, channel: str, urgency: Urgency) -> None:
        """Returns when this call may leave. Raises `NoSpareTurn`, if it is one that does not wait."""
        line = self._line(method, channel)
        if urgency is Urgency.SPARE:
            if self._rest_left(method) or not line.has_spare(self._time()):
                raise NoSpareTurn(method)
            line.take(self._time())
            return
        me = _Waiter(urgency, next(self._numbers))
        insort(line.waiting, me)
        try:
            await self._be_first(line, me, method)
            line.take(self._time())
        finally:
            line.waiting.remove(me)
            if line.waiting:
                line.waiting[0].is_first.set()

    async def _be_first(self, line: _Line, me: _Waiter, method: Method) -> None:
        """Only the first one watches the clock; somebody more urgent may take its place meanwhile."""
        while True:
            if line.waiting[0] is not me:
                me.is_first.clear()
                await me.is_first.wait()
            elif seconds := max(self._rest_left(method), line.seconds_left(self._time())):
                await self._pass(seconds)
            else:
                return

    async def _pass(self, seconds: float) -> None:
        """What was slept has passed, also where the clock stands or jumps back meanwhile: who waits gets on."""
        until = self._time() + seconds
        await self._sleep(seconds)
        self._slept_ahead += max(0.0, until - self._time())

    def _time(self) -> float:
        return self._now() + self._slept_ahead

    def rest(self, method: Method, seconds: float) -> None:
        """Slack asked for this pause."""
        if seconds > self._rest_left(method):
            self._rests[method] = _Rest(self._time(), seconds)

    def _rest_left(self, method: Method) -> float:
        rest = self._rests.get(method)
        left = rest.seconds_left(self._time()) if rest is not None else 0.0
        if rest is not None and not left:
            del self._rests[method]
        return left

    def _line(self, method: Method, channel: str) -> _Line:
        key = (method, channel if method in _A_CHANNEL else "")
        if key not in self._lines:
            if len(self._lines) >= LINES_KEPT:
                self._forget_quiet_lines()
            self._lines[key] = _Line(self._rates.get(method), self._time())
        return self._lines[key]

    def _forget_quiet_lines(self) -> None:
        now = self._time()
        self._lines = {key: line for key, line in self._lines.items() if line.waiting or not line.is_full(now)}


@dataclass(order=True, slots=True)
class _Waiter:
    urgency: Urgency
    number: int
    is_first: asyncio.Event = field(default_factory=asyncio.Event, compare=False)


@dataclass(slots=True)
class _Rest:
    since: float
    seconds: float

    def seconds_left(self, now: float) -> float:
        """A clock that jumps back must not make a pause of an hour: then it begins once more."""
        self.since = min(self.since, now)
        left = self.since + self.seconds - now
        return left if left > _NEARLY else 0.0


class _Line:
    """A token bucket, and those who wait at it, the most urgent first."""

    def __init__(self, rate: Rate | None, now: float) -> None:
        self.waiting: list[_Waiter] = []
        self._rate = rate
        self._turns = float(rate.burst) if rate is not None else 0.0
        self._filled_at = now

    def seconds_left(self, now: float) -> float:
        """Until the next turn; 0 if there is one."""
        if self._rate is None or self._rate.is_loose or self._filled(now) >= 1 - _NEARLY:
            return 0.0
        return (1 - self._turns) * self._rate.seconds

    def has_spare(self, now: float) -> bool:
        """Whether one turn more can be spared: half of a burst is kept for what cannot wait."""
        return self._rate is None or (not self.waiting and self._filled(now) >= self._rate.burst / 2 + 1 - _NEARLY)

    def is_full(self, now: float) -> bool:
        return self._rate is None or self._filled(now) >= self._rate.burst

    def take(self, now: float) -> None:
        if self._rate is not None:
            self._turns = max(0.0, self._filled(now) - 1)

    def _filled(self, now: float) -> float:
        if self._rate is not None:
            gained = max(0.0, now - self._filled_at) / self._rate.seconds
            self._turns = min(float(self._rate.burst), self._turns + gained)
            self._filled_at = now
        return self._turns

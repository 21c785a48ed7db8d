"""What lies between the bot and the simulated cloud: it notes each call, lets faults begin and end by the clock, and
lets a story act, or the bot die, at the very moment when a call arrives.

An ASGI application around the simulator's. It changes no call and no answer. A call that changes something takes a
moment of the story's clock, so that what was before it and what came after it have different times.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from urllib.parse import parse_qsl

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bot.sandbox.iot_answers import OFFERED
from bot.sandbox.iot_faults import Fault, Faults

CHANGES = frozenset(
    {"CancelOTATaskByJob", "CancelOTAStrategyByJob", "CancelOTATaskByDevice", "ReupgradeOTATask", "UpdateOTAJob"}
)
"""The calls that change something."""

READS = frozenset(OFFERED) - CHANGES

CHANGE_SECONDS = 0.05

Sleep = Callable[[float], Awaitable[None]]
Act = Callable[[], Awaitable[None]]


@dataclass(slots=True)
class Arrival:
    """A call as it came, and when its answer went."""

    at: float
    action: str
    nonce: str
    answered_at: float

    @property
    def is_change(self) -> bool:
        return self.action in CHANGES


class Death(Enum):
    """When the bot dies: before its next change arrives, or when that has taken effect and the answer is not there."""

    BEFORE = "before the call arrives"
    AFTER = "after the call took effect"


class Wire:
    """`died` is set when the bot is to be dead. `sleep` moves the clock that `now` tells."""

    def __init__(self, app: ASGIApp, faults: Faults, *, now: Callable[[], float], sleep: Sleep) -> None:
        self._app = app
        self._faults = faults
        self._now = now
        self._sleep = sleep
        self._ends: dict[Fault, float] = {}
        self._acts: list[tuple[bool, Act]] = []
        self._death: Death | None = None
        self.arrivals: list[Arrival] = []
        self.died = asyncio.Event()

    def break_down(self, fault: Fault, *, seconds: float | None = None) -> None:
        """Lets a fault begin, for so many seconds of the story's clock."""
        self._faults.add(fault)
        if seconds is not None:
            self._ends[fault] = self._now() + seconds

    def mend(self) -> None:
        self._faults.clear()
        self._ends.clear()

    def act_at_next(self, act: Act, *, is_change: bool) -> None:
        """Acts when the next call arrives that changes something, or that changes nothing."""
        self._acts.append((is_change, act))

    @property
    def is_waiting(self) -> bool:
        """Whether a call at which something is to happen has not come."""
        return bool(self._acts) or self._death is not None

    def die_at_next_change(self, death: Death) -> None:
        self._death = death

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        arrival = self._arrival_of(scope)
        self.arrivals.append(arrival)
        await self._act(arrival)
        if arrival.is_change:
            await self._sleep(CHANGE_SECONDS)
        self._end_faults()
        if self._death is not None and arrival.is_change:
            await self._let_die(scope, receive)
        else:
            await self._app(scope, receive, send)
        arrival.answered_at = self._now()

    def moments_around(self, at: float) -> set[float]:
        """When calls came and were answered that were under way together with one that was at that time."""
        first = last = at
        while True:
            together = [each for each in self.arrivals if each.at <= last and each.answered_at >= first]
            reach = [first, last, *(each.at for each in together), *(each.answered_at for each in together)]
            if (min(reach), max(reach)) == (first, last):
                return set(reach)
            first, last = min(reach), max(reach)

    def _arrival_of(self, scope: Scope) -> Arrival:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        action = headers.get("x-acs-action") or query.get("Action", "")
        nonce = headers.get("x-acs-signature-nonce") or query.get("SignatureNonce", "")
        return Arrival(self._now(), action, nonce, self._now())

    async def _act(self, arrival: Arrival) -> None:
        due = [pair for pair in self._acts if pair[0] == arrival.is_change]
        self._acts = [pair for pair in self._acts if pair not in due]
        for _, act in due:
            await act()

    def _end_faults(self) -> None:
        over = {fault for fault, end in self._ends.items() if end <= self._now()}
        standing = [fault for fault in self._faults.standing if fault not in over]
        self._faults.clear()
        for fault in standing:
            self._faults.add(fault)
        self._ends = {fault: end for fault, end in self._ends.items() if fault not in over}

    async def _let_die(self, scope: Scope, receive: Receive) -> None:
        """Carries the call out or not, and answers nothing until the caller is gone."""

        async def unheard(message: Message) -> None:
            """The caller is dead."""

        death, self._death = self._death, None
        if death is Death.AFTER:
            await self._app(scope, receive, unheard)
        self.died.set()
        while (await receive())["type"] != "http.disconnect":
            continue

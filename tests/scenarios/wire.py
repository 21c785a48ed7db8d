"""What lies between the bot and the simulated cloud: it notes each call, lets faults begin and end by the clock, and
lets a story act, or the bot die, at the very moment when a call arrives.

An ASGI application around the simulator's. It changes no call and no answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from urllib.parse import parse_qsl

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bot.sandbox.iot_faults import Fault, Faults

CHANGES = frozenset(
    {"CancelOTATaskByJob", "CancelOTAStrategyByJob", "CancelOTATaskByDevice", "ReupgradeOTATask", "UpdateOTAJob"}
)
"""The calls that change something."""

Act = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A call as it came. `params` are those of the operation."""

    at: float
    action: str
    nonce: str
    params: tuple[tuple[str, str], ...]

    @property
    def is_change(self) -> bool:
        return self.action in CHANGES


class Death(Enum):
    """When the bot dies: before its next change arrives, or when that has taken effect and the answer is not there."""

    BEFORE = "before the call arrives"
    AFTER = "after the call took effect"


class Wire:
    """`ends` are the moments at which standing faults end. `died` is set when the bot is to be dead."""

    def __init__(self, app: ASGIApp, faults: Faults, *, now: Callable[[], float]) -> None:
        self._app = app
        self._faults = faults
        self._now = now
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

    def die_at_next_change(self, death: Death) -> None:
        self._death = death

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        arrival = self._arrival_of(scope)
        self.arrivals.append(arrival)
        await self._act(arrival)
        self._end_faults()
        if self._death is not None and arrival.is_change:
            await self._let_die(scope, receive)
        else:
            await self._app(scope, receive, send)

    def _arrival_of(self, scope: Scope) -> Arrival:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        action = headers.get("x-acs-action") or query.get("Action", "")
        nonce = headers.get("x-acs-signature-nonce") or query.get("SignatureNonce", "")
        return Arrival(self._now(), action, nonce, tuple(sorted(query.items())))

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

"""The flows that are under way, as somebody in Slack sees them: a card, a button that comes with it, a last line.

Each flow has a channel of its own, as each incident has. It knows no transport: whoever takes the bot's posts (a fake
Slack over HTTP, or messages that go nowhere) tells it what was posted.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.bench.machine import Broken, Json

LAST_WORDS = "finished anyway"
"""What only the line that tells how a stop ended says."""

CONFIRM = "proposal.confirm"
LONGEST_SECONDS = 120.0
BEGIN_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Offered:
    """A message with a button that stands."""

    ts: str
    thread: str
    text: str
    blocks: Sequence[Any]
    block_id: str
    element: Json


@dataclass(slots=True)
class Flow:
    """One flow. `offered` and `ended` are what its engineer waits for."""

    job: str
    channel: str
    offered: asyncio.Future[Offered] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    ended: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    said: list[str] = field(default_factory=list)

    async def reached(self, what: asyncio.Future[Any]) -> Any:
        try:
            async with asyncio.timeout(LONGEST_SECONDS):
                return await what
        except TimeoutError:
            seen = "with" if self.offered.done() else "without"
            raise Broken(f"the flow of job {self.job} did not go on ({seen} a button); said: {self.said}") from None


class Watch:
    """All flows, by their channels."""

    def __init__(self) -> None:
        self._flows: dict[str, Flow] = {}
        self._threads: dict[str, str] = {}
        self._numbers = itertools.count(1)
        self._first = int(time.time())

    def begin(self, job: str) -> Flow:
        flow = Flow(job, f"C{next(self._numbers):09}")
        self._flows[flow.channel] = flow
        return flow

    def forget(self, flow: Flow) -> None:
        del self._flows[flow.channel]

    def posted(self, channel: str, text: str, thread: str | None = None, *, is_broadcast: bool = False) -> str:
        """The `ts` of the new message."""
        ts = f"{self._first}.{next(self._numbers):06}"
        self._threads[ts] = thread or ts
        flow = self._flows.get(channel)
        if flow is not None:
            flow.said.append(text)
            if is_broadcast and LAST_WORDS in text and not flow.ended.done():
                flow.ended.set_result(None)
        return ts

    def updated(self, channel: str, ts: str, text: str, blocks: Sequence[Any]) -> None:
        flow = self._flows.get(channel)
        if flow is None or flow.offered.done():
            return
        if (found := _button_in(blocks)) is not None:
            flow.offered.set_result(Offered(ts, self._threads.get(ts, ts), text, blocks, *found))

    def replied(self, channel: str, text: str) -> None:
        """A word for one person alone: nothing that a flow which goes well is told."""
        flow = self._flows.get(channel)
        if flow is not None and not flow.ended.done():
            error = Broken(f"the flow of job {flow.job} was answered: {text}")
            flow.ended.set_exception(error)
            if not flow.offered.done():
                flow.offered.set_exception(error)
                flow.ended.exception()


def _button_in(blocks: Iterable[Any]) -> tuple[str, Json] | None:
    for block in blocks:
        if isinstance(block, Mapping) and block.get("type") == "actions":
            for element in block["elements"]:
                if element["action_id"] == CONFIRM:
                    return block.get("block_id", "buttons"), dict(element)
    return None


async def run_flows(
    engineers: Sequence[Callable[[str], Awaitable[None]]], jobs: Sequence[str], *, seconds: float
) -> Json:
    """Each engineer stops one rollout after another until the time is over, and ends what was begun.

    They begin one after the other: who begins together goes on together, and nothing ends for seconds.
    Tells when each flow ended, by the machine's monotonic clock, and how long it took; or what broke.
    """
    until, left = time.monotonic() + seconds, iter(jobs)
    at: list[float] = []
    took: list[float] = []

    async def work(stop: Callable[[str], Awaitable[None]], place: int) -> None:
        await asyncio.sleep(BEGIN_SECONDS * place / len(engineers))
        while (began_at := time.monotonic()) < until:
            if (job := next(left, None)) is None:
                raise Broken("there are no rollouts left to stop")
            await stop(job)
            at.append(time.monotonic())
            took.append(at[-1] - began_at)

    try:
        async with asyncio.TaskGroup() as group:
            for place, engineer in enumerate(engineers):
                group.create_task(work(engineer, place))
    except ExceptionGroup as errors:
        return {"broken": repr(errors.exceptions[0])}
    return {"at": at, "took": took}

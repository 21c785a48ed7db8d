"""One kill: a flow, a replica that dies at a chosen point of it, whoever takes over, and what is left afterwards.

Everything that is chosen follows from the seed: the operation, the point or the moment, whether a replica is started
anew or another one is there already, and whether whoever took over dies as well.
"""

from __future__ import annotations

import asyncio
import signal
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from bot.storage.database import Database, open_database
from tests.crash.checks import Findings, check
from tests.crash.databases import Databases
from tests.crash.flows import OPERATIONS, Flow, carry_out, flow
from tests.crash.kept import fetch_kept, is_at_rest
from tests.crash.replicas import Doom, NotServing, Nursery, Replica, Replicas, nursery, replicas
from tests.crash.world import World, world

FLOW_SECONDS = 90
REST_SECONDS = 30
_WRITES = {"cancel": 33, "halt": 39, "retry": 28, "forget": 13}
_POSTS = {"cancel": 13, "halt": 15, "retry": 12, "forget": 5}
_READS = {"cancel": 6, "halt": 6, "retry": 7, "forget": 2}
_CALLS = {"cancel": 1, "halt": 2, "retry": 2}
_FILES = {"cancel": 1, "halt": 1}
_DELIVERIES = {"cancel": 2, "halt": 2, "retry": 2, "forget": 1}
_ENDS = dict.fromkeys(OPERATIONS, 1)
POINTS: Mapping[str, tuple[float, Mapping[str, int]]] = {
    "before writing": (2, _WRITES),
    "written, not committed": (2, _WRITES),
    "committed": (2, _WRITES),
    "before writing: SqlStore.receive": (1, _DELIVERIES),
    "committed: SqlStore.receive": (1, _DELIVERIES),
    "committed: proposal:confirmed": (0.5, dict.fromkeys(_CALLS, 1)),
    "committed: call:intended": (1, _CALLS),
    "written, not committed: call:accepted": (1, _CALLS),
    "committed: proposal:ended": (0.5, _ENDS),
    "before: call": (1.5, _CALLS),
    "the call is on its way": (1.5, _CALLS),
    "the answer is on its way": (1.5, _CALLS),
    "after: call": (1.5, _CALLS),
    "before: Slack": (1, _POSTS),
    "Slack has it": (3, _POSTS),
    "after: Slack": (2, _POSTS),
    "before: fetch": (1, _READS),
    "after: fetch": (1, _READS),
    "before: file": (0.5, _FILES),
    "after: file": (0.5, _FILES),
}
"""Kinds of points (how their names begin): how often they are chosen, and about how many of them a flow passes.

A point that is not reached is replaced by a kill when the flow is over.
"""

MOMENT_SECONDS = {"cancel": 2.5, "halt": 3.0, "retry": 3.5, "forget": 3.0}
"""About how long it takes without a kill."""

OFFER_SECONDS = 2.5


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to happen in one episode: killed at a point, or after so many seconds; or, with neither, not killed."""

    number: int
    operation: str
    is_takeover: bool
    doom: Doom
    kill_after: float | None = None
    second_kill_at: int | None = None

    @property
    def relief(self) -> str:
        return "takeover" if self.is_takeover else "restart"


@dataclass(frozen=True, slots=True)
class Episode:
    """How it went. `seconds` are those from the (first) kill to the last line; `points` what the victim passed."""

    plan: Plan
    died_at: str
    kills: int
    is_over: bool
    seconds: float
    end: str
    findings: Findings
    points: tuple[str, ...] = ()
    last_words: str = ""

    @property
    def complaints(self) -> tuple[str, ...]:
        late = () if self.is_over else ("it was not over in time",)
        return (*late, *self.findings.complaints)

    def __str__(self) -> str:
        plan = self.plan
        told = [f"kill {plan.number}: {plan.operation}, {plan.relief}, died at {self.died_at!r}, ended as {self.end}"]
        told += [f"  - {complaint}" for complaint in self.complaints]
        return "\n".join([*told, self.last_words] if self.complaints else told)


def plans(count: int, *, seed: int) -> list[Plan]:
    """Each operation in turn; a fifth die at a random moment, the others at a point whose kind is drawn first."""
    return [_drawn(number, Random(f"{seed}/{number}")) for number in range(count)]


def _drawn(number: int, draw: Random) -> Plan:
    operation = OPERATIONS[number % len(OPERATIONS)]
    kinds = {kind: weight for kind, (weight, counts) in POINTS.items() if operation in counts}
    [kind] = draw.choices(list(kinds), list(kinds.values()))
    doom = Doom(draw.randint(1, POINTS[kind][1][operation]), kind)
    kill_after = draw.uniform(0, MOMENT_SECONDS[operation])
    is_moment, is_takeover = draw.random() < 0.2, draw.random() < 0.5
    return Plan(
        number=number,
        operation=operation,
        is_takeover=is_takeover,
        doom=Doom() if is_moment else doom,
        kill_after=kill_after if is_moment else None,
        second_kill_at=draw.randrange(1, 60) if draw.random() < 0.2 else None,
    )


async def play_all(
    chosen: Sequence[Plan], databases: Databases, *, at_once: int, told: Callable[[Episode], None] = lambda _: None
) -> list[Episode]:
    """All of them, so many at a time; `told` hears of each when it is over."""
    turns = asyncio.Semaphore(at_once)

    async def play_one(plan: Plan, of: Nursery) -> Episode:
        async with turns:
            episode = await play(plan, databases, of)
        told(episode)
        return episode

    async with nursery() as of:
        return list(await asyncio.gather(*(play_one(plan, of) for plan in chosen)))


async def play(plan: Plan, databases: Databases, of: Nursery) -> Episode:
    with tempfile.TemporaryDirectory(prefix="otabrake-crash-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        url = await databases.new(folder)
        one = flow(plan.operation, plan.number)
        database = open_database(url)
        try:
            async with (
                world(folder, url, jobs=[one.rollout]) as there,
                replicas(of, there.settings, folder) as started,
            ):
                return await _play(plan, one, there, started, database)
        finally:
            await database.close()


async def _play(plan: Plan, one: Flow, there: World, started: Replicas, database: Database) -> Episode:
    offer_seconds = OFFER_SECONDS if plan.operation == "forget" else 900
    stage = _Stage(plan, started, offer_seconds)
    await stage.begin()
    watching = asyncio.create_task(stage.watch())
    try:
        is_over = await carry_out(there, one, stage.where, within_seconds=FLOW_SECONDS)
        over_at = time.monotonic()
        if not stage.kills:
            await stage.kill()  # the point was not reached: what is left to do is left to the others
        await stage.settled()
        is_over = await _at_rest(database) and is_over
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    kept = await fetch_kept(database)
    findings = check(there, kept, kills=stage.kills)
    ends = {str(proposal.outcome.code) for proposal in kept.proposals if proposal.outcome is not None}
    await asyncio.gather(*(replica.end() for replica in started.all))
    return Episode(
        plan=plan,
        died_at=stage.died_at,
        kills=stage.kills,
        is_over=is_over,
        seconds=max(0.0, over_at - stage.killed_at),
        end=", ".join(sorted(ends)) or "nothing",
        findings=findings,
        points=tuple(stage.victim.passed()),
        last_words="\n".join(replica.last_words() for replica in started.all),
    )


async def _at_rest(database: Database) -> bool:
    until = time.monotonic() + REST_SECONDS
    while time.monotonic() < until:
        if await is_at_rest(database):
            return True
        await asyncio.sleep(0.05)
    return False


class _Stage:
    """The replicas of one episode: who gets deliveries, who dies, who comes after."""

    def __init__(self, plan: Plan, started: Replicas, offer_seconds: float) -> None:
        self._plan = plan
        self._started = started
        self._offer_seconds = offer_seconds
        self._is_starting = False
        self._is_noted = asyncio.Event()
        self.kills = 0
        self.killed_at = time.monotonic()
        self.died_at = "after its flow"

    async def begin(self) -> None:
        plan = self._plan
        victim = self._started.start(plan.doom, offer_seconds=self._offer_seconds)
        if plan.is_takeover:
            heir = Doom(plan.second_kill_at)
            self.victim, _ = await asyncio.gather(victim, self._started.start(heir, offer_seconds=self._offer_seconds))
        else:
            self.victim = await victim

    def where(self) -> str | None:
        """Deliveries go to the victim while it lives, then to whoever else does."""
        alive: list[Replica] = self._started.alive
        if self.victim in alive:
            return self.victim.url
        return alive[0].url if alive else None

    async def kill(self) -> None:
        """Where no kill is planned, it is ended as an orchestrator would, and tells what it passed."""
        is_planned = self._plan.doom.kill_at is not None or self._plan.kill_after is not None
        await (self.victim.kill() if is_planned else self.victim.end())

    async def settled(self) -> None:
        """Returns when the death of the victim was noticed and somebody lives."""
        await self._is_noted.wait()
        while not self._started.alive:  # noqa: ASYNC110 (processes end by themselves, and set no event)
            await asyncio.sleep(0.02)

    async def watch(self) -> None:
        """Kills at the moment, notes deaths, and starts anew where nobody is left."""
        moment = time.monotonic() + self._plan.kill_after if self._plan.kill_after is not None else None
        noted: set[Replica] = set()
        while True:
            if moment is not None and time.monotonic() >= moment:
                moment = None
                self.victim.signal(signal.SIGKILL)
                self.died_at = f"after {self._plan.kill_after:.2f} s"
            for replica in self._started.all:
                if not replica.is_alive and replica not in noted:
                    noted.add(replica)
                    self._note(replica)
            if not self._started.alive and not self._is_starting:
                await self._start_anew()
            await asyncio.sleep(0.01)

    def _note(self, replica: Replica) -> None:
        self.kills += 1
        self._is_noted.set()
        if replica is self.victim:
            self.killed_at = time.monotonic()
            self.died_at = replica.died_at or self.died_at

    async def _start_anew(self) -> None:
        self._is_starting = True
        is_second = self.kills == 1 and not self._plan.is_takeover
        doom = Doom(self._plan.second_kill_at if is_second else None, count_from="start")
        try:
            await self._started.start(doom, offer_seconds=self._offer_seconds)
        except NotServing:
            return  # it died before it served: the next round starts another one
        finally:
            self._is_starting = False

"""How this process is: `/healthz` (it answers) and `/readyz` (it can do its work, or why not).

Not ready is only what no request should be sent to: a database that cannot be used or is of another version, no policy,
a process that shuts down, a dead socket. All else is degraded: people are still served, and somebody should look.
What it does not do: mend anything.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from bot.storage.census import Census, DatabaseWatch
from bot.storage.tables import SCHEMA

OWED_SECONDS = 60.0
"""A post that is owed for longer says that Slack takes none, or none in that channel."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """What keeps this process from working, and what it works without; sentences."""

    obstacles: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        if self.obstacles:
            return "not ready"
        return "degraded" if self.lacks else "ready"


@dataclass(frozen=True, slots=True)
class Health:
    """Where to look. `keys_missing` and `discovery_behind` name instances; `policy_refused` says that the policy on
    disk is not the one that is used."""

    watch: DatabaseWatch
    clock: Callable[[], datetime]
    has_policy: Callable[[], bool]
    is_draining: Callable[[], bool]
    is_socket_alive: Callable[[], Awaitable[bool]]
    policy_refused: Callable[[], bool] = lambda: False
    keys_missing: Callable[[], Iterable[str]] = tuple
    discovery_behind: Callable[[], Iterable[str]] = tuple

    async def readiness(self) -> Readiness:
        census = await self.watch.census()
        obstacles = [
            *(["shutting down"] if self.is_draining() else []),
            *(["no valid policy: see otabrake policy check"] if not self.has_policy() else []),
            *await self._database_trouble(census),
            *await self._socket_trouble(),
        ]
        return Readiness(tuple(obstacles), tuple(self._lacks(census)))

    async def _database_trouble(self, census: Census | None) -> list[str]:
        if census is None:
            return ["the database does not answer"]
        if census.revision != SCHEMA:
            return [f"the database is at revision {census.revision}, not {SCHEMA}"]
        return [] if await self.watch.can_write() else ["the database cannot be written"]

    async def _socket_trouble(self) -> list[str]:
        return [] if await self.is_socket_alive() else ["the Socket Mode connection is down"]

    def _lacks(self, census: Census | None) -> list[str]:
        lacks = [f"there is no access key for {name}: the log says why" for name in self.keys_missing()]
        if self.policy_refused() and self.has_policy():
            lacks.append("the policy on disk was refused, the last good one is used: see otabrake policy check")
        if census is not None and census.owed_since is not None:
            seconds = (self.clock() - census.owed_since).total_seconds()
            if seconds > OWED_SECONDS:
                lacks.append(f"Slack does not take what is owed to people: {census.owed} posts, for {seconds:.0f} s")
        lacks += [f"discovery is behind on {name}: lists may be old" for name in self.discovery_behind()]
        return lacks

    def routes(self) -> list[Route]:
        """`/healthz`, which looks at nothing, and `/readyz`."""
        return [Route("/healthz", _healthz), Route("/readyz", self._readyz)]

    async def _readyz(self, request: Request) -> JSONResponse:
        found = await self.readiness()
        body = {"status": found.status, "reasons": [*found.obstacles, *found.lacks]}
        return JSONResponse(body, status_code=503 if found.obstacles else 200)


async def _healthz(request: Request) -> JSONResponse:
    return JSONResponse({"status": "ok"})

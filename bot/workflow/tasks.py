"""Tasks that each work under a lease: renewed while the task is alive, given back when it ends, its end if it is lost.

A task that fails counts as a failed attempt and frees its lease, so that whoever looks next tries again; one that is
cancelled gives its lease back. What it does not do: know what the tasks do, or find them work.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass
from typing import Any

from structlog.contextvars import bind_contextvars

from bot.errors import LeaseLost, OutOfTurn, StoreUnavailable
from bot.ports import LEASE_SECONDS, RENEW_SECONDS, Lease, Leases
from bot.workflow.means import Log


@dataclass(slots=True)
class _Held:
    lease: Lease
    task: asyncio.Task[None]
    until: float
    """By this process's monotonic clock: before it, nobody else can have claimed the lease."""


class LeasedTasks:
    """Owns tasks. Use it as a context: `async with LeasedTasks(leases, log) as tasks`."""

    def __init__(
        self,
        leases: Leases,
        log: Log,
        *,
        seconds: Callable[[], float] = time.monotonic,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._leases = leases
        self._log = log
        self._seconds = seconds
        self._on_end = on_end
        self._held: dict[str, _Held] = {}
        self._unreturned: list[Lease] = []
        """What could not be given back while the database was away: that it was is no failure of the work."""

        self._keeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> LeasedTasks:
        self._keeper = asyncio.create_task(self._keep(), name="leases")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Stops at once, and gives back what is under way: another process may go on with it."""
        await self.cancel(tuple(self._held))
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)

    def __contains__(self, name: str) -> bool:
        return name in self._held

    @property
    def names(self) -> Collection[str]:
        return self._held.keys()

    def start(self, lease: Lease, work: Coroutine[Any, Any, None]) -> bool:
        """False: this process is at it already.

        A task whose lease was given back, and which has not ended yet, is ended: a click can come faster than that.
        """
        if (there := self._held.get(lease.name)) is not None:
            if there.lease is lease:
                work.close()
                return False
            there.task.cancel()
        task = asyncio.create_task(self._guarded(lease, work), name=lease.name)
        self._held[lease.name] = _Held(lease, task, self._seconds() + LEASE_SECONDS - RENEW_SECONDS)
        return True

    def is_held(self, name: str) -> bool:
        """Whether certainly nobody else works on it: false after a pause, until the lease is renewed."""
        held = self._held.get(name)
        return held is not None and self._seconds() < held.until

    async def drain(self) -> None:
        """Waits until nothing of this process is under way."""
        while self._held:
            await asyncio.wait([held.task for held in self._held.values()])

    async def cancel(self, names: Collection[str]) -> None:
        """Ends tasks, and gives their leases back."""
        cancelled = [self._held[name] for name in names if name in self._held]
        for held in cancelled:
            held.task.cancel()
        await asyncio.gather(*(held.task for held in cancelled), return_exceptions=True)
        await self._give_back([held.lease for held in cancelled])

    async def _give_back(self, leases: list[Lease]) -> None:
        try:
            await self._leases.release(leases)
        except StoreUnavailable as error:  # the keeper tries again, or they lapse by themselves
            self._log.info("leases not given back", count=len(leases), why=str(error))
            self._unreturned += leases

    async def _guarded(self, lease: Lease, work: Coroutine[Any, Any, None]) -> None:
        """One boundary around all work: a database that is away is waited for, anything else is counted and logged."""
        bind_contextvars(key=lease.name)  # in every line of the log that comes of this work
        try:
            await work
        except StoreUnavailable as error:  # nothing can be written now: the sweep finds the work again
            self._log.error("work interrupted", key=lease.name, why=str(error))
            await self._give_back([lease])
        except LeaseLost as error:
            self._log.error("lease lost", key=lease.name, why=str(error))
        except OutOfTurn as error:  # somebody else moved the proposal on meanwhile, or it can't move at all
            self._log.info("out of turn", key=lease.name, attempts=lease.attempts + 1, why=str(error))
            await self._fail(lease)
        except Exception as error:  # found again by the sweep, which gives up in the end
            self._log.error("work failed", key=lease.name, attempts=lease.attempts + 1, exc_info=error)
            await self._fail(lease)
        finally:
            if (there := self._held.get(lease.name)) is not None and there.lease is lease:
                del self._held[lease.name]
            self._on_end()

    async def _fail(self, lease: Lease) -> None:
        try:
            await self._leases.fail(lease)
        except StoreUnavailable as error:
            self._log.error("work interrupted", key=lease.name, why=str(error))

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                unreturned, self._unreturned = self._unreturned, []
                await self._give_back(unreturned)
                await self.renew()
            except StoreUnavailable as error:
                self._log.error("leases not renewed", count=len(self._held), why=str(error))
            except Exception as error:  # without this task all work would be taken over, again and again
                self._log.error("leases not renewed", count=len(self._held), exc_info=error)

    async def renew(self) -> None:
        """Renews the leases of what is alive, and ends what somebody else works on now."""
        held = list(self._held.values())
        if not held:
            return
        asked_at = self._seconds()
        renewal = await self._leases.renew([each.lease for each in held])
        lost = {lease.name for lease in (*renewal.taken, *renewal.gone)}
        for each in held:
            each.until = 0.0 if each.lease.name in lost else asked_at + LEASE_SECONDS
        for lease in renewal.taken:  # what is gone may have been given back by its own last step
            self._log.error("lease lost", key=lease.name)
            if (mine := self._held.get(lease.name)) is not None and mine.lease == lease:
                mine.task.cancel()

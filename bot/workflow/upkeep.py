"""What is done now and then, by one process of many: what is over and old is pruned.

It works under a lease, so that replicas do not do it side by side. What it does not do: decide what is old.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from bot.errors import StoreUnavailable
from bot.ports import Leases
from bot.ports.retention import Retention
from bot.workflow.means import Log
from bot.workflow.tasks import LeasedTasks

FIRST_SECONDS = 60.0
EVERY_SECONDS = 3600.0
LEASE = "upkeep:pruning"


class Upkeep:
    """Owns the rounds. Use it as a context: `async with Upkeep(…)`; it stops at once."""

    def __init__(
        self,
        retention: Retention,
        leases: Leases,
        log: Log,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._retention = retention
        self._leases = leases
        self._log = log
        self._sleep = sleep
        self._tasks = LeasedTasks(leases, log)
        self._rounds: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Upkeep:
        await self._tasks.__aenter__()
        self._rounds = asyncio.create_task(self._go_round(), name="upkeep")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._rounds is not None:
            self._rounds.cancel()
            await asyncio.gather(self._rounds, return_exceptions=True)
        await self._tasks.__aexit__(*exc_info)

    async def _go_round(self) -> None:
        await self._sleep(FIRST_SECONDS)
        while True:
            try:
                await self.prune_once()
            except StoreUnavailable as error:
                self._log.error("upkeep interrupted", why=str(error))
            except Exception as error:  # this task must not end
                self._log.error("upkeep failed", exc_info=error)
            await self._sleep(EVERY_SECONDS)

    async def prune_once(self) -> None:
        """Prunes, unless another process is at it."""
        for lease in await self._leases.claim([LEASE]):
            self._tasks.start(lease, self._prune())
            await self._tasks.drain()
            await self._leases.release([lease])

    async def _prune(self) -> None:
        pruned = await self._retention.prune()
        self._log.info("pruned", proposals=pruned.proposals, deliveries=pruned.deliveries, posts=pruned.posts)

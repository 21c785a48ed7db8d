"""What a click needs, begun while the click is written down: its proposal, and the last look at its one batch.

Nothing is sent before the click was checked; until then the look only waits for its place in the call budget. What is
stale by then is judged by the compare-and-set.
"""

from __future__ import annotations

import asyncio

from bot.exchange import Choice, Click
from bot.model import Job
from bot.operations import Subject
from bot.ports import Purpose
from bot.proposals import Proposal, State
from bot.workflow.means import Means, drop
from bot.workflow.superseding import fetch_touching


class LookAhead:
    """Of one click. Whoever does not `go` must `drop` it."""

    def __init__(self, means: Means, click: Click) -> None:
        self._means = means
        self._click = click
        self._is_checked = asyncio.get_running_loop().create_future()
        self._looking: asyncio.Future[Job] | None = None
        self._reading = asyncio.ensure_future(self._read())
        self._touching = asyncio.ensure_future(self._read_touching())

    async def proposal(self) -> Proposal | None:
        """The proposal of the offer that was clicked."""
        return await self._reading

    def go(self) -> asyncio.Future[Job] | None:
        """The click was checked: the look at the batch, if there is one batch to look at."""
        self._is_checked.set_result(None)
        return self._looking

    async def others(self) -> tuple[Proposal, ...]:
        """The proposals that a yes may supersede."""
        return await self._touching

    async def drop(self) -> None:
        await drop(self._reading)
        await drop(self._touching)
        await drop(self._looking)

    async def _read_touching(self) -> tuple[Proposal, ...]:
        proposal = await asyncio.shield(self._reading)
        is_yes = proposal is not None and self._click.choice is Choice.CONFIRM
        return await fetch_touching(self._means, proposal) if proposal is not None and is_yes else ()

    async def _read(self) -> Proposal | None:
        proposal = await self._means.store.fetch_proposal_of(self._click.offer_id)
        if proposal is not None and self._click.choice is Choice.CONFIRM and proposal.state is State.OFFERED:
            operation = self._means.operations[proposal.operation]
            if operation.subject is Subject.JOB and not operation.retries(proposal.params):
                look = self._means.reads.fetch_job(proposal.target, purpose=Purpose.STOP, after=self._is_checked)
                self._looking = asyncio.ensure_future(look)
        return proposal

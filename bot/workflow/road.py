"""The road: whatever was received, from its row to its last line.

The road writes a delivery down before it is acknowledged, answers it in a task of its own group, and carries proposals
on from their rows, each under a lease; a sweep every second finds what nobody works on, in this process or another
(after a restart: all of it). Whatever is written is refused once the lease was lost.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

from bot.audit import Entry, EntryName, Fact
from bot.errors import OutOfTurn, StoreUnavailable
from bot.exchange import Ask, Click, Delivery, Pick, Post, PostKind, Resume
from bot.model import Outcome, OutcomeCode, is_from_terminal
from bot.ports import Lease, of_proposal
from bot.proposals import ENDS, Ended, Offered, Proposal, State
from bot.workflow import reports
from bot.workflow.ahead import LookAhead
from bot.workflow.answering import expire, handle_click
from bot.workflow.asking import command_for, handle_ask, handle_pick, handle_resume
from bot.workflow.calling import go_on_calling
from bot.workflow.finding_out import find_out
from bot.workflow.following import follow
from bot.workflow.means import GoOn, Means, TurnedDown, move, private, reply, showing
from bot.workflow.offering import offer, offer_facts
from bot.workflow.reading import facts_of
from bot.workflow.rechecking import call_approved
from bot.workflow.tasks import LeasedTasks

ATTEMPTS = 5
"""Work that fails so often for a reason of our own, or whose process dies so often, is ended, and says so."""

_ON: dict[State, Callable[[Means, Proposal], Awaitable[None]]] = {
    State.RECEIVED: offer,
    State.OFFERED: expire,
    State.APPROVED: call_approved,
    State.CALLING: go_on_calling,
    State.UNKNOWN: find_out,
    State.FOLLOWING: follow,
}


class Road:
    """Owns the tasks that answer deliveries and carry proposals on. Use it as a context: `async with Road(means)`."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._tasks = LeasedTasks(means.leases, means.log)
        self._following: set[str] = set()
        self._sweeping = asyncio.Lock()
        self._sweeper: asyncio.Task[None] | None = None
        self.is_taking_work = False

    async def __aenter__(self) -> Road:
        self.is_taking_work = True
        await self._tasks.__aenter__()
        self._sweeper = asyncio.create_task(self._sweep(), name="sweep")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Stops at once: whatever is under way goes on from its row, in another process or at the next start."""
        self.is_taking_work = False
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        await self._tasks.__aexit__(*exc_info)

    def stop_taking_work(self) -> None:
        """Nothing new is begun: what arrives is written down for another process, or for the next start."""
        self.is_taking_work = False

    async def finish(self, seconds: float) -> None:
        """Hands over what takes long, and waits so long for what is in the middle of something."""
        await self._tasks.cancel(tuple(self._following))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._tasks.drain()

    async def receive(self, delivery: Delivery) -> bool:
        """Writes a delivery down and starts on it. False: it was seen before. Raises `StoreUnavailable`."""
        ahead = self._look_ahead(delivery)
        try:
            lease = await self._means.store.receive(delivery)
        except BaseException:
            await _drop(ahead)
            raise
        if lease is None:
            await _drop(ahead)
            return False
        if not self.is_taking_work:
            await _drop(ahead)
            with contextlib.suppress(StoreUnavailable):  # it is written down: the lease lapses by itself
                await self._means.leases.release([lease])
            return True
        self._tasks.start(lease, self._answer(lease, delivery, ahead))
        return True

    def _look_ahead(self, delivery: Delivery) -> LookAhead | None:
        if not self.is_taking_work or not isinstance(delivery.content, Click):
            return None
        return LookAhead(self._means, delivery.content)

    async def drain(self) -> None:
        """Waits until nothing of this process is under way."""
        await self._tasks.drain()

    def _under(self, lease: Lease) -> Means:
        return replace(self._means, lease=lease, is_held=partial(self._tasks.is_held, lease.name))

    async def _answer(self, lease: Lease, delivery: Delivery, ahead: LookAhead | None = None) -> None:
        """Answers a delivery, and goes on with the proposal that came of it; a no is told to the person alone."""
        means = self._under(lease)
        try:
            if lease.attempts >= ATTEMPTS:
                raise TurnedDown(reports.broken(delivery.delivery_id), why="broken")
            go_on = await _handle(means, delivery, ahead)
        except TurnedDown as no:
            await self._turn_down(means, delivery, no)
            return
        if go_on is not None:
            self._tasks.start(go_on.lease, self._go_on(go_on))

    async def _turn_down(self, means: Means, delivery: Delivery, no: TurnedDown) -> None:
        facts: dict[str, Fact] = {"why": no.why}
        name = EntryName.CLICK_REFUSED if isinstance(delivery.content, Click) else EntryName.REFUSED
        if isinstance(ask := delivery.content, Ask):
            facts |= facts_of(ask, ask.on(ask.instance or ""))
        facts |= no.facts
        entry = Entry(name, means.clock(), delivery.reply_to.user_id, no.proposal_id, facts)
        await reply(
            means,
            lane=delivery.delivery_id,
            to=delivery.reply_to,
            notice=no.notice,
            entry=entry,
            picks=no.picks if isinstance(delivery.content, Ask) else (),
            preview=no.pending.offer.preview if no.pending is not None and no.pending.offer is not None else None,
            pointing_to=no.pending.proposal_id if no.pending is not None else None,
        )

    async def _go_on(self, what: GoOn) -> None:
        """The first step of what was just written needs no look at the database; the rest goes on from the row."""
        means = self._under(what.lease)
        if what.looking is not None:
            await call_approved(means, what.proposal, what.looking)
        else:
            await self._step(means, what.proposal)
        await self._carry_on(what.lease, after=what.proposal)

    async def _carry_on(self, lease: Lease, *, after: Proposal | None = None) -> None:
        """Goes on with a proposal, state by state, until it waits for people or is over."""
        means = self._under(lease)
        while True:
            proposal = await means.store.fetch_proposal(lease.subject)
            if not self.is_taking_work:
                break
            if proposal is None or self._is_waiting(proposal):
                if after is None:
                    break
                return  # the transition that led here has given the lease back
            if after is not None and after.version == proposal.version:
                raise OutOfTurn(f"nothing came of a step while it was {proposal.state}")
            if after is None and lease.attempts >= ATTEMPTS:
                await self._give_up(means, proposal)
                return
            after = proposal
            await self._step(means, proposal)
        await means.leases.release([lease])

    async def _step(self, means: Means, proposal: Proposal) -> None:
        name = of_proposal(proposal.proposal_id)
        if proposal.state is State.FOLLOWING:
            self._following.add(name)
        try:
            await _ON[proposal.state](means, proposal)
        finally:
            self._following.discard(name)

    def _is_waiting(self, proposal: Proposal) -> bool:
        if proposal.state is not State.OFFERED or proposal.offer is None:
            return proposal.state is State.FINISHED
        return not proposal.offer.has_expired(self._means.clock())

    async def _give_up(self, means: Means, proposal: Proposal) -> None:
        codes = ENDS[proposal.state]
        is_unknown = bool(proposal.calls) and OutcomeCode.UNKNOWN_OUTCOME in codes
        code = OutcomeCode.UNKNOWN_OUTCOME if is_unknown else OutcomeCode.NOT_DONE
        command = command_for(means, proposal)
        notice = reports.broken(proposal.proposal_id, was_called=bool(proposal.calls), command=command)
        posts = (Post(PostKind.BROADCAST, proposal.proposal_id, notice), *showing(proposal.proposal_id))
        ended = Ended(Outcome(code, notice))
        await move(means, proposal, ended, name=EntryName.ENDED, facts={"outcome": code.value}, posts=posts)

    async def end_unshown(self, proposal_id: str, why: str) -> None:
        """Ends a proposal whose card can stand nowhere: nobody could ever say yes to it. At a terminal one can."""
        proposal = await self._means.store.fetch_proposal(proposal_id)
        if proposal is None or proposal.state is not State.OFFERED or is_from_terminal(proposal.requester):
            return
        notice = reports.cannot_stand(why)
        ended = Ended(Outcome(OutcomeCode.NOT_DONE, notice))
        facts: dict[str, Fact] = {"outcome": OutcomeCode.NOT_DONE.value, "why": why}
        posts = (private(proposal, notice),)
        await move(self._means, proposal, ended, name=EntryName.ENDED, facts=facts, posts=posts)

    async def offer_again(self, proposal_id: str) -> None:
        """Makes the offer anew after its card has moved: buttons that are left behind are out of date."""
        proposal = await self._means.store.fetch_proposal(proposal_id)
        if proposal is None or proposal.state is not State.OFFERED or proposal.offer is None:
            return
        anew = replace(proposal.offer, offer_id=self._means.new_id())
        facts, posts = offer_facts(anew) | {"why": "the card has moved"}, showing(proposal_id)
        await move(self._means, proposal, Offered(anew), name=EntryName.REOFFERED, facts=facts, posts=posts)

    async def _sweep(self) -> None:
        """Every second: deliveries that nobody answers, and proposals that nobody carries on."""
        while True:
            try:
                await self.sweep_once()
            except StoreUnavailable as error:
                self._means.log.error("sweep interrupted", why=str(error))
            except Exception as error:  # the sweep is what finds everything else: it must not end
                self._means.log.error("sweep failed", exc_info=error)
            await asyncio.sleep(self._means.timings.sweep_seconds)

    async def sweep_once(self) -> None:
        """What was found to do has been begun when this returns."""
        async with self._sweeping:
            if not self.is_taking_work:
                return
            for lease, delivery in await self._means.store.claim_deliveries():
                self._tasks.start(lease, self._answer(lease, delivery))
            for lease in await self._means.store.claim_work(self._means.clock()):
                self._tasks.start(lease, self._carry_on(lease))


async def _handle(means: Means, delivery: Delivery, ahead: LookAhead | None) -> GoOn | None:
    content = delivery.content
    if isinstance(content, Ask):
        return await handle_ask(means, delivery, content)
    if isinstance(content, Resume):
        return await handle_resume(means, delivery, content)
    if isinstance(content, Pick):
        return await handle_pick(means, delivery, content)
    return await handle_click(means, delivery, content, ahead)


async def _drop(ahead: LookAhead | None) -> None:
    if ahead is not None:
        await ahead.drop()

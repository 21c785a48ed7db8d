"""The road: whatever was received, from its row to its last line.

The road writes a delivery down before it is acknowledged, answers it in a task of its own group, and carries proposals
on from their rows; a sweep every second finds what no task of this process is working on (after a restart: all of it).
What it does not do: share work with another process. One `serve` works on a database at a time.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from bot.audit import Entry, EntryName, Fact
from bot.errors import OutOfTurn, StoreUnavailable
from bot.exchange import Ask, Click, Delivery, Pick, Post, PostKind, Resume
from bot.model import Outcome, OutcomeCode
from bot.proposals import ENDS, Ended, Proposal, State
from bot.workflow import reports
from bot.workflow.ahead import LookAhead
from bot.workflow.answering import expire, handle_click
from bot.workflow.asking import command_for, handle_ask, handle_pick, handle_resume
from bot.workflow.calling import go_on_calling
from bot.workflow.finding_out import find_out
from bot.workflow.following import follow
from bot.workflow.means import GoOn, Means, TurnedDown, move, private, reply, showing
from bot.workflow.offering import offer
from bot.workflow.reading import facts_of
from bot.workflow.rechecking import call_approved

ATTEMPTS = 5
"""A piece of work that fails so often for a reason of our own is ended, and says so."""

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
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._failures: Counter[str] = Counter()
        self._sweeper: asyncio.Task[None] | None = None
        self.is_taking_work = False

    async def __aenter__(self) -> Road:
        self.is_taking_work = True
        self._sweeper = asyncio.create_task(self._sweep(), name="sweep")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Stops at once: whatever is under way goes on from its row at the next start."""
        self.is_taking_work = False
        tasks = [*self._tasks.values(), *([self._sweeper] if self._sweeper else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def receive(self, delivery: Delivery) -> bool:
        """Writes a delivery down and starts on it. False: it was seen before. Raises `StoreUnavailable`."""
        ahead = self._look_ahead(delivery)
        try:
            is_new = await self._means.store.receive(delivery)
            is_started = is_new and self._start(delivery.delivery_id, self._answer(delivery, ahead))
        except BaseException:
            await _drop(ahead)
            raise
        if not is_started:
            await _drop(ahead)
        return is_new

    def _look_ahead(self, delivery: Delivery) -> LookAhead | None:
        if not self.is_taking_work or not isinstance(delivery.content, Click):
            return None
        return LookAhead(self._means, delivery.content)

    async def drain(self) -> None:
        """Waits until nothing of this process is under way."""
        while self._tasks:
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _start(self, key: str, work: Awaitable[GoOn | None]) -> bool:
        if not self.is_taking_work or key in self._tasks:
            if asyncio.iscoroutine(work):
                work.close()
            return False
        task = asyncio.create_task(self._guarded(key, work), name=key)
        self._tasks[key] = task
        task.add_done_callback(lambda _: self._tasks.pop(key, None))
        return True

    async def _guarded(self, key: str, work: Awaitable[GoOn | None]) -> None:
        """One boundary around all work: a database that is away is waited for, anything else is counted and logged."""
        try:
            follow_up = await work
        except StoreUnavailable as error:
            self._means.log.error("work interrupted", key=key, why=str(error))
        except OutOfTurn as error:  # somebody else moved the proposal on meanwhile, or it can't move at all
            self._failures[key] += 1
            self._means.log.info("out of turn", key=key, failures=self._failures[key], why=str(error))
        except Exception as error:  # the sweep tries again, and gives up after ATTEMPTS
            self._failures[key] += 1
            self._means.log.error("work failed", key=key, failures=self._failures[key], exc_info=error)
        else:
            self._failures.pop(key, None)
            if follow_up is not None:
                self._start(follow_up.proposal.proposal_id, self._go_on(follow_up))

    async def _answer(self, delivery: Delivery, ahead: LookAhead | None = None) -> GoOn | None:
        """The proposal to carry on with, if there is one; a no is told to the person alone."""
        content = delivery.content
        try:
            if self._failures[delivery.delivery_id] >= ATTEMPTS:
                raise TurnedDown(reports.broken(delivery.delivery_id), why="broken")
            if isinstance(content, Ask):
                return await handle_ask(self._means, delivery, content)
            if isinstance(content, Resume):
                return await handle_resume(self._means, delivery, content)
            if isinstance(content, Pick):
                return await handle_pick(self._means, delivery, content)
            return await handle_click(self._means, delivery, content, ahead)
        except TurnedDown as no:
            await self._turn_down(delivery, no)
            return None

    async def _turn_down(self, delivery: Delivery, no: TurnedDown) -> None:
        facts: dict[str, Fact] = {"why": no.why}
        name = EntryName.CLICK_REFUSED if isinstance(delivery.content, Click) else EntryName.REFUSED
        if isinstance(ask := delivery.content, Ask):
            facts |= facts_of(ask, ask.on(ask.instance or ""))
        entry = Entry(name, self._means.clock(), delivery.reply_to.user_id, no.proposal_id, facts)
        await reply(
            self._means,
            lane=delivery.delivery_id,
            to=delivery.reply_to,
            notice=no.notice,
            entry=entry,
            picks=no.picks if isinstance(delivery.content, Ask) else (),
        )

    async def _go_on(self, what: GoOn) -> None:
        """The first step of what was just written needs no look at the database; the rest goes on from the row."""
        if what.looking is not None:
            await call_approved(self._means, what.proposal, what.looking)
        else:
            await _ON[what.proposal.state](self._means, what.proposal)
        await self._carry_on(what.proposal.proposal_id)

    async def _carry_on(self, proposal_id: str) -> None:
        """Goes on with a proposal, state by state, until it waits for people or is over."""
        version = -1
        while True:
            proposal = await self._means.store.fetch_proposal(proposal_id)
            if proposal is None or proposal.state is State.FINISHED or proposal.version == version:
                return
            if proposal.state is State.OFFERED and not self._is_expired(proposal):
                return
            if self._failures[proposal_id] >= ATTEMPTS:
                await self._give_up(proposal)
                return
            version = proposal.version
            await _ON[proposal.state](self._means, proposal)

    def _is_expired(self, proposal: Proposal) -> bool:
        return proposal.offer is not None and self._means.clock() >= proposal.offer.expires_at

    async def _give_up(self, proposal: Proposal) -> None:
        codes = ENDS[proposal.state]
        is_unknown = bool(proposal.calls) and OutcomeCode.UNKNOWN_OUTCOME in codes
        code = OutcomeCode.UNKNOWN_OUTCOME if is_unknown else OutcomeCode.NOT_DONE
        command = command_for(self._means, proposal)
        notice = reports.broken(proposal.proposal_id, was_called=bool(proposal.calls), command=command)
        posts = (Post(PostKind.BROADCAST, proposal.proposal_id, notice), *showing(proposal.proposal_id))
        ended = Ended(Outcome(code, notice))
        await move(self._means, proposal, ended, name=EntryName.ENDED, facts={"outcome": code.value}, posts=posts)

    async def end_unshown(self, proposal_id: str, why: str) -> None:
        """Ends a proposal whose card can stand nowhere: nobody could ever say yes to it."""
        proposal = await self._means.store.fetch_proposal(proposal_id)
        if proposal is None or proposal.state is not State.OFFERED:
            return
        notice = reports.cannot_stand(why)
        ended = Ended(Outcome(OutcomeCode.NOT_DONE, notice))
        facts: dict[str, Fact] = {"outcome": OutcomeCode.NOT_DONE.value, "why": why}
        posts = (private(proposal, notice),)
        await move(self._means, proposal, ended, name=EntryName.ENDED, facts=facts, posts=posts)

    async def _sweep(self) -> None:
        """Every second: deliveries nobody answers and proposals nobody carries on."""
        while True:
            try:
                await self.sweep_once()
            except StoreUnavailable as error:
                self._means.log.error("sweep interrupted", why=str(error))
            except Exception as error:  # the sweep is what finds everything else: it must not end
                self._means.log.error("sweep failed", exc_info=error)
            await asyncio.sleep(self._means.timings.sweep_seconds)

    async def sweep_once(self) -> None:
        if not self.is_taking_work:
            return
        for delivery in await self._means.store.fetch_open_deliveries(but=self._tasks):
            self._start(delivery.delivery_id, self._answer(delivery))
        for proposal_id in await self._means.store.fetch_work(self._means.clock()):
            if proposal_id not in self._tasks and self._failures[proposal_id] <= ATTEMPTS:
                self._start(proposal_id, self._carry_on(proposal_id))


async def _drop(ahead: LookAhead | None) -> None:
    if ahead is not None:
        await ahead.drop()

"""A conversation with one person at a terminal: what is asked goes down the same road as what is typed in Slack.

The person's words become deliveries (an ask; a click, once the id was typed), which the road answers in this process;
what is said then is shown as it is written. What it does not do: decide anything, call the cloud by itself, or post to
Slack.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from bot.audit import EntryName
from bot.exchange import Ask, Choice, Click, Delivery, ReplyTo
from bot.model import Effect, Offer, Place
from bot.ports.own import Answered, OwnWork
from bot.proposals import Proposal, State
from bot.terminal import pages
from bot.terminal.keyboard import Keyboard
from bot.terminal.screen import Screen
from bot.terminal.thread import Thread
from bot.workflow import refusals
from bot.workflow.means import Means
from bot.workflow.road import Road

YES, NO = 0, 1
LOOK_SECONDS = 0.3
"""How often the database is asked for what another process may have written."""

ELSEWHERE_LOOKS = 3
"""So often a delivery is seen answered, and not by this process, before that is believed."""


class Bell:
    """`ports.Notifier` of a process without Slack: somebody may look at what is owed."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def wake(self) -> None:
        self._rung.set()

    async def wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        self._rung.clear()


@dataclass(frozen=True, slots=True)
class Terminal:
    """What a conversation works with; `wiring` makes it. `actor` is who sits there."""

    actor: str
    means: Means
    own: OwnWork
    road: Road
    bell: Bell


class Conversation:
    """Its methods return the exit code. `farewell` is what to tell a person who interrupts it just then."""

    def __init__(self, at: Terminal, screen: Screen, keyboard: Keyboard) -> None:
        self.terminal = at
        self._screen = screen
        self._thread = Thread(at.actor, at.means, at.own, screen)
        self._keyboard = keyboard
        self.farewell = pages.left_before_offer()

    async def ask(self, ask: Ask, *, is_break_glass: bool = False) -> int:
        """A read, a dry run, or a change from the question to its end."""
        await self._thread.start()
        answered = await self._deliver(ask)
        if answered is None:
            self._thread.say("refused", pages.cannot_tell())
            return NO
        if answered.entry.name is EntryName.ASKED and answered.proposal_id is not None:
            return await self._to_its_end(answered.proposal_id, is_break_glass=is_break_glass)
        if answered.entry.name is EntryName.SHOWN:
            return NO if answered.entry.facts.get("effect") == Effect.DENY.value or self._thread.is_cut_short else YES
        await self._show_pending(answered.proposal_id)
        return NO

    async def answer(self, beginning: str, choice: Choice) -> int:
        """A yes, once the id was typed, or a no to the offer whose id begins so."""
        found = await self.terminal.own.fetch_offered(beginning)
        if len(found) != 1:
            self._thread.say("refused", pages.no_such_offer(beginning, is_any=bool(found)))
            return NO
        [proposal] = found
        offer = proposal.offer
        if proposal.state is not State.OFFERED or offer is None:
            self._thread.say("refused", refusals.no_longer_waiting(proposal))
            return NO
        if not offer.offer_id.startswith(beginning):
            self._thread.say("refused", pages.newer_offer(proposal))
            return NO
        await self._thread.start()
        if choice is Choice.CONFIRM:
            return await self._to_its_end(proposal.proposal_id)
        return await self._dismiss(proposal, offer)

    async def _dismiss(self, proposal: Proposal, offer: Offer) -> int:
        answered = await self._deliver(Click(Choice.DISMISS, offer.offer_id))
        after = await self._thread.look(proposal.proposal_id)
        if after.outcome is not None:
            self._end(after)
        return YES if answered is not None and answered.entry.name is EntryName.ENDED else NO

    async def _to_its_end(self, proposal_id: str, *, is_break_glass: bool = False) -> int:
        """Shows each offer, asks for the yes, and follows what comes of it."""
        self._thread.listen_to(proposal_id)
        asked: Offer | None = None
        while True:
            proposal = await self._until_it_waits(proposal_id)
            offer = proposal.offer
            if proposal.outcome is not None or offer is None:
                return self._end(proposal)
            if asked is not None and asked.offer_id == offer.offer_id:
                self._thread.say("waiting", pages.still_waiting(proposal, "Not confirmed."))
                return NO
            self._show_offer(proposal, offer, is_break_glass=is_break_glass)
            if not await self._is_confirmed(proposal):
                return NO
            asked = offer
            self.farewell = pages.goes_on_elsewhere(proposal_id)
            await self._deliver(Click(Choice.CONFIRM, offer.offer_id))

    async def _until_it_waits(self, proposal_id: str) -> Proposal:
        """Shows what is said in the thread until the proposal waits for a yes, or is over."""
        while True:
            proposal = await self._thread.look(proposal_id)
            if proposal.state in (State.OFFERED, State.FINISHED):
                return proposal
            await self.terminal.bell.wait(LOOK_SECONDS)

    def _show_offer(self, proposal: Proposal, offer: Offer, *, is_break_glass: bool) -> None:
        operation = self.terminal.means.operations[proposal.operation]
        self._thread.say("offer", pages.offered(proposal, offer, operation), **pages.offer_facts(proposal, offer))
        self._thread.say("note", pages.where_it_shows(proposal.place.channel, proposal.target.instance))
        if is_break_glass:
            self._thread.say("note", pages.nothing_to_waive())

    async def _is_confirmed(self, proposal: Proposal) -> bool:
        """Whether exactly the id was typed, or piped in. Anything else leaves the offer to wait."""
        self.farewell = pages.still_waiting(proposal, "Interrupted, and not confirmed.")
        called, name = pages.name_of_id(proposal.target)
        if self._keyboard.is_terminal:
            self._screen.prompt(f"Type the {called} to confirm: ")
        typed = await self._keyboard.read_line()
        if typed == name:
            return True
        if typed:
            why = f"that is not the {called}"
        else:
            why = "nothing was typed" if self._keyboard.is_terminal else f"no {called} was piped in"
        self._thread.say("waiting", pages.still_waiting(proposal, f"Not confirmed: {why}."))
        return False

    def _end(self, proposal: Proposal) -> int:
        outcome, operation = proposal.outcome, self.terminal.means.operations[proposal.operation]
        if outcome is None:
            return NO
        is_said = self._thread.has_said(outcome.notice)
        self._thread.say(
            "end",
            pages.ended(proposal, operation, is_said=is_said),
            **pages.outcome_facts(proposal.proposal_id, outcome),
        )
        return YES if outcome.code in pages.REACHED else NO

    async def _show_pending(self, proposal_id: str | None) -> None:
        """Where something else is in the way, how to go on with that."""
        other = await self.terminal.own.fetch_proposal(proposal_id) if proposal_id is not None else None
        if other is not None and other.state is State.OFFERED:
            self._thread.say("waiting", pages.still_waiting(other, "That one can be confirmed here as well."))

    async def _deliver(self, content: Ask | Click) -> Answered | None:
        """Puts it on the road, and shows the answer; None if another process has answered it."""
        means, own = self.terminal.means, self.terminal.own
        delivery_id = means.new_id()
        self._thread.listen_to(delivery_id)
        to = ReplyTo(self.terminal.actor, Place(None))
        await self.terminal.road.receive(Delivery(delivery_id, f"terminal:{delivery_id}", to, means.clock(), content))
        seen_elsewhere = 0
        while (answered := own.answer_to(delivery_id)) is None and seen_elsewhere < ELSEWHERE_LOOKS:
            await self.terminal.bell.wait(LOOK_SECONDS)
            if await self._thread.patiently(lambda: own.fetch_is_answered(delivery_id)):
                seen_elsewhere += 1
        await self._thread.catch_up()
        return answered

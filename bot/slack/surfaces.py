"""Where proposals show: a root card in the channel and, in its thread, the buttons and how the devices move.

Each is made true from the proposal as it stands when it is sent, so a repeated attempt never shows an old state.
Buttons and progress are posted as text that claims nothing, and made what they are by an update: a post whose answer
was lost can be repeated without making live buttons twice, or leaving a second copy that stands still. Where nothing
can be said any more (archived, not a member), or somebody deleted the card, it moves: then the offer is made anew, so
that buttons which are left behind count for nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from slack_sdk.errors import SlackApiError

from bot.errors import LeaseLost
from bot.exchange import Post, PostKind
from bot.model import Instance, is_from_terminal
from bot.operations import Operations
from bot.ports import Store, Surface
from bot.proposals import Proposal, State
from bot.slack import views
from bot.slack.messages import Deleted, Messages, Undeliverable, may_pass
from bot.slack.people import SLACK_TROUBLE, error_code
from bot.workflow.means import Log
from bot.workflow.reports import stands_elsewhere


class Surfaces:
    """Shows proposals. Raises as `Messages` does, and `StoreUnavailable`."""

    def __init__(
        self,
        messages: Messages,
        *,
        store: Store,
        operations: Operations,
        instance: Callable[[str], Instance | None],
        log: Log,
    ) -> None:
        self._messages = messages
        self._store = store
        self._operations = operations
        self._instance = instance
        self._log = log

    async def show_card(self, proposal: Proposal) -> None:
        surface = await self._store.fetch_surface(proposal.proposal_id)
        if surface.card is None:
            await self.stand(proposal)
            return
        message = views.card(proposal, self._operations[proposal.operation])
        await self._messages.update(surface.channel, surface.card, message)

    async def stand(self, proposal: Proposal) -> Surface:
        """The surface with its root card; posts the card if it does not stand yet."""
        surface = await self._store.fetch_surface(proposal.proposal_id)
        return surface if surface.card is not None else await self._stand_anew(proposal, was=surface)

    async def move(self, proposal: Proposal, *, is_deleted: bool) -> None:
        """The card stands elsewhere from now on: nothing can be said where it stood, or somebody has deleted it.

        Its buttons there cannot be clicked, or their offer is out of date by then (`bot.workflow.road`).
        """
        was = await self._store.fetch_surface(proposal.proposal_id)
        await self._stand_anew(proposal, was=was, but=None if is_deleted else was.channel)
        if was.buttons is not None:
            without = views.no_buttons(proposal, self._operations[proposal.operation])
            with contextlib.suppress(Undeliverable, *SLACK_TROUBLE):
                await self._messages.update(was.channel, was.buttons, without)

    async def _stand_anew(self, proposal: Proposal, *, was: Surface, but: str | None = None) -> Surface:
        """Where it was asked for, else in the instance's channel, else in a direct message with who asked for it."""
        message = views.card(proposal, self._operations[proposal.operation])
        instance = self._instance(proposal.target.instance)
        channels = (proposal.place.channel, instance.channel if instance is not None else None)
        why = "no channel"
        for channel in dict.fromkeys(channel for channel in channels if channel not in (None, but)):
            try:
                return await self._stand_in(proposal, channel, message, was=was)
            except Undeliverable as error:
                why = str(error)
        if is_from_terminal(proposal.requester):
            raise Undeliverable(why)
        try:
            direct = await self._messages.open_direct(proposal.requester)
            return await self._stand_in(proposal, direct, message, was=was)
        except Undeliverable as error:
            raise Undeliverable(why) from error

    async def _stand_in(
        self, proposal: Proposal, channel: str | None, message: views.Message, *, was: Surface
    ) -> Surface:
        posted = await self._messages.post(channel, message)
        surface = await self._keep(proposal, Surface(channel, posted), was=was)
        if channel not in (proposal.place.channel, was.channel):
            is_direct = channel is not None and channel.startswith("D")
            notice = stands_elsewhere(None if is_direct else proposal.target.instance)
            pointer = Post(PostKind.REPLY, f"pointer {proposal.proposal_id}"[:64], notice, proposal.reply_to)
            await self._store.record(posts=(pointer,))
        return surface

    async def show_buttons(self, proposal: Proposal) -> None:
        operation = self._operations[proposal.operation]
        is_waiting = proposal.state is State.OFFERED
        surface = await self._posted_once(proposal, "buttons", views.no_buttons(proposal, operation))
        message = (views.ask_for_yes if is_waiting else views.no_buttons)(proposal, operation)
        try:
            await self._messages.update(surface.channel, surface.buttons, message)
        except Deleted:
            if not is_waiting:
                return
            await self._keep(proposal, replace(surface, buttons=None), was=surface)
            surface = await self._posted_once(proposal, "buttons", views.no_buttons(proposal, operation))
            await self._messages.update(surface.channel, surface.buttons, message)

    async def show_progress(self, proposal: Proposal) -> None:
        """What a busy Slack does not take is left to the next reading, so that no line waits behind it."""
        operation = self._operations[proposal.operation]
        try:
            surface = await self._posted_once(proposal, "progress", views.no_progress(proposal, operation))
            await self._messages.update(surface.channel, surface.progress, views.progress(proposal, operation))
        except Deleted as error:
            self._log.info("progress not shown", proposal=proposal.proposal_id, why=str(error))
        except SLACK_TROUBLE as error:
            if proposal.state is State.FINISHED or not may_pass(error):
                raise
            why = error_code(error) if isinstance(error, SlackApiError) else type(error).__name__
            self._log.info("progress not shown", proposal=proposal.proposal_id, why=why)

    async def _posted_once(
        self, proposal: Proposal, what: Literal["buttons", "progress"], message: views.Message
    ) -> Surface:
        """The surface with this message in the card's thread; posts it if it does not stand yet."""
        surface = await self.stand(proposal)
        if getattr(surface, what) is None:
            posted = await self._messages.post(surface.channel, message, surface.card)
            return await self._keep(proposal, replace(surface, **{what: posted}), was=surface)
        return surface

    async def _keep(self, proposal: Proposal, surface: Surface, *, was: Surface) -> Surface:
        """Where it stands now. A process that was away for long finds that another has posted it meanwhile."""
        if not await self._store.save_surface(proposal.proposal_id, surface, was=was):
            raise LeaseLost("another process has shown it meanwhile")
        return surface

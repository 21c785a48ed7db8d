"""Where proposals show: a root card in a channel and, in its thread, the buttons, how the devices move, and lines.

Each is made true from the proposal as it stands when it is sent, so a repeated attempt never shows an old state.
Buttons and progress are posted as text that claims nothing, and made what they are by an update: a post whose answer
was lost can be repeated without making live buttons twice, or leaving a second copy that stands still.

A proposal whose place takes nothing any more gets a new card (`places`). Before its buttons stand there, the old ones
are taken away, if Slack lets us, and the offer is made anew: whoever sees them still clicks for nothing. What it does
not do: wait for Slack, or try again what may pass.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Literal

from slack_sdk.errors import SlackApiError

from bot.errors import LeaseLost
from bot.exchange import Post, PostKind
from bot.model import Instance, Notice, is_from_terminal
from bot.operations import Operation, Operations
from bot.ports import Store, Surface
from bot.proposals import Proposal, State
from bot.slack import views
from bot.slack.messages import Gone, Messages, Undeliverable, may_pass
from bot.slack.pace import NoSpareTurn, Urgency
from bot.slack.people import SLACK_TROUBLE, error_code
from bot.slack.places import Places, is_direct
from bot.slack.views import Message, Pointed
from bot.slack.wording import why_no_place
from bot.workflow.means import Log
from bot.workflow.reports import began_elsewhere, card_is_gone, goes_on_elsewhere, stands_elsewhere

MOVES_MOST = 2
"""So often one post looks for another place: to the channel of the instance, and from there to a direct message."""

_Part = Literal["buttons", "progress"]


class Surfaces:
    """Shows proposals. Raises as `Messages` does, `StoreUnavailable` and `LeaseLost`.

    `reoffer` mints a new offer with the same preview for a proposal that waits for a yes; it owes card and buttons.
    """

    def __init__(
        self,
        messages: Messages,
        *,
        store: Store,
        operations: Operations,
        instance: Callable[[str], Instance | None],
        log: Log,
        reoffer: Callable[[str], Awaitable[None]],
    ) -> None:
        self._messages = messages
        self._places = Places(messages, instance=instance, log=log)
        self._store = store
        self._operations = operations
        self._log = log
        self._reoffer = reoffer

    async def show_card(self, proposal: Proposal) -> None:
        surface = await self._store.fetch_surface(proposal.proposal_id)
        if surface.card is None:
            await self.stand(proposal)
            return
        try:
            await self._update(proposal, surface, surface.card, views.card, urgency=Urgency.NOW)
        except Undeliverable as lost:
            if isinstance(lost, Gone) and proposal.state is State.FINISHED:
                return  # somebody has tidied up
            moved = await self._move(proposal, surface, lost)
            await self._say_why(proposal, surface, moved, lost)

    async def stand(self, proposal: Proposal) -> Surface:
        """The surface with its root card; posts the card if it does not stand yet."""
        surface = await self._store.fetch_surface(proposal.proposal_id)
        if surface.card is not None:
            return surface
        posted = await self._places.post(proposal, views.card(proposal, self._operation(proposal)))
        standing = await self._keep(proposal, posted, was=surface)
        if standing.channel != proposal.place.channel:
            await self._point(proposal, stands_elsewhere(_instance_of(proposal, standing)))
        return standing

    async def show_buttons(self, proposal: Proposal) -> None:
        await self._show(proposal, "buttons", urgency=Urgency.NOW)

    async def show_progress(self, proposal: Proposal) -> None:
        """What a busy Slack does not take is left to the next reading, so that no line waits behind it."""
        is_over = proposal.state is State.FINISHED
        try:
            await self._show(proposal, "progress", urgency=Urgency.LATE if is_over else Urgency.SPARE)
        except NoSpareTurn:
            self._log.info("progress not shown", proposal=proposal.proposal_id, why="others go first")
        except SLACK_TROUBLE as error:
            if is_over or not may_pass(error):
                raise
            self._log.info("progress not shown", proposal=proposal.proposal_id, why=_word(error))

    async def say(self, proposal: Proposal, notice: Notice, *, is_broadcast: bool) -> None:
        """Adds a line to the thread; where that has no place any more, elsewhere, and says so."""
        surface = await self.stand(proposal)
        urgency = Urgency.NOW if is_broadcast else Urgency.SOON
        for moves in range(MOVES_MOST + 1):
            operation = self._operation(proposal)
            message = views.broadcast(notice, proposal, operation) if is_broadcast else views.line(notice)
            try:
                await self._messages.post(
                    surface.channel, message, surface.card, urgency=urgency, is_broadcast=is_broadcast
                )
                return
            except Undeliverable as lost:
                if moves == MOVES_MOST:
                    raise
                was, surface = surface, await self._move(proposal, surface, lost)
                notice = replace(notice, lines=(*notice.lines, _why(was, surface, lost)))

    async def point_to(self, post: Post) -> Pointed | None:
        """What a reply points to, as it stands."""
        proposal = await self._store.fetch_proposal(post.pointing_to) if post.pointing_to is not None else None
        if proposal is None:
            return None
        surface = await self._store.fetch_surface(proposal.proposal_id)
        link = await self._messages.fetch_link(surface.channel, surface.card)
        return Pointed(proposal, self._operation(proposal), link)

    async def _show(self, proposal: Proposal, what: _Part, *, urgency: Urgency) -> None:
        """Makes it true in the card's thread. What was deleted is posted anew, what has no place looks for one."""
        view = views.buttons if what == "buttons" else views.progress
        for moves in range(MOVES_MOST + 1):
            surface = await self.stand(proposal)
            try:
                surface = await self._posted_once(proposal, surface, what, urgency=urgency)
                await self._update(proposal, surface, getattr(surface, what), view, urgency=urgency)
                return
            except Undeliverable as lost:
                if moves == MOVES_MOST:
                    raise
                if isinstance(lost, Gone) and getattr(surface, what) is not None:
                    if not _is_missed(proposal, what):
                        return
                    await self._forget(proposal, surface, what, lost)
                else:
                    moved = await self._move(proposal, surface, lost)
                    await self._say_why(proposal, surface, moved, lost)

    async def _posted_once(self, proposal: Proposal, surface: Surface, what: _Part, *, urgency: Urgency) -> Surface:
        """The surface with this message in the card's thread, as text that claims nothing if it had to be posted."""
        if getattr(surface, what) is not None:
            return surface
        first = views.no_buttons if what == "buttons" else views.no_progress
        message = first(proposal, self._operation(proposal))
        posted = await self._messages.post(surface.channel, message, surface.card, urgency=urgency)
        return await self._keep(proposal, replace(surface, **{what: posted}), was=surface)

    async def _update(
        self,
        proposal: Proposal,
        surface: Surface,
        ts: str | None,
        view: Callable[[Proposal, Operation], Message],
        *,
        urgency: Urgency,
    ) -> None:
        async def draw() -> Message:
            now = await self._store.fetch_proposal(proposal.proposal_id)
            return view(now or proposal, self._operation(proposal))

        await self._messages.update(surface.channel, ts, draw, urgency=urgency)

    async def _keep(self, proposal: Proposal, surface: Surface, *, was: Surface) -> Surface:
        """Where it stands now. A process that was away for long finds that another has posted it meanwhile."""
        if not await self._store.save_surface(proposal.proposal_id, surface, was=was):
            raise LeaseLost("another process has shown it meanwhile")
        return surface

    async def _forget(self, proposal: Proposal, surface: Surface, what: _Part, gone: Gone) -> None:
        """A message that stands no more, or cannot be changed, is to be posted anew."""
        self._log.info("message gone", proposal=proposal.proposal_id, what=what, why=str(gone))
        if what == "buttons" and not gone.is_deleted:
            await self._void(proposal)
        await self._keep(proposal, replace(surface, **{what: None}), was=surface)

    async def _move(self, proposal: Proposal, surface: Surface, lost: Undeliverable) -> Surface:
        """A new card, in whose thread everything goes on: beside the first one, if only that is gone."""
        self._log.error("card lost", proposal=proposal.proposal_id, channel=surface.channel, why=str(lost))
        card = views.card(proposal, self._operation(proposal))
        moved = await self._places.post_anew(proposal, card, was=surface, lost=lost)
        if surface.buttons is not None:
            # Owed before the old ones go: if this process dies in between, somebody still gives them back.
            await self._store.record(posts=(Post(PostKind.BUTTONS, proposal.proposal_id),))
        await self._clear_away(proposal, surface)
        kept = await self._keep(proposal, moved, was=surface)
        if kept.channel != surface.channel:
            await self._point(proposal, goes_on_elsewhere(_instance_of(proposal, kept), why_no_place(str(lost))))
        return kept

    async def _clear_away(self, proposal: Proposal, surface: Surface) -> None:
        """What stood in the old place shall claim nothing, as far as Slack lets us, and nobody's click there counts."""
        for ts in (surface.buttons, surface.card, surface.progress):
            if ts is None:
                continue
            try:
                await self._update(proposal, surface, ts, views.moved_on, urgency=Urgency.NOW)
            except (Undeliverable, *SLACK_TROUBLE) as error:
                self._log.info("old card left", proposal=proposal.proposal_id, why=_word(error))
        if surface.buttons is not None:
            await self._void(proposal)

    async def _void(self, proposal: Proposal) -> None:
        """Buttons that may stand somewhere still count for nothing: the offer gets another id."""
        if proposal.state is State.OFFERED:
            await self._reoffer(proposal.proposal_id)

    async def _say_why(self, proposal: Proposal, was: Surface, moved: Surface, lost: Undeliverable) -> None:
        line = Post(PostKind.LINE, proposal.proposal_id, Notice(_why(was, moved, lost)))
        await self._store.record(posts=(line,))

    async def _point(self, proposal: Proposal, notice: Notice) -> None:
        """Tells the asker where to look."""
        if is_from_terminal(proposal.reply_to.user_id):
            return
        lane = f"pointer {proposal.proposal_id}"[:64]
        pointer = Post(PostKind.REPLY, lane, notice, proposal.reply_to, pointing_to=proposal.proposal_id)
        await self._store.record(posts=(pointer,))

    def _operation(self, proposal: Proposal) -> Operation:
        return self._operations[proposal.operation]


def _word(error: BaseException) -> str:
    if isinstance(error, Undeliverable):
        return str(error)
    return error_code(error) if isinstance(error, SlackApiError) else type(error).__name__


def _is_missed(proposal: Proposal, what: _Part) -> bool:
    """Whether a message that somebody deleted must stand again."""
    return proposal.state is State.OFFERED or (what == "progress" and proposal.state is not State.FINISHED)


def _instance_of(proposal: Proposal, surface: Surface) -> str | None:
    """In whose channel it stands; None in a direct message."""
    return None if is_direct(surface) else proposal.target.instance


def _why(was: Surface, now: Surface, lost: Undeliverable) -> str:
    return card_is_gone() if was.channel == now.channel else began_elsewhere(why_no_place(str(lost)))

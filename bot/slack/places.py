"""Where a card may stand: where it was asked for, in the channel of its instance, in a direct message.

Each is tried once, in this order; a place that is lost is not tried again for the same card, so that none goes in a
circle. What it does not do: wait, or keep where the card stands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bot.model import Instance, is_from_terminal
from bot.ports import Surface
from bot.proposals import Proposal
from bot.slack.messages import Gone, Messages, Undeliverable
from bot.slack.pace import Urgency
from bot.slack.views import Message
from bot.workflow.means import Log


class Places:
    """Finds a place for a card. Raises as `Messages` does; `Undeliverable` says what was wrong with the first place."""

    def __init__(self, messages: Messages, *, instance: Callable[[str], Instance | None], log: Log) -> None:
        self._messages = messages
        self._instance = instance
        self._log = log

    async def post(self, proposal: Proposal, card: Message) -> Surface:
        """Posts the card in the first place that takes it."""
        return await self._post(proposal, card, self._channels(proposal))

    async def post_anew(self, proposal: Proposal, card: Message, *, was: Surface, lost: Undeliverable) -> Surface:
        """As `post`, for a card whose place is lost; where only the card is gone, the same channel may do."""
        channels = self._channels(proposal)
        if was.channel in channels:
            channels = channels[channels.index(was.channel) + 1 :]
        elif is_direct(was):
            channels = []
        if isinstance(lost, Gone) and was.channel is not None:
            channels = [was.channel, *channels]
        return await self._post(proposal, card, channels, but=was.channel, lost=lost)

    async def _post(
        self,
        proposal: Proposal,
        card: Message,
        channels: Sequence[str],
        *,
        but: str | None = None,
        lost: Undeliverable | None = None,
    ) -> Surface:
        first = lost
        for channel in (*channels, None):  # the direct message is opened only if nothing else is left
            try:
                place = channel or await self._open_direct(proposal, but=but)
                return Surface(place, await self._messages.post(place, card, urgency=Urgency.NOW))
            except Undeliverable as error:
                self._log.info("card not taken", proposal=proposal.proposal_id, channel=channel, why=str(error))
                first = first or error
        raise first or Undeliverable("no channel")

    def _channels(self, proposal: Proposal) -> list[str]:
        instance = self._instance(proposal.target.instance)
        channels = (proposal.place.channel, instance.channel if instance is not None else None)
        return list(dict.fromkeys(channel for channel in channels if channel is not None))

    async def _open_direct(self, proposal: Proposal, *, but: str | None) -> str:
        if is_from_terminal(proposal.requester):
            raise Undeliverable("no channel")
        channel = await self._messages.open_direct(proposal.requester)
        if channel == but:
            raise Undeliverable("no channel")
        return channel


def is_direct(surface: Surface) -> bool:
    return surface.channel is not None and surface.channel.startswith("D")

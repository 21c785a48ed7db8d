"""The end of a proposal: its outcome, the last line in the channel, and the card made true."""

from __future__ import annotations

from collections.abc import Sequence

from bot.audit import EntryName, Fact
from bot.exchange import Post, PostKind
from bot.model import Notice, Outcome, OutcomeCode
from bot.proposals import Ended, Proposal
from bot.workflow.means import Means, move, showing


async def end(means: Means, proposal: Proposal, code: OutcomeCode, notice: Notice) -> None:
    """The end, said in the channel."""
    await finish(means, proposal, Ended(Outcome(code, notice)))


async def finish(
    means: Means,
    proposal: Proposal,
    ended: Ended,
    *,
    facts: dict[str, Fact] | None = None,
    posts: Sequence[Post] = (),
) -> None:
    """As `end`, with what the last call came to; `posts` come after the last line."""
    said: dict[str, Fact] = {"outcome": ended.outcome.code.value, "request_id": ended.request_id}
    final = Post(PostKind.BROADCAST, proposal.proposal_id, ended.outcome.notice)
    owed = (final, *showing(proposal.proposal_id), *posts)
    await move(means, proposal, ended, name=EntryName.ENDED, facts=said | (facts or {}), posts=owed)

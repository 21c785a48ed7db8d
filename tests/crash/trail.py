"""Whether the audit trail is whole: a proposal's entries, replayed through the machine's table, give its state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from bot.audit import EntryName
from bot.exchange import Ask, Click
from bot.proposals import (
    TABLE,
    Accepted,
    Answer,
    CallAnswer,
    Called,
    Confirmed,
    Deferred,
    Ended,
    GivenUp,
    Lost,
    Offered,
    Proposal,
    State,
)
from tests.crash.kept import Kept, KeptEntry

ANSWER_OF: Mapping[str, type[Answer]] = {
    EntryName.OFFERED: Offered,
    EntryName.REOFFERED: Offered,
    EntryName.CONFIRMED: Confirmed,
    EntryName.CALLED: Called,
    EntryName.ACCEPTED: Accepted,
    EntryName.DEFERRED: Deferred,
    EntryName.LOST: Lost,
    EntryName.GIVEN_UP: GivenUp,
    EntryName.ENDED: Ended,
}
_SECOND_LOOKS = (EntryName.CLICK_REFUSED, EntryName.REFUSED)
"""Entries that name a proposal and change nothing of it."""


def wrong_in_the_trail(kept: Kept) -> Iterator[str]:
    for proposal in kept.proposals:
        steps = [entry for entry in kept.entries_of(proposal.proposal_id) if entry.name not in _SECOND_LOOKS]
        for wrong in (*_not_replayed(proposal, steps), *_not_whole(kept, proposal, steps)):
            yield f"audit of {proposal.operation} {proposal.proposal_id}: {wrong}"
    yield from _unanswered(kept)


def _not_replayed(proposal: Proposal, entries: list[KeptEntry]) -> Iterator[str]:
    if not entries or entries[0].name != EntryName.ASKED:
        yield f"it does not begin with {EntryName.ASKED}"
        return
    states = frozenset({State.RECEIVED})
    for entry in entries[1:]:
        answer = ANSWER_OF.get(entry.name)
        after = frozenset[State]().union(*(TABLE.get((state, answer), ()) for state in states)) if answer else None
        if not after:
            yield f"{entry.name} has no meaning after {', '.join(sorted(states))}"
            return
        states = after
    if proposal.state not in states:
        yield f"replayed it is {', '.join(sorted(states))}; the row is {proposal.state}"


def _not_whole(kept: Kept, proposal: Proposal, entries: list[KeptEntry]) -> Iterator[str]:
    """One entry for each transition that leaves something behind: offers, the yes, calls, answers, the end."""
    by_name: dict[str, list[KeptEntry]] = {}
    for entry in entries:
        by_name.setdefault(entry.name, []).append(entry)

    def facts(name: EntryName, fact: str) -> list[object]:
        return [entry.facts.get(fact) for entry in by_name.get(name, [])]

    offered = facts(EntryName.OFFERED, "offer") + facts(EntryName.REOFFERED, "offer")
    made = [offer for offer, of in kept.offers.items() if of == proposal.proposal_id]
    if Counter(offered) != Counter(made):
        yield f"offers {made} were made, and {offered} told"
    nonces = [call.intent.nonce for call in proposal.calls]
    if sorted(map(str, facts(EntryName.CALLED, "nonce"))) != sorted(nonces):
        yield f"{len(nonces)} intents were written, and {len(by_name.get(EntryName.CALLED, []))} told"
    accepted = sum(call.answer is CallAnswer.ACCEPTED for call in proposal.calls)
    if accepted != len(by_name.get(EntryName.ACCEPTED, [])):
        yield f"{accepted} calls were accepted, and {len(by_name.get(EntryName.ACCEPTED, []))} told"
    yeses = facts(EntryName.CONFIRMED, "offer")
    if len(yeses) != len(set(yeses)):
        yield f"an offer was confirmed twice: {yeses}"
    ends = len(by_name.get(EntryName.ENDED, []))
    if ends != (proposal.state is State.FINISHED):
        yield f"it ends {ends} times, and its row is {proposal.state}"
    if proposal.version < len(entries) - 1:
        yield f"version {proposal.version} has {len(entries)} entries"


def _unanswered(kept: Kept) -> Iterator[str]:
    """Each delivery that was handled became a proposal, counted as the yes, or was answered to its sender; once."""
    born_of = Counter(proposal.reply_to.address for proposal in kept.proposals)
    yeses = Counter(
        (entry.facts.get("offer"), entry.actor) for entry in kept.entries if entry.name == EntryName.CONFIRMED
    )
    for delivery, is_handled in kept.deliveries:
        if not is_handled:
            continue
        replies = len([each for each in kept.posts_of(delivery.delivery_id) if each.post.reply_to is not None])
        content, became = delivery.content, 0
        if isinstance(content, Ask):
            became = born_of[delivery.reply_to.address]
        elif isinstance(content, Click):
            key = (content.offer_id, delivery.reply_to.user_id)
            became = int(replies == 0 and yeses[key] > 0)
            yeses[key] -= became
        if replies + became != 1:
            kind = type(content).__name__.lower()
            yield f"{kind} {delivery.delivery_id} was answered {replies} times and became {became} changes"

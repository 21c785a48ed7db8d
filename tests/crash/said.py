"""What stands in Slack after a flow, against what was owed: cards, live buttons, lines, the last line, private answers.

Slack has no idempotency key, so a kill between Slack's taking of a post and our writing that down repeats the post.
That is harmless for text (DESIGN §8), and counted: at most one a kill for each change. It is never harmless for live
buttons.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bot.exchange import PostKind
from bot.model import OutcomeCode
from bot.proposals import Proposal
from bot.sandbox.workspace import Message
from bot.slack import views
from bot.wiring import OPERATIONS
from tests.crash.kept import Kept, KeptPost
from tests.crash.world import World

_SAID_BY_THE_CARD = (OutcomeCode.DISMISSED, OutcomeCode.EXPIRED)
"""These ends have no line of their own."""

_LINES = (PostKind.LINE, PostKind.BROADCAST)


@dataclass(frozen=True, slots=True)
class Said:
    """Of one proposal: its root messages, the texts in their threads, those owed, and how many are too many."""

    roots: tuple[Message, ...]
    texts: Counter[str]
    owed: Counter[str]
    repeated: int


def said_of(world: World, kept: Kept) -> Mapping[str, Said]:
    """By proposal."""
    return {proposal.proposal_id: _said(world, kept, proposal) for proposal in kept.proposals}


def wrong_in_slack(world: World, kept: Kept, said: Mapping[str, Said], *, kills: int) -> Iterator[str]:
    for proposal in kept.proposals:
        name = f"{proposal.operation} {proposal.proposal_id}"
        for wrong in (
            *_wrong_card(world, kept, proposal),
            *_wrong_lines(said[proposal.proposal_id], kills=kills),
            *_wrong_end(kept, proposal, said[proposal.proposal_id]),
        ):
            yield f"{name}: {wrong}"
    yield from _wrong_buttons(world, kept)
    yield from _lost_deeds(world, kept)
    yield from _untold(world, kept)


def _said(world: World, kept: Kept, proposal: Proposal) -> Said:
    surface = kept.surfaces.get(proposal.proposal_id)
    if surface is None or surface.channel is None:
        return Said((), Counter(), Counter(), 0)
    of_this_job = world.cards(proposal.target.job)
    taken = {other.card for of, other in kept.surfaces.items() if of != proposal.proposal_id}
    roots = tuple(card for card in of_this_job if card.ts not in taken)
    thread = [
        message
        for root in roots
        for message in world.workspace.messages(surface.channel, root.ts)
        if message.ts != root.ts and not message.files
    ]
    owed = Counter(_text(proposal, each) for each in kept.posts_of(proposal.proposal_id) if each.post.kind in _LINES)
    standing = 1 + (surface.buttons is not None) + (surface.progress is not None)
    repeated = len(roots) + len(thread) - standing - owed.total()
    return Said(roots, Counter(message.text for message in thread), owed, repeated)


def _text(proposal: Proposal, each: KeptPost) -> str:
    assert each.post.notice is not None
    if each.post.kind is PostKind.BROADCAST:
        return views.broadcast(each.post.notice, proposal, OPERATIONS[proposal.operation]).text
    return views.line(each.post.notice).text


def _wrong_card(world: World, kept: Kept, proposal: Proposal) -> Iterator[str]:
    surface = kept.surfaces.get(proposal.proposal_id)
    if surface is None or surface.card is None:
        if proposal.offer is not None:
            yield "an offer was made, and no card stands"
        return
    card = world.workspace.find(surface.channel or "", surface.card)
    if card is None:
        yield f"its card {surface.card} is not in Slack"
    elif card.text != views.card(proposal, OPERATIONS[proposal.operation]).text:
        yield f"its card says {card.text.splitlines()[0]!r}, which is not how it stands"


def _wrong_lines(said: Said, *, kills: int) -> Iterator[str]:
    for text, count in said.owed.items():
        if said.texts[text] < count:
            yield f"a line is told as delivered and not in Slack: {text[:80]!r}"
    if said.repeated > kills:
        yield f"{said.repeated} posts stand there too often, after {kills} kills"


def _wrong_end(kept: Kept, proposal: Proposal, said: Said) -> Iterator[str]:
    """Exactly one last line: in the thread, or to the asker alone where nothing was ever offered."""
    outcome = proposal.outcome
    if outcome is None or outcome.code in _SAID_BY_THE_CARD:
        return
    kinds = (PostKind.BROADCAST,) if proposal.offer is not None else (PostKind.REPLY,)
    last = [
        each
        for each in kept.posts_of(proposal.proposal_id)
        if each.post.kind in kinds and each.post.notice == outcome.notice
    ]
    if len(last) != 1:
        yield f"{len(last)} last lines are owed, not one ({outcome.code})"
    elif proposal.offer is not None and not said.texts[_text(proposal, last[0])]:
        yield f"its last line ({outcome.code}) is not in the thread"


def _wrong_buttons(world: World, kept: Kept) -> Iterator[str]:
    finished = {proposal.proposal_id for proposal in kept.proposals if proposal.outcome is not None}
    for offer, places in world.workspace.live_buttons().items():
        if kept.offers.get(offer) in finished or offer not in kept.offers:
            yield f"live buttons of a change that is over stand at {sorted(places)}"
    for offer, most in world.workspace.most_live.items():
        if most > 1:
            yield f"{most} messages had live buttons for the offer {offer} at the same time"


def _lost_deeds(world: World, kept: Kept) -> Iterator[str]:
    """What was acknowledged without a word was written down; else the person was told."""
    written = {delivery.reply_to.address for delivery, _ in kept.deliveries}
    for deed in world.deeds:
        if deed.is_taken and deed.address not in written:
            excuses = [text for text in world.told(deed.user) if "database" in text or "write this down" in text]
            if deed.is_command or not excuses:
                yield f"a {'command' if deed.is_command else 'click'} of {deed.user} was acknowledged and is lost"


def _untold(world: World, kept: Kept) -> Iterator[str]:
    """Every private answer that is told as delivered was seen by its person."""
    for each in kept.posts:
        if each.post.reply_to is None or each.post.file is not None or each.failure is not None:
            continue
        said = each.post.notice.text if each.post.notice is not None else ""
        if not any(said in text for text in world.told(each.post.reply_to.user_id)):
            yield f"an answer is told as delivered, and {each.post.reply_to.user_id} never saw it (post {each.post_id})"

"""What people see: pure functions from the core's values to messages.

Each message carries a top-level text that is complete by itself (notifications and screen readers get only that), and
blocks in which text of people and of the cloud stands as plain text. Colour is never the only sign.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bot.exchange import Post
from bot.model import Notice, Offer, OutcomeCode, Preview
from bot.operations import Operation
from bot.proposals import Proposal, State
from bot.slack.blocks import (
    BUTTON_LENGTH,
    TEXT_LENGTH,
    Block,
    actions,
    button,
    context,
    cut,
    escaped,
    fallback,
    header,
    mrkdwn,
    plain,
    preformatted,
    section,
)
from bot.slack.payloads import ActionId
from bot.slack.wording import mention, moment, question, share_line, status, title, yes_label, yes_style
from bot.workflow.figures import (
    PARTS_SHOWN,
    count_lines,
    failure_lines,
    job_line,
    moved_lines,
    preview_lines,
)

PICKS_MOST = 50
_PICKS_A_ROW = 5
_OPEN = "Open the card"
_TIMES_LENGTH = 200
"""As much as is kept free in a message's text for times, which are markup."""


@dataclass(frozen=True, slots=True)
class Message:
    """What `chat.postMessage` and its kin take: the complete text, and the blocks."""

    text: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Pointed:
    """The change that a reply points to, as it stands; `link` leads to its card (None: not known)."""

    proposal: Proposal
    operation: Operation
    link: str | None = None


def card(proposal: Proposal, operation: Operation) -> Message:
    """The root card: what, where, how many, who and why, and where it stands."""
    name, state = title(proposal, operation), status(proposal)
    blocks = [header(f"{state}: {name}")]
    lines: tuple[str, ...] = ()
    if proposal.offer is not None:
        lines = _facts(proposal, proposal.offer, operation)
        blocks.append(section(lines))
    if proposal.outcome is not None:
        blocks.append(section((proposal.outcome.notice.text, *proposal.outcome.notice.lines)))
    blocks += _people(proposal)
    outcome = proposal.outcome.notice.text if proposal.outcome else ""
    reason = f"Because: {proposal.reason}" if proposal.reason else ""
    return _message([f"{state}: {name}.", outcome, reason, *lines], blocks)


_NO_CALL = (OutcomeCode.DISMISSED, OutcomeCode.EXPIRED, OutcomeCode.NOT_DONE, OutcomeCode.DENIED)


def _facts(proposal: Proposal, offer: Offer, operation: Operation) -> tuple[str, ...]:
    """What the call would do, or what has moved since; where nothing was called, neither."""
    preview = offer.preview
    if moved := moved_lines(proposal):
        return (*_what(preview), *moved)
    if proposal.calls or (proposal.outcome is not None and proposal.outcome.code in _NO_CALL):
        return _what(preview)
    return preview_lines(preview, operation, proposal.params)


def _what(preview: Preview) -> tuple[str, ...]:
    """Which rollouts it is about."""
    is_one = len(preview.parts) == 1
    lines = [job_line(part.job, is_kind_told=is_one) for part in preview.parts[:1]]
    if not is_one:
        lines.append(f"{len(preview.parts):,} rollouts")
    return tuple(lines)


def _people(proposal: Proposal) -> list[Block]:
    who = [f"Asked by {mention(proposal.reply_to.user_id)} {moment(proposal.created_at)}"]
    if proposal.confirmed_by and proposal.approved_at:
        who.append(f"confirmed by {mention(proposal.confirmed_by)} {moment(proposal.approved_at)}")
    if proposal.dismissed_by:
        who.append(
            f"dismissed by {mention(proposal.dismissed_by)} {moment(proposal.changed_at or proposal.created_at)}"
        )
    if proposal.state is State.OFFERED and proposal.offer is not None:
        who.append(f"expires {moment(proposal.offer.expires_at)}")
    blocks = [context(mrkdwn(" · ".join(who)))]
    notes = [plain(f"Because: {proposal.reason}", 600)] if proposal.reason else []
    if proposal.request_ids:
        notes.append(plain(f"RequestId: {', '.join(proposal.request_ids)}", 600))
    return [*blocks, context(*notes)] if notes else blocks


def buttons(proposal: Proposal, operation: Operation) -> Message:
    """The button message: with buttons while it waits for a yes, and then only."""
    is_waiting = proposal.state is State.OFFERED
    return (ask_for_yes if is_waiting else no_buttons)(proposal, operation)


def ask_for_yes(proposal: Proposal, operation: Operation) -> Message:
    """The button message while it waits for a yes. A button holds the offer's id and nothing else."""
    assert proposal.offer is not None  # noqa: S101 (only an offer asks)
    preview, offer_id = proposal.offer.preview, proposal.offer.offer_id
    asks = question(proposal, preview, operation)
    text = f"{fallback([asks], length=TEXT_LENGTH - _TIMES_LENGTH)} Confirm before {moment(proposal.offer.expires_at)}."
    label = yes_label(proposal, preview, operation)
    yes = button(label, action_id=ActionId.CONFIRM, value=offer_id, style=yes_style(operation))
    no = button("Dismiss", action_id=ActionId.DISMISS, value=offer_id)
    return Message(text, (section((asks,)), actions(yes, no)))


def no_buttons(proposal: Proposal, operation: Operation) -> Message:
    """The button message when there is nothing (more) to click: text alone."""
    name = title(proposal, operation)
    if proposal.state is State.OFFERED:
        return _message([f"{name}: the buttons follow."], [section((f"{name}: the buttons follow.",))])
    who = proposal.confirmed_by or proposal.dismissed_by
    by = f" by {mention(who)}" if who else ""
    said = "confirmed" if proposal.confirmed_by else status(proposal)
    text = f"{escaped(name)}: {said}{by}."
    return Message(text, (context(mrkdwn(text)),))


def moved_on(proposal: Proposal, operation: Operation) -> Message:
    """What stays where a card stood: nothing to click, and nothing that becomes untrue."""
    said = f"{title(proposal, operation)}: this goes on at a new card."
    return _message([said], [section((said,))])


def progress(proposal: Proposal, operation: Operation) -> Message:
    """The message in the thread that tells how the devices move, edited as they are read."""
    lines = [f"{status(proposal)}: {title(proposal, operation)}."]
    if proposal.progress:
        lines += [share_line(proposal), *moved_lines(proposal)]
    else:
        lines.append("No reading of the devices yet.")
    is_over = proposal.state is State.FINISHED
    if is_over:
        lines.append("I no longer watch: the line in this thread that the channel sees too says how it ended.")
    when = _when(proposal)
    text = fallback(lines, length=TEXT_LENGTH - _TIMES_LENGTH)
    blocks = [section(lines), *([context(mrkdwn(when))] if when else [])]
    return Message(f"{text}\n{when}".strip(), tuple(blocks))


def _when(proposal: Proposal) -> str:
    """As of when the numbers are (the oldest of them), and until when they will be read again."""
    read_at = [counts.read_at for counts in proposal.progress.values()]
    told = [f"As of {moment(min(read_at))}."] if read_at else []
    if proposal.state is State.FOLLOWING and proposal.follow_until is not None:
        told.append(f"I watch until {moment(proposal.follow_until)} at the latest.")
    return " ".join(told)


def no_progress(proposal: Proposal, operation: Operation) -> Message:
    """The message that tells how the devices move, before it does: a second copy of it misleads nobody."""
    said = f"{title(proposal, operation)}: how the devices move is told here."
    return _message([said], [section((said,))])


def line(notice: Notice) -> Message:
    """A line in the thread."""
    return _message(_said(notice), _notice_blocks(notice))


def broadcast(notice: Notice, proposal: Proposal, operation: Operation) -> Message:
    """A line in the thread that the channel sees too, where it must say by itself what it is about."""
    name = title(proposal, operation)
    return _message((f"{name}:", *_said(notice)), [context(plain(name)), *_notice_blocks(notice)])


def reply(post: Post, pointed: Pointed | None = None) -> Message:
    """An answer for one person alone, with the numbers if it has any, what it points to, and what to pick from."""
    notice = post.notice or Notice("")
    blocks = _notice_blocks(notice)
    parts = list(_said(notice))
    is_card_shown = pointed is not None and post.preview is not None
    shown = _shown_in(pointed) if pointed is not None and is_card_shown else _numbers_in(post)
    lines = [text for text in shown if text not in notice.lines]
    if lines:
        blocks.insert(1, section(lines))
        parts += lines
    if pointed is not None:
        blocks += [*(_people(pointed.proposal) if is_card_shown else []), *_link(pointed)]
        parts.append(f"{_OPEN}: {pointed.link}" if pointed.link else "")
    if post.picks:
        blocks += _pick_buttons(post)
        unsaid = [name for name in post.picks[:PICKS_MOST] if not any(name in part for part in parts)]
        parts.append(f"To pick from: {', '.join(unsaid)}" if unsaid else "")
    return _message(parts, blocks)


def _numbers_in(post: Post) -> tuple[str, ...]:
    return tuple(_numbers(post.preview)) if post.preview is not None else ()


def _shown_in(pointed: Pointed) -> tuple[str, ...]:
    """What its card says, as it stands now; nothing of it can be clicked here."""
    proposal, operation = pointed.proposal, pointed.operation
    head = f"{status(proposal)}: {title(proposal, operation)}"
    return (head, *(_facts(proposal, proposal.offer, operation) if proposal.offer is not None else ()))


def _link(pointed: Pointed) -> Iterator[Block]:
    if pointed.link is not None:
        leaf = {"type": "link", "url": pointed.link, "text": _OPEN}
        yield {"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": [leaf]}]}


def _numbers(preview: Preview) -> Iterator[str]:
    """The counts of every batch that is only looked at; a change's own lines tell its numbers already."""
    if preview.touches or any(part.tasks for part in preview.parts):
        return
    for part in preview.parts[:PARTS_SHOWN]:
        if len(preview.parts) > 1:
            yield f"{part.job.job_id} · {job_line(part.job)}"
        yield from count_lines(part.counts, is_brief=len(preview.parts) > 1)
        yield from failure_lines(part.counts)
    if len(preview.parts) > PARTS_SHOWN:
        yield f"… and {len(preview.parts) - PARTS_SHOWN:,} more rollouts"


def _pick_buttons(post: Post) -> Iterator[Block]:
    """A button for each instance; the lane of the answer is the delivery of the ask."""
    buttons = [
        button(cut(name, BUTTON_LENGTH), action_id=f"{ActionId.PICK}:{place}", value=f"{post.lane} {name}"[:2000])
        for place, name in enumerate(post.picks[:PICKS_MOST])
    ]
    for start in range(0, len(buttons), _PICKS_A_ROW):
        yield actions(*buttons[start : start + _PICKS_A_ROW])
    if len(post.picks) > PICKS_MOST:
        yield context(plain(f"… and {len(post.picks) - PICKS_MOST:,} more: say it again with on <instance>."))


def _said(notice: Notice) -> tuple[str, ...]:
    reference = f"Reference: {notice.reference}" if notice.reference else ""
    return (notice.text, *notice.lines, notice.command or "", reference)


def _notice_blocks(notice: Notice) -> list[Block]:
    blocks = [section((notice.text, *notice.lines))]
    if notice.command:
        blocks.append(preformatted(notice.command))
    if notice.reference:
        blocks.append(context(plain(f"Reference: {notice.reference}", 600)))
    return blocks


def _message(parts: list[str] | tuple[str, ...], blocks: list[Block]) -> Message:
    return Message(fallback(parts), tuple(blocks))

"""What people see: pure functions from the core's values to messages.

Each message carries a top-level text that is complete by itself (notifications and screen readers get only that), and
blocks in which text of people and of the cloud stands as plain text. Colour is never the only sign.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from bot.exchange import Post
from bot.model import Notice, Offer, OutcomeCode, Preview
from bot.operations import Operation
from bot.proposals import Proposal, State
from bot.slack.blocks import (
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
from bot.workflow.figures import count_lines, effect_lines, job_line, movement_line, touches_words
from bot.workflow.sentences import strategy_line

NAME_LENGTH = 80
_USER_ID = re.compile(r"[UW][A-Z0-9]{2,20}")

_STATE_WORDS = {
    State.RECEIVED: "⏳ looking at it",
    State.OFFERED: "✋ waiting for a yes",
    State.APPROVED: "✅ confirmed, looking once more",
    State.CALLING: "📡 calling the cloud",
    State.UNKNOWN: "❓ the cloud's answer was lost, finding out",
    State.FOLLOWING: "👀 accepted by the cloud, watching the devices",
}

_OUTCOME_WORDS = {
    OutcomeCode.STOPPED: "🛑 stopped",
    OutcomeCode.PARTLY_STOPPED: "⚠️ partly stopped",
    OutcomeCode.NOT_STOPPED: "⚠️ not stopped",
    OutcomeCode.NOTHING_TO_STOP: "⚪ nothing to stop",
    OutcomeCode.GOAL_REACHED_UNCONFIRMED: "❔ goal reached, the call unconfirmed",
    OutcomeCode.DONE: "✅ done",
    OutcomeCode.NOT_DONE: "⚪ not done",
    OutcomeCode.REFUSED_BY_CLOUD: "⛔ refused by the cloud",
    OutcomeCode.UNKNOWN_OUTCOME: "❓ outcome unknown",
    OutcomeCode.DENIED: "⛔ denied",
    OutcomeCode.DISMISSED: "⚪ dismissed",
    OutcomeCode.EXPIRED: "⌛ expired",
    OutcomeCode.SUPERSEDED: "⚪ superseded",
}


@dataclass(frozen=True, slots=True)
class Message:
    """What `chat.postMessage` and its kin take: the complete text, and the blocks."""

    text: str
    blocks: tuple[Block, ...]


def mention(user_id: str) -> str:
    """A mention of a person we identified; anything that is no user id is shown as text."""
    return f"<@{user_id}>" if _USER_ID.fullmatch(user_id) else escaped(cut(user_id, NAME_LENGTH))


def moment(at: datetime) -> str:
    """A time in the reader's own zone, with UTC for clients that cannot."""
    return f"<!date^{int(at.timestamp())}^{{time_secs}}|{at:%H:%M:%S} UTC>"


def _status(proposal: Proposal) -> str:
    return _OUTCOME_WORDS[proposal.outcome.code] if proposal.outcome else _STATE_WORDS[proposal.state]


def _title(proposal: Proposal, operation: Operation) -> str:
    job, instance = cut(proposal.target.job, NAME_LENGTH), cut(proposal.target.instance, NAME_LENGTH)
    return f"{operation.verb.capitalize()} {job} on {instance}"


def card(proposal: Proposal, operation: Operation) -> Message:
    """The root card: what, where, how many, who and why, and where it stands."""
    title = _title(proposal, operation)
    status = _status(proposal)
    blocks = [header(f"{status}: {title}")]
    lines: tuple[str, ...] = ()
    if proposal.offer is not None:
        lines = _facts(proposal, proposal.offer, operation)
        blocks.append(section(lines))
    if proposal.outcome is not None:
        blocks.append(section((proposal.outcome.notice.text, *proposal.outcome.notice.lines)))
    blocks += _people(proposal)
    parts = [f"{status}: {title}.", proposal.outcome.notice.text if proposal.outcome else "", *lines]
    reason = f"Because: {proposal.reason}" if proposal.reason else ""
    return _message([*parts, reason], blocks)


_NO_CALL = (OutcomeCode.DISMISSED, OutcomeCode.EXPIRED, OutcomeCode.NOT_DONE, OutcomeCode.DENIED)


def _facts(proposal: Proposal, offer: Offer, operation: Operation) -> tuple[str, ...]:
    """What the call would do, or what has moved since; where nothing was called, neither."""
    preview = offer.preview
    lines = [job_line(preview.job)]
    if proposal.baseline is not None and proposal.progress is not None:
        lines.append(movement_line(proposal.baseline, proposal.progress))
    elif proposal.outcome is not None and proposal.outcome.code in _NO_CALL:
        return tuple(lines)
    else:
        lines += effect_lines(preview)
    strategy = strategy_line(preview, operation)
    return (*lines, strategy) if strategy else tuple(lines)


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


def ask_for_yes(proposal: Proposal, operation: Operation) -> Message:
    """The button message while it waits for a yes. A button holds the offer's id and nothing else."""
    assert proposal.offer is not None  # noqa: S101 (only an offer asks)
    preview, offer_id = proposal.offer.preview, proposal.offer.offer_id
    text = f"{escaped(_asks(preview, operation))} Confirm before {moment(proposal.offer.expires_at)}."
    verb = operation.verb.capitalize()
    label = f"{verb} ≈{preview.devices:,} tasks" if preview.devices else verb
    yes = button(label, action_id=ActionId.CONFIRM, value=offer_id, style="danger")
    no = button("Dismiss", action_id=ActionId.DISMISS, value=offer_id)
    return Message(text, (section((_asks(preview, operation),)), actions(yes, no)))


def _asks(preview: Preview, operation: Operation) -> str:
    named, job = touches_words(preview.touches), cut(preview.job.job_id, NAME_LENGTH)
    return f"{operation.verb.capitalize()} rollout {job}? This asks the cloud to cancel the tasks that are {named}."


def no_buttons(proposal: Proposal, operation: Operation) -> Message:
    """The button message when there is nothing (more) to click: text alone."""
    title = _title(proposal, operation)
    if proposal.state is State.OFFERED:
        return _message([f"{title}: the buttons follow."], [section((f"{title}: the buttons follow.",))])
    who = proposal.confirmed_by or proposal.dismissed_by
    by = f" by {mention(who)}" if who else ""
    said = "confirmed" if proposal.confirmed_by else _status(proposal)
    text = f"{escaped(title)}: {said}{by}."
    return Message(text, (context(mrkdwn(text)),))


def line(notice: Notice) -> Message:
    """A line in the thread."""
    return _message(_said(notice), _notice_blocks(notice))


def broadcast(notice: Notice, proposal: Proposal, operation: Operation) -> Message:
    """A line in the thread that the channel sees too, where it must say by itself what it is about."""
    title = _title(proposal, operation)
    return _message((f"{title}:", *_said(notice)), [context(plain(title)), *_notice_blocks(notice)])


def reply(post: Post) -> Message:
    """An answer for one person alone, with the numbers if it has any."""
    notice = post.notice or Notice("")
    blocks = _notice_blocks(notice)
    parts = list(_said(notice))
    if post.preview is not None and not post.preview.touches:
        lines = count_lines(post.preview.counts)
        blocks.insert(1, section(lines))
        parts += lines
    return _message(parts, blocks)


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

"""The words of cards and buttons: where a proposal stands, what it is called, and what a yes to it means.

Plain text, except `mention` and `moment`, which are markup made of ids and dates. Nothing here depends on a single
operation: what is said follows from its subject, its direction and its steps.
"""

from __future__ import annotations

import re
from datetime import datetime

from bot.model import OutcomeCode, Preview, StepKind
from bot.operations import Direction, Operation, Subject
from bot.proposals import Proposal, State
from bot.slack.blocks import cut, escaped
from bot.workflow.figures import NAMES_SHOWN, names, number, rates, touches_words
from bot.workflow.verdicts import still_moving

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


_NO_PLACE = {
    "channel_not_found": "it is gone, or I may not see it any more",
    "is_archived": "it is archived",
    "is_inactive": "it is archived",
    "not_in_channel": "I am not in it any more",
}


def why_no_place(code: str) -> str:
    """Slack's word for why a channel takes nothing, in ours."""
    return _NO_PLACE.get(code, f"Slack says {code}")


def mention(user_id: str) -> str:
    """A mention of a person we identified; anything else, somebody at a terminal say, is shown as text."""
    return f"<@{user_id}>" if _USER_ID.fullmatch(user_id) else escaped(cut(user_id, NAME_LENGTH))


def moment(at: datetime) -> str:
    """A time in the reader's own zone, with UTC for clients that cannot."""
    return f"<!date^{int(at.timestamp())}^{{time_secs}}|{at:%H:%M:%S} UTC>"


def status(proposal: Proposal) -> str:
    return _OUTCOME_WORDS[proposal.outcome.code] if proposal.outcome else _STATE_WORDS[proposal.state]


def title(proposal: Proposal, operation: Operation) -> str:
    """What it is called wherever it is shown."""
    name, instance = cut(proposal.target.name, NAME_LENGTH), cut(proposal.target.instance, NAME_LENGTH)
    return f"{operation.verb.capitalize()} {name} on {instance}{_to_rate(proposal, operation)}"


def _to_rate(proposal: Proposal, operation: Operation) -> str:
    if operation.direction is not Direction.TUNE or proposal.offer is None:
        return ""
    _, new = rates(proposal.offer.preview, operation, proposal.params)
    return f" to {new:,} per minute" if new is not None else ""


def question(proposal: Proposal, preview: Preview, operation: Operation) -> str:
    """What exactly a yes is to, in full sentences."""
    job = cut(proposal.target.name, NAME_LENGTH)
    if operation.direction is Direction.TUNE:
        old, new = rates(preview, operation, proposal.params)
        return f"Change the rate of rollout {job}? Devices told per minute: {number(old)} → {number(new)}."
    if operation.direction is Direction.RESTART:
        count = preview.devices or 0
        again = f"{count:,} device{_s(count)} will be flashed again"
        return f"Run {count:,} task{_s(count)} of rollout {job} again? {again}."
    if operation.subject is Subject.DEVICES:
        named = names(cut(device, NAME_LENGTH) for device in proposal.target.devices)
        return (
            f"Cancel every open task of {named}? By name the cloud spares none: devices in progress are asked to stop "
            "too, which may leave them half flashed."
        )
    return f"{_which(preview, operation, job)} This asks the cloud {_asked(proposal, preview, operation)}."


def _which(preview: Preview, operation: Operation, job: str) -> str:
    verb = operation.verb.split()[0].capitalize()
    if operation.subject is not Subject.FIRMWARE:
        return f"{verb} rollout {job}?"
    listed = [cut(part.job.job_id, NAME_LENGTH) for part in preview.parts]
    more = f" and {len(listed) - NAMES_SHOWN:,} more" if len(listed) > NAMES_SHOWN else ""
    return f"{verb} {_rollouts(preview)}: {', '.join(listed[:NAMES_SHOWN])}{more}?"


def _rollouts(preview: Preview) -> str:
    return f"{len(preview.parts):,} rollout{_s(len(preview.parts))}"


def _asked(proposal: Proposal, preview: Preview, operation: Operation) -> str:
    """The steps of a stop, in their order."""
    whose = "the tasks" if len(preview.parts) == 1 else "their tasks"
    tasks = f"to cancel {whose} that are {touches_words(preview.touches)}"
    strategies = sum(step.kind is StepKind.CANCEL_STRATEGY for step in operation.steps(preview, proposal.params))
    if not strategies:
        return tasks
    ended = "the strategy" if len(preview.parts) == 1 else f"{strategies:,} strateg{'ies' if strategies > 1 else 'y'}"
    return f"to end {ended}, so that no new devices are matched, and {tasks}"


def yes_label(proposal: Proposal, preview: Preview, operation: Operation) -> str:
    """The button of the yes: what it does, and to how much."""
    verb, devices = operation.verb.split()[0].capitalize(), preview.devices
    if operation.direction is Direction.TUNE:
        _, new = rates(preview, operation, proposal.params)
        return f"Set {number(new)} a minute"
    if operation.subject is Subject.FIRMWARE:
        return f"{verb} {_rollouts(preview)}"
    if not devices:
        return verb
    about = "" if operation.direction is Direction.RESTART else "≈"
    return f"{verb} {about}{devices:,} task{_s(devices)}"


def yes_style(operation: Operation) -> str | None:
    """Red for what stops devices, or flashes them again."""
    return None if operation.direction is Direction.TUNE else "danger"


def share_line(proposal: Proposal) -> str:
    """How many of the devices that were asked to stop no longer move, as last read."""
    called = proposal.called.parts if proposal.called is not None else ()
    parts = [part for part in called if part.job.job_id in proposal.progress]
    asked = [part.devices for part in parts]
    moving = [still_moving(part, proposal.progress[part.job.job_id]) for part in parts]
    known_asked, known_moving = _sum(asked), _sum(moving)
    if known_asked is None or known_moving is None:
        return "How many of those asked to stop still move: unknown (not every number could be read)"
    if not known_asked:
        return f"Of those asked to stop, {number(known_moving)} still move."
    share = 100 * max(0, known_asked - known_moving) // known_asked
    left = f"up to {known_moving:,} still do" if known_moving else "none still does"
    return f"{share} % of ≈{known_asked:,} asked to stop no longer move; {left}."


def _sum(numbers: list[int | None]) -> int | None:
    known = [each for each in numbers if each is not None]
    return sum(known) if len(known) == len(numbers) and numbers else None


def _s(count: int) -> str:
    return "" if count == 1 else "s"

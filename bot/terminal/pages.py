"""What a person at a terminal reads: values in, notices and facts for scripts out.

Plain text as everywhere; making it harmless is the screen's. The words are those of the card, so that nobody confirms
something else here than there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from bot.exchange import File, Post
from bot.model import Counts, Notice, Offer, Outcome, OutcomeCode, Part, Preview, Target, Task
from bot.operations import Operation
from bot.proposals import Proposal
from bot.slack.wording import question, share_line, status, title
from bot.workflow.figures import (
    PARTS_SHOWN,
    count_lines,
    failure_lines,
    job_line,
    moved_lines,
    preview_lines,
)

ID_LENGTH = 8
"""As much of an id as is typed: more characters where several begin so."""

REACHED = (
    OutcomeCode.STOPPED,
    OutcomeCode.DONE,
    OutcomeCode.NOTHING_TO_STOP,
    OutcomeCode.GOAL_REACHED_UNCONFIRMED,
)
"""The ends in which nothing is left to do: exit code 0."""


def offered(proposal: Proposal, offer: Offer, operation: Operation) -> Notice:
    """The card and the question of an offer, with what the policy requires."""
    read_at = [part.counts.read_at for part in offer.preview.parts]
    as_of = f"As of {min(read_at):%H:%M:%S} UTC. " if read_at else ""
    lines = [
        *preview_lines(offer.preview, operation, proposal.params),
        *offer.decision.reasons,
        f"Asked by {proposal.reply_to.user_id} at {proposal.created_at:%H:%M:%S} UTC",
        f"Because: {proposal.reason}" if proposal.reason else "",
        f"{as_of}Offer {offer.offer_id} waits until {offer.expires_at:%H:%M:%S} UTC.",
        question(proposal, offer.preview, operation),
    ]
    return Notice(title(proposal, operation), tuple(line for line in lines if line))


def where_it_shows(channel: str | None, instance: str) -> Notice:
    if channel is None:
        return Notice(f"{instance} has no channel in the policy: this terminal is the only place where it shows.")
    return Notice(f"Its card goes to {channel}, by `otabrake serve`, as soon as Slack takes it.")


def nothing_to_waive() -> Notice:
    return Notice(
        "--break-glass: nobody's approval is required here, so there is nothing to waive. It goes on as usual."
    )


def name_of_id(target: Target) -> tuple[str, str]:
    """What is typed to confirm: what it is called, and what it is."""
    if target.job:
        return "job id", target.job
    return ("firmware id", target.firmware) if target.firmware else ("product key", target.product)


def still_waiting(proposal: Proposal, why: str) -> Notice:
    """Nothing was confirmed here: how it can be, or can be taken back."""
    offer = proposal.offer
    if offer is None:
        return Notice(why)
    short = offer.offer_id[:ID_LENGTH]
    return Notice(
        f"{why} Nothing was sent; it waits for a yes until {offer.expires_at:%H:%M:%S} UTC.",
        (f"To confirm it: otabrake job approve {short}", f"To take it back: otabrake job dismiss {short}"),
    )


def goes_on_elsewhere(proposal_id: str) -> Notice:
    return Notice(
        "I no longer look, but it goes on: in `otabrake serve` if it runs, else at its next start.",
        ("A call that was sent is not repeated. How it ends is told in its thread.",),
        reference=proposal_id,
    )


def left_before_offer() -> Notice:
    return Notice(
        "Interrupted. If it was a change that you asked for, `otabrake serve` may still offer it; "
        "without a yes nothing is sent."
    )


def no_such_offer(beginning: str, *, is_any: bool) -> Notice:
    if is_any:
        return Notice(f"Several offers begin with {beginning}. Give more characters of the id.")
    return Notice(f"There is no offer whose id begins with {beginning}. Copy it from where it was shown.")


def newer_offer(proposal: Proposal) -> Notice:
    """What was named is out of date: another preview of the same proposal was made since."""
    short = proposal.offer.offer_id[:ID_LENGTH] if proposal.offer is not None else ""
    return Notice(f"That offer is out of date: there are newer numbers. See them with: otabrake job approve {short}")


def listed_here(file: File) -> Notice:
    return Notice(f"Which devices still move: otabrake job tasks {file.target.job} --on {file.target.instance}")


def nothing_listed(file: File) -> Notice:
    which = ", ".join(state.value.lower().replace("_", " ") for state in file.states) or "any"
    return Notice(f"No task of {file.target.job} is in a state that was asked for ({which}), as of now.")


def database_away(why: str) -> Notice:
    return Notice(f"Waiting for the database: {why}. What is under way goes on as soon as it answers.")


def cannot_tell() -> Notice:
    return Notice(
        "Another process of otabrake has taken this over, and what came of it cannot be told here. If it was a change, "
        "its card waits in the channel; without a yes nothing is sent."
    )


def progress(proposal: Proposal) -> Notice | None:
    """How the devices move, as last read; None before the first reading."""
    lines = moved_lines(proposal)
    return Notice(f"{status(proposal)}. {share_line(proposal)}", lines) if lines else None


def ended(proposal: Proposal, operation: Operation, *, is_said: bool) -> Notice:
    """The end in one line; how it came to it only where no line of the thread has said so."""
    outcome = proposal.outcome
    lines = () if is_said or outcome is None else (outcome.notice.text, *outcome.notice.lines)
    return Notice(f"{status(proposal)}: {title(proposal, operation)}", lines)


_SHELL_VERBS = {"cancel": "cancel", "halt": "halt", "status": "show", "jobs": "list", "tasks": "tasks"}
_TYPED = re.compile(r"/ota (cancel|halt|status|jobs|tasks)\b(?! (?:device|firmware)\b)")


def in_shell_words(notice: Notice) -> Notice:
    """Lines to type, as they are typed in a shell; what has no such line stays as it is in Slack."""
    return replace(notice, text=_in_shell(notice.text), lines=tuple(_in_shell(line) for line in notice.lines))


def _in_shell(text: str) -> str:
    typed = _TYPED.sub(lambda match: f"otabrake job {_SHELL_VERBS[match.group(1)]}", text)
    if typed == text or not text.startswith("/ota "):
        return typed
    head, because, reason = typed.partition(" because ")
    return re.sub(r" on (\S+)", r" --on \1", head) + (f" --because {reason}" if because else "")


def read_lines(post: Post) -> Notice:
    """The answer to a read, with the numbers of what it looked at; a change's own lines tell its numbers already."""
    notice, preview = post.notice or Notice(""), post.preview
    if preview is None or preview.touches or any(part.tasks for part in preview.parts):
        return notice
    lines = []
    for part in preview.parts[:PARTS_SHOWN]:
        if len(preview.parts) > 1:
            lines.append(f"{part.job.job_id} · {job_line(part.job)}")
        lines += [*count_lines(part.counts, is_brief=len(preview.parts) > 1), *failure_lines(part.counts)]
    more = tuple(line for line in lines if line not in notice.lines)
    return Notice(notice.text, (*notice.lines, *more), notice.command, notice.reference)


def offer_facts(proposal: Proposal, offer: Offer) -> dict[str, object]:
    return {
        "offer": offer.offer_id,
        "proposal": proposal.proposal_id,
        "operation": proposal.operation,
        "requester": proposal.requester,
        "reason": proposal.reason,
        "expires_at": offer.expires_at.isoformat(),
        "rules": list(offer.decision.rules),
        "preview": preview_facts(offer.preview),
    }


def preview_facts(preview: Preview) -> dict[str, object]:
    return {
        "instance": preview.target.instance,
        "touches": sorted(preview.touches),
        "devices": preview.devices,
        "left_out": preview.left_out,
        "rollouts": [_part_facts(part) for part in preview.parts],
    }


def _part_facts(part: Part) -> dict[str, object]:
    job = part.job
    return {
        "job": job.job_id,
        "state": job.state.value,
        "kind": job.kind.value,
        "firmware": job.firmware,
        "firmware_id": job.firmware_id,
        "product": job.product,
        "from_versions": list(job.src_versions),
        "to_version": job.dest_version,
        "devices": part.devices,
        **counts_facts(part.counts),
    }


def counts_facts(counts: Counts) -> dict[str, object]:
    by_state: Mapping[str, int | None] = {state.value: count for state, count in counts.by_state.items()}
    return {"counts": by_state, "failures": dict(counts.failures), "read_at": counts.read_at.isoformat()}


def outcome_facts(proposal_id: str, outcome: Outcome) -> dict[str, object]:
    return {
        "proposal": proposal_id,
        "outcome": outcome.code.value,
        "stopped": outcome.stopped,
        "finished_anyway": outcome.finished_anyway,
        "failed": outcome.failed,
        "still_moving": outcome.still_moving,
    }


def task_facts(task: Task) -> dict[str, object]:
    return {
        "device": task.device,
        "state": task.state.value,
        "progress": task.progress,
        "reason": task.detail,
        "task": task.task_id,
        "from_version": task.src_version,
        "to_version": task.dest_version,
    }

"""How a change ended, judged by what the devices did: the baseline and the last counts in, an `Outcome` out.

The numbers are differences to the baseline, the counts of the last look. Pure, and rather one device too many counted
as moving than one too few.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from bot.model import OPEN_STATES, Counts, JobKind, Notice, Outcome, OutcomeCode, Part, StepKind, TaskState, Touch
from bot.proposals import CallAnswer, Proposal
from bot.workflow.figures import names, number
from bot.workflow.stepping import CANCELLED_ALREADY, accepted_jobs

JOBS_SHOWN = 20
_RISING = (TaskState.CANCELED, TaskState.SUCCEEDED, TaskState.FAILED)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How it ended for one batch. `spared` were open and not asked to stop, `matched` came into a dynamic batch later,
    `has_strategy` says that a strategy still matches devices although it was to be cancelled."""

    part: Part
    code: OutcomeCode
    stopped: int | None = None
    finished: int | None = None
    failed: int | None = None
    moving: int | None = None
    spared: int = 0
    matched: int = 0
    has_strategy: bool = False
    why: str = ""


def still_moving(part: Part, counts: Counts | None) -> int | None:
    """How many devices that were asked to stop still move, or None if that is not known.

    A device that had been told may begin to report progress although its task was to be cancelled. So where devices in
    progress were not asked to stop, those beyond the ones that were in progress before count as moving; of these, all
    that finished since are taken off, and all cancelled ones that this call cannot have named.
    """
    named = part.touched_states
    left = counts.of(named) if counts is not None else None
    if left is None or TaskState.IN_PROGRESS in named:
        return left
    before, asked = part.counts.by_state.get(TaskState.IN_PROGRESS), part.counts.of(named)
    cancelled, *ended = (_rise(part.counts, counts, state) for state in _RISING)
    now = counts.by_state.get(TaskState.IN_PROGRESS) if counts is not None else None
    if before is None or now is None or asked is None or cancelled is None or None in ended:
        return None
    gone = sum(each or 0 for each in ended) + max(0, cancelled - asked)
    return left + max(0, now - max(0, before - gone))


def judge_stop(proposal: Proposal, *, seen: Collection[str], follow_seconds: float) -> Outcome:
    """How a stop ended; `seen` are the batches whose last counts are of now."""
    parts = proposal.called.parts if proposal.called is not None else ()
    left_out = proposal.called.left_out if proposal.called is not None else 0
    accepted = accepted_jobs(proposal)
    verdicts = [
        _judge(proposal, part, is_seen=part.job.job_id in seen)
        if part.job.job_id in accepted
        else _not_accepted(proposal, part, is_seen=part.job.job_id in seen)
        for part in parts
    ]
    if len(verdicts) == 1 and verdicts[0].code is OutcomeCode.UNKNOWN_OUTCOME and accepted:
        return Outcome(OutcomeCode.UNKNOWN_OUTCOME, _never_seen(follow_seconds))
    # Devices of a batch that refused were never asked, so they are no part of these sums.
    asked = [each for each in verdicts if each.code not in (OutcomeCode.REFUSED_BY_CLOUD, OutcomeCode.NOT_DONE)]
    sums = [_sum([getattr(each, name) for each in asked]) for name in ("stopped", "finished", "failed", "moving")]
    code = _together([each.code for each in verdicts])
    if left_out and code is OutcomeCode.STOPPED:
        code = OutcomeCode.PARTLY_STOPPED
    stopped, finished, failed, moving = sums if asked else [None] * 4
    return Outcome(code, _final(proposal, verdicts, asked, code), stopped, finished, failed, moving)


def _judge(proposal: Proposal, part: Part, *, is_seen: bool) -> Verdict:
    last = proposal.progress.get(part.job.job_id)
    rises = [_rise(part.counts, last, state) for state in _RISING]
    moving = still_moving(part, last)
    if not is_seen or last is None or moving is None or None in rises:
        return Verdict(part, OutcomeCode.UNKNOWN_OUTCOME, why="the cloud did not tell what its devices do")
    stopped, finished, failed = (rise or 0 for rise in rises)
    named = part.touched_states
    spared = sum(part.counts.by_state.get(state) or 0 for state in OPEN_STATES if state not in named)
    has_strategy = strategy_stands(proposal, part)
    if not moving and finished <= spared and not has_strategy:
        code = OutcomeCode.STOPPED
    else:
        code = OutcomeCode.PARTLY_STOPPED if stopped else OutcomeCode.NOT_STOPPED
    is_dynamic = part.job.kind is JobKind.DYNAMIC
    matched = (
        max(0, (last.total or 0) - (part.counts.total or 0)) if is_dynamic and part.counts.total is not None else 0
    )
    return Verdict(part, code, stopped, finished, failed, moving, spared, matched, has_strategy)


def strategy_stands(proposal: Proposal, part: Part) -> bool:
    """Whether the strategy of this batch was to be cancelled, and is not known to be."""
    for position, step in enumerate(proposal.steps):
        if step.kind is StepKind.CANCEL_STRATEGY and step.target.job == part.job.job_id:
            call = proposal.last_call_of(position)
            is_gone = call is not None and (
                call.answer is CallAnswer.ACCEPTED or (call.detail or "").casefold() in CANCELLED_ALREADY
            )
            return not is_gone
    return False


def _not_accepted(proposal: Proposal, part: Part, *, is_seen: bool) -> Verdict:
    """What came of the batch's last step, where none was accepted. Where its answer was lost, its devices tell."""
    calls = [call for call in proposal.calls if call.intent.step.target.job == part.job.job_id]
    answers = {call.answer for call in calls}
    why = (calls[-1].detail or "") if calls else "not sent"
    if CallAnswer.LOST in answers:
        seen = _judge(proposal, part, is_seen=is_seen)
        code = OutcomeCode.UNKNOWN_OUTCOME
        if seen.code is OutcomeCode.STOPPED:
            code = OutcomeCode.GOAL_REACHED_UNCONFIRMED
        return replace(seen, code=code, why="no answer came to its call")
    code = OutcomeCode.REFUSED_BY_CLOUD if CallAnswer.REFUSED in answers else OutcomeCode.NOT_DONE
    return Verdict(part, code, why=why)


def _together(codes: Sequence[OutcomeCode]) -> OutcomeCode:
    """One code for several batches: the same for all, or partly stopped if any device was reached."""
    kinds = set(codes)
    if len(kinds) == 1 and (only := codes[0]) is not OutcomeCode.GOAL_REACHED_UNCONFIRMED:
        return only
    if kinds & {OutcomeCode.STOPPED, OutcomeCode.PARTLY_STOPPED}:
        return OutcomeCode.PARTLY_STOPPED
    return OutcomeCode.NOT_STOPPED if OutcomeCode.NOT_STOPPED in kinds else OutcomeCode.UNKNOWN_OUTCOME


def _sum(numbers: Sequence[int | None]) -> int | None:
    """None if any of them is not known: a sum of some would be too small."""
    known = [each for each in numbers if each is not None]
    return sum(known) if len(known) == len(numbers) else None


def _said(numbers: Sequence[int | None]) -> str:
    """Their sum; where some are not known, the least that it can be."""
    known = [each for each in numbers if each is not None]
    if not known:
        return "unknown"
    return f"{sum(known):,}" if len(known) == len(numbers) else f"at least {sum(known):,}"


_NOTHING_ASKED = {
    OutcomeCode.REFUSED_BY_CLOUD: "The cloud accepted nothing of it, and refused what it was asked for.",
    OutcomeCode.NOT_DONE: "Not done: no call of it could be made.",
}
_WELL = (OutcomeCode.STOPPED, OutcomeCode.PARTLY_STOPPED, OutcomeCode.GOAL_REACHED_UNCONFIRMED)
_HEADS = {
    OutcomeCode.STOPPED: "S",
    OutcomeCode.PARTLY_STOPPED: "Partly stopped: s",
    OutcomeCode.NOT_STOPPED: "Not stopped: s",
    OutcomeCode.UNKNOWN_OUTCOME: "Not known for every rollout: s",
}


def _final(proposal: Proposal, verdicts: Sequence[Verdict], asked: Sequence[Verdict], code: OutcomeCode) -> Notice:
    """`asked` are the batches whose devices were asked to stop, or may have been."""
    if not asked:
        text = _NOTHING_ASKED.get(code, "Not done: part of it was refused, and nothing of it accepted.")
        return Notice(text, (*(_one_line(each) for each in verdicts), *_resume(proposal, is_needed=True)))
    moving = _said([each.moving for each in asked])
    text = (
        f"{_HEADS.get(code, 'Not stopped: s')}topped {_said([each.stopped for each in asked])}, finished anyway "
        f"{_said([each.finished for each in asked])}, failed {_said([each.failed for each in asked])}; of those asked "
        f"to stop{_or_matched(verdicts)}, {'none' if moving == '0' else moving} still moving."
    )
    lines = [line for each in verdicts for line in _verdict_lines(each, is_one_of_many=len(verdicts) > 1)]
    if len(verdicts) > JOBS_SHOWN:
        lines = [*lines[:JOBS_SHOWN], f"… and {len(verdicts) - JOBS_SHOWN} more rollouts"]
    left_out = proposal.called.left_out if proposal.called is not None else 0
    if left_out:
        lines.append(f"{left_out:,} more rollouts of it run and were left out.")
    is_needed = bool(left_out) or any(each.code not in _WELL for each in verdicts if len(verdicts) > 1)
    return Notice(text, (*lines, *_next_steps(proposal, verdicts), *_resume(proposal, is_needed=is_needed)))


def _resume(proposal: Proposal, *, is_needed: bool) -> list[str]:
    return [f"What is left can be asked for with /ota resume {proposal.proposal_id[:8]}"] if is_needed else []


def _or_matched(verdicts: Sequence[Verdict]) -> str:
    """Devices that were matched later cannot be told from those that were asked, so the sentence names both."""
    return " or matched since" if any(each.matched for each in verdicts) else ""


def _verdict_lines(verdict: Verdict, *, is_one_of_many: bool) -> list[str]:
    if is_one_of_many:
        return [_one_line(verdict)]
    lines = []
    if verdict.spared:
        ended = (verdict.finished or 0) + (verdict.failed or 0)
        among = f"; up to {min(verdict.spared, ended):,} of those that finished or failed are among them"
        lines.append(f"Besides, {verdict.spared:,} were not asked to stop{among if ended else ''}.")
    if verdict.matched:
        lines.append(
            f"The rollout matched {verdict.matched:,} new device{'s' if verdict.matched != 1 else ''} since the last "
            "look before the call; they are counted here too, and were not asked to stop if they came after it."
        )
    return lines


def _one_line(verdict: Verdict) -> str:
    job = verdict.part.job.job_id
    code = verdict.code.replace("_", " ")
    if verdict.stopped is None:
        return f"• {job}: {code} ({verdict.why})"
    told = [
        f"{number(verdict.stopped)} stopped",
        f"{number(verdict.finished)} finished anyway",
        f"{number(verdict.failed)} failed",
        f"{number(verdict.moving)} still moving",
    ]
    told += [f"{verdict.spared:,} were not asked (some of those that finished or failed)"] if verdict.spared else []
    told += [f"{verdict.matched:,} matched since"] if verdict.matched else []
    told += ["its strategy still matches devices"] if verdict.has_strategy else []
    told += [verdict.why] if verdict.why else []
    return f"• {job}, {code}: {', '.join(told)}"


def _next_steps(proposal: Proposal, verdicts: Sequence[Verdict]) -> list[str]:
    """What is useful now, as lines to copy."""
    lines = []
    for each in verdicts[:JOBS_SHOWN]:
        job, named = each.part.job, each.part.touches
        was_halted = any(
            step.kind is StepKind.CANCEL_STRATEGY and step.target.job == job.job_id for step in proposal.steps
        )
        if each.has_strategy or (job.kind is JobKind.DYNAMIC and not was_halted and not each.part.tasks):
            lines.append(f"It still matches new devices. To end that: /ota halt {job.job_id} because …")
        if each.moving and Touch.IN_PROGRESS not in named:
            lines.append(
                f"Some devices still move{_although(each)}. To ask those in progress as well, which may "
                f"leave them half flashed: /ota cancel {job.job_id} --in-progress because …"
            )
        elif each.moving:
            lines.append(f"Some devices still move{_although(each)}. Look again: /ota status {job.job_id}")
    if any(each.finished for each in verdicts):
        lines.append("Devices on the new version stay on it: ship them a higher version.")
    if not lines and len(verdicts) == 1 and verdicts[0].stopped and not verdicts[0].part.tasks:
        job_id = verdicts[0].part.job.job_id
        lines.append(f"To let the stopped devices go on later: /ota retry {job_id} --cancelled because …")
    return list(dict.fromkeys(lines))


def _although(verdict: Verdict) -> str:
    return "" if verdict.matched else " although they were asked to stop"


def _never_seen(follow_seconds: float) -> Notice:
    minutes = round(follow_seconds / 60)
    return Notice(
        f"The cloud accepted the call, but at the end of {minutes} min it did not tell what the devices do. "
        "Look with /ota status."
    )


def judge_rate(proposal: Proposal, *, now: int | None, is_seen: bool) -> Outcome:
    """How a change of rate ended; `now` is the rate that was read last."""
    settings = proposal.called.job.settings if proposal.called is not None else None
    was = settings.per_minute if settings is not None else None
    [wanted] = [step.settings.per_minute for step in proposal.steps if step.settings is not None]
    if not is_seen:
        text = f"The cloud accepted the new rate of {number(wanted)} devices per minute, but it could not be read back."
        return Outcome(OutcomeCode.UNKNOWN_OUTCOME, Notice(text, ("Look with /ota status.",)))
    if now == wanted:
        back = (f"To go back: /ota rate {proposal.target.job} {was}",) if was is not None else ()
        return Outcome(
            OutcomeCode.DONE, Notice(f"The rate was {number(was)} devices per minute, it is now {now:,}.", back)
        )
    text = f"The cloud accepted the new rate, but it still is {number(now)} devices per minute, not {number(wanted)}."
    return Outcome(OutcomeCode.NOT_DONE, Notice(text, ("Devices that were told already are not held back by it.",)))


def judge_retry(proposal: Proposal, *, running: int | None, asked: int, now: Counts | None) -> Outcome:
    """How running tasks again ended: `running` of the `asked` ones have left their old state."""
    resume = _resume_lines(proposal)
    if not asked:
        answers = {call.answer for call in proposal.calls}
        code = OutcomeCode.REFUSED_BY_CLOUD if CallAnswer.REFUSED in answers else OutcomeCode.NOT_DONE
        code = OutcomeCode.UNKNOWN_OUTCOME if CallAnswer.LOST in answers else code
        return Outcome(code, Notice("The cloud accepted nothing of it, as far as it told.", resume))
    if running is None or now is None:
        text = f"The cloud accepted to run {asked:,} tasks again, but it did not tell whether they do."
        return Outcome(
            OutcomeCode.UNKNOWN_OUTCOME, Notice(text, (f"Look with /ota status {proposal.target.job}.", *resume))
        )
    if not running:
        text = f"Not done: the cloud accepted {asked:,} tasks, but none of them runs again."
        return Outcome(OutcomeCode.NOT_DONE, Notice(text, resume))
    states = ", ".join(
        f"{count:,} {state.value.lower().replace('_', ' ')}" for state, count in now.by_state.items() if count
    )
    text = f"{running:,} of {asked:,} tasks that the cloud accepted run again. They are now: {states}."
    return Outcome(OutcomeCode.DONE, Notice(text, resume))


def _resume_lines(proposal: Proposal) -> tuple[str, ...]:
    """What each batch of tasks that was not accepted came to, and how to go on with what is left."""
    lines = []
    for position, step in enumerate(proposal.steps):
        call = proposal.last_call_of(position)
        if call is None or call.answer is not CallAnswer.ACCEPTED:
            said = "not sent" if call is None or call.answer is None else call.answer.value
            why = f": {call.detail}" if call is not None and call.detail else ""
            lines.append(f"Batch {position + 1} ({names(step.devices)}): {said}{why}")
    left_out = proposal.called.left_out if proposal.called is not None else 0
    more = len(lines) - JOBS_SHOWN
    lines = [*lines[:JOBS_SHOWN], f"… and {more} more batches"] if more > 0 else lines
    return (*lines, *_resume(proposal, is_needed=bool(lines or left_out)))


def _rise(before: Counts | None, after: Counts | None, state: TaskState) -> int | None:
    was = before.by_state.get(state) if before is not None else None
    now = after.by_state.get(state) if after is not None else None
    return None if was is None or now is None else max(0, now - was)

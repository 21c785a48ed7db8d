"""What a stop makes pointless: pending proposals that it covers, and those that would restart what it stops.

They end in the transaction that approves the stop, so that none of them can be carried out any more. Those whose calls
have begun run to their own last line. What it does not do: write.
"""

from __future__ import annotations

from collections.abc import Sequence

from bot.audit import EntryName
from bot.exchange import Post, PostKind
from bot.model import Notice, Outcome, OutcomeCode, Step, StepKind
from bot.ports import Transition
from bot.proposals import PENDING, Ended, Proposal
from bot.workflow import reports
from bot.workflow.means import Means, showing, steps_of, transition


async def fetch_touching(means: Means, stop: Proposal) -> tuple[Proposal, ...]:
    """The other unfinished proposals on the batches of a stop."""
    jobs = [part.job.job_id for part in stop.offer.preview.parts] if stop.offer is not None else []
    if not means.operations[stop.operation].is_stop or not jobs:
        return ()
    found = await means.store.fetch_on_jobs(stop.target.instance, jobs)
    return tuple(each for each in found if each.proposal_id != stop.proposal_id)


def superseded_by(means: Means, stop: Proposal, others: Sequence[Proposal], *, actor: str) -> tuple[Transition, ...]:
    """The ends of those that the stop leaves no sense to."""
    ended = [each for each in others if each.state in PENDING and _is_covered(means, stop, each)]
    return tuple(_end(means, each, reports.superseded_by_stop(stop), actor) for each in ended)


def _is_covered(means: Means, stop: Proposal, other: Proposal) -> bool:
    if not means.operations[other.operation].is_stop:
        named = {device for step in steps_of(means, stop) for device in step.devices}
        return not named or (bool(devices := _devices_of(other)) and devices <= named)
    return _effects(steps_of(means, other)) <= _effects(steps_of(means, stop))


def _devices_of(restart: Proposal) -> set[str]:
    """The devices whose tasks it would run again; a change of rate is about a whole batch, and names none."""
    parts = restart.offer.preview.parts if restart.offer is not None else ()
    return {task.device for part in parts for task in part.tasks}


def _effects(steps: Sequence[Step]) -> set[tuple[StepKind, str, str]]:
    """What steps do, each thing apart, so that it can be told whether others do all of it."""
    effects = set()
    for step in steps:
        things = [*step.devices, *step.tasks] or [touch.value for touch in step.touches] or [""]
        effects |= {(step.kind, step.target.job, thing) for thing in things}
    return effects


def _end(means: Means, proposal: Proposal, notice: Notice, actor: str) -> Transition:
    ended = Ended(Outcome(OutcomeCode.SUPERSEDED, notice))
    posts = (Post(PostKind.BROADCAST, proposal.proposal_id, notice), *showing(proposal.proposal_id))
    facts = {"outcome": OutcomeCode.SUPERSEDED.value}
    written = transition(means, proposal, ended, name=EntryName.ENDED, actor=actor, facts=facts, posts=posts)
    return Transition(written.before, written.after, written.entries, written.posts)

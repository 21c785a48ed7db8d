"""What must be true at the end of every story, whatever it tells: nothing was claimed that the fleet contradicts.

The bot's last word on each change is held against what the simulated devices were at that moment, and the calls that
took effect against those that the bot says it made. It knows no story.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime

from bot.model import OPEN_STATES, OutcomeCode, Part, StepKind, TaskState
from bot.operations import Repeat
from bot.ops import KNOWN
from bot.proposals import CallAnswer, Proposal, State
from bot.sandbox.inventory import Effect
from tests.scenarios.stage import BUTTONS, CHANNEL, Stage, actions

BY_HAND = "BY-HAND"
"""The request id of what somebody did without the bot."""

MOST_CALLS = 6
"""Of a step whose answers are lost: three attempts, and of each a second copy."""
_ACTIONS = {
    StepKind.CANCEL_TASKS: "CancelOTATaskByJob",
    StepKind.CANCEL_STRATEGY: "CancelOTAStrategyByJob",
    StepKind.CANCEL_DEVICES: "CancelOTATaskByDevice",
    StepKind.RETRY_TASKS: "ReupgradeOTATask",
    StepKind.SET_RATE: "UpdateOTAJob",
}
JUST_BEFORE_SECONDS = 0.001
_NOTHING_DONE = (
    OutcomeCode.DENIED,
    OutcomeCode.DISMISSED,
    OutcomeCode.EXPIRED,
    OutcomeCode.NOTHING_TO_STOP,
    OutcomeCode.NOT_DONE,
    OutcomeCode.REFUSED_BY_CLOUD,
    OutcomeCode.SUPERSEDED,
)
_ADMITS = ("accepted", "may have arrived", "not known")
"""Words with which a last line says that not nothing was done."""


async def untruths(stage: Stage) -> list[str]:
    """Everything that is wrong, in sentences; nothing if all is well."""
    found = [f"the log has a crash: {entry['event']} {entry['exc_info']!r}" for entry in crashes(stage)]
    proposals = await stage.proposals()
    for proposal in proposals:
        others = [each for each in proposals if each is not proposal]
        found += [f"{proposal.operation} {proposal.target.name}: {said}" for said in _of(stage, proposal, others)]
    return [*found, *_copies_of_what_must_not_be(stage, proposals)]


def crashes(stage: Stage) -> list[dict[str, object]]:
    return [dict(entry) for entry in stage.logs if isinstance(entry.get("exc_info"), BaseException)]


def effects(stage: Stage) -> list[Effect]:
    """What the bot's calls did to the fleet."""
    return [effect for effect in stage.fleet.history if effect.request_id != BY_HAND]


def _of(stage: Stage, proposal: Proposal, others: Sequence[Proposal]) -> Iterator[str]:
    if proposal.offer is not None:
        for part in proposal.offer.preview.parts:
            yield from _wrong_counts(stage, part)
    if proposal.state is State.OFFERED:
        return
    if proposal.state is not State.FINISHED or proposal.outcome is None:
        yield f"it was left {proposal.state}"
        return
    yield from _wrong_last_line(stage, proposal)
    yield from _too_many_effects(stage, proposal, others)
    code = proposal.outcome.code
    if code in (OutcomeCode.STOPPED, OutcomeCode.DONE, OutcomeCode.GOAL_REACHED_UNCONFIRMED):
        is_stop = KNOWN[proposal.operation].is_stop
        yield from _not_stopped(stage, proposal) if is_stop else _not_done(stage, proposal)
    if code in _NOTHING_DONE:
        yield from _done_after_all(stage, proposal, others)
    yield from _wrong_sums(stage, proposal)
    yield from _too_few_moving(stage, proposal, others)


def _wrong_counts(stage: Stage, part: Part) -> Iterator[str]:
    """Numbers that were shown and were never true. An unknown one is no lie."""
    if part.tasks:
        return
    for state, shown in part.counts.by_state.items():
        really = _counts(stage, part, state, part.counts.read_at)
        if shown is not None and not min(really) <= shown <= max(really):
            yield f"{shown} {state} were shown of {part.job.job_id}, there were {sorted(really)}"


def _counts(stage: Stage, part: Part, state: TaskState, read_at: datetime) -> set[int]:
    """How many of the batch, or of the devices that are named in it, were in the state while that was read."""
    rollout = stage.fleet.rollouts[part.job.job_id]
    moments = stage.wire.moments_around(read_at.timestamp())
    if not part.tasks:
        return {rollout.counts(at)[state.value] for at in moments}
    names = {task.device for task in part.tasks}
    return {sum(1 for _ in rollout.tasks(at, state=state, names=names)) for at in moments}


def _wrong_last_line(stage: Stage, proposal: Proposal) -> Iterator[str]:
    assert proposal.outcome is not None
    line = _flat(proposal.outcome.notice.text)
    in_channel = [message for message in stage.slack.workspace.messages(CHANNEL) if message.thread_ts is not None]
    # Two changes may end in the same words, but each has a thread of its own.
    threads = Counter(message.thread_ts for message in in_channel if line in _flat(message.text))
    if proposal.offer is None:
        private = _flat(stage.told(proposal.reply_to.user_id))
        if line not in private:
            yield f"nobody was told the end: {line}"
    elif set(threads.values()) != {1}:
        yield f"the last line stands {max(threads.values(), default=0)} times in a thread of the channel: {line}"
    if proposal.offer is not None:
        offer_id = proposal.offer.offer_id
        standing = [message for message in stage.everything() if set(actions(message)) & set(BUTTONS.values())]
        yield from ("its buttons still stand" for message in standing if offer_id in str(message.blocks))


def _flat(text: str) -> str:
    return " ".join(text.split())


def _not_stopped(stage: Stage, proposal: Proposal) -> Iterator[str]:
    """Devices that were asked to stop and moved when it was said that none did."""
    for part in proposal.called.parts if proposal.called is not None else ():
        counts = proposal.progress.get(part.job.job_id)
        at = counts.read_at if counts is not None else proposal.changed_at
        assert at is not None
        states = OPEN_STATES if part.tasks else part.touched_states
        left = {state.value: min(_counts(stage, part, state, at)) for state in states}
        if any(left.values()):
            yield f"it says that it stopped, but of {part.job.job_id} there were {left}"
        rollout = stage.fleet.rollouts[part.job.job_id]
        halted = {step.target.job for step in proposal.steps if step.kind is StepKind.CANCEL_STRATEGY}
        if part.job.job_id in halted and rollout.has_strategy(at.timestamp()):
            yield f"it says that it stopped, but {part.job.job_id} still matches devices"


def _not_done(stage: Stage, proposal: Proposal) -> Iterator[str]:
    for step in proposal.steps:
        if step.settings is not None and step.settings.per_minute is not None:
            rate = stage.fleet.rollouts[step.target.job].settings.per_minute
            if rate != step.settings.per_minute:
                yield f"it says done, but the rate is {rate}"
    run_again = {task for effect in effects(stage) for task in _tasks_of(effect)}
    accepted = {
        task for call in proposal.calls if call.answer is CallAnswer.ACCEPTED for task in call.intent.step.tasks
    }
    if accepted - run_again:
        yield f"it says done, but {len(accepted - run_again)} accepted tasks were never run again"


def _tasks_of(effect: Effect) -> list[str]:
    return [value for name, value in effect.params.items() if name.startswith("TaskId.")]


def _own(stage: Stage, proposal: Proposal, others: Sequence[Proposal]) -> list[Effect]:
    """The effects that are this change's: by request id, or by what was called after its yes."""
    foreign = {request_id for each in others for request_id in each.request_ids}
    actions = {_ACTIONS[call.intent.step.kind] for call in proposal.calls}
    begin = proposal.approved_at.timestamp() if proposal.approved_at is not None else float("inf")
    end = proposal.changed_at.timestamp() if proposal.changed_at is not None else float("inf")
    return [
        effect
        for effect in effects(stage)
        if effect.action in actions and effect.request_id not in foreign and begin <= effect.at <= end
    ]


def _done_after_all(stage: Stage, proposal: Proposal, others: Sequence[Proposal]) -> Iterator[str]:
    assert proposal.outcome is not None
    said = " ".join((proposal.outcome.notice.text, *proposal.outcome.notice.lines)).casefold()
    own = _own(stage, proposal, others)
    if own and not any(word in said for word in _ADMITS):
        yield f"it says {proposal.outcome.code} and admits nothing, but {[effect.action for effect in own]} took effect"


def _too_many_effects(stage: Stage, proposal: Proposal, others: Sequence[Proposal]) -> Iterator[str]:
    """More effects of a step than calls that may have arrived: one, and for each lost answer a copy and an attempt."""
    operation = KNOWN[proposal.operation]
    of_step: Counter[tuple[str, str]] = Counter()
    for effect in _own(stage, proposal, others):
        named = {name: value for name, value in effect.params.items() if name != "IotInstanceId"}
        of_step[effect.action, str(sorted(named.items()))] += 1
    lost = sum(call.answer is CallAnswer.LOST for call in proposal.calls)
    most = 1 if operation.repeat is Repeat.NEVER else min(MOST_CALLS, 1 + 2 * lost)
    for (action, params), times in of_step.items():
        if times > most:
            yield f"{action} {params} took effect {times} times, {most} at most"


def _copies_of_what_must_not_be(stage: Stage, proposals: Sequence[Proposal]) -> Iterator[str]:
    """What restarts devices is sent once: no second copy of a call, no second call for a task of the same change."""
    sent = Counter(arrival.nonce for arrival in stage.wire.arrivals if arrival.action == "ReupgradeOTATask")
    yield from (f"the retry {nonce} was sent {times} times" for nonce, times in sent.items() if times > 1)
    for proposal in proposals:
        named = Counter(
            task
            for call in proposal.calls
            if call.answer not in (CallAnswer.NOT_SENT, CallAnswer.THROTTLED)
            for task in call.intent.step.tasks
        )
        yield from (f"task {task} was asked to run again {times} times" for task, times in named.items() if times > 1)


def _wrong_sums(stage: Stage, proposal: Proposal) -> Iterator[str]:
    """Stopped, finished, failed: the rises since the baseline, as the devices really were at the last look."""
    outcome = proposal.outcome
    if outcome is None or outcome.stopped is None or proposal.called is None:
        return
    parts = [part for part in proposal.called.parts if part.job.job_id in proposal.progress]
    said = {
        TaskState.CANCELED: outcome.stopped,
        TaskState.SUCCEEDED: outcome.finished_anyway,
        TaskState.FAILED: outcome.failed,
    }
    for state, told in said.items():
        really = [_counts(stage, part, state, proposal.progress[part.job.job_id].read_at) for part in parts]
        before = [part.counts.by_state[state] or 0 for part in parts]
        least = sum(max(0, min(each) - was) for each, was in zip(really, before, strict=True))
        most = sum(max(0, max(each) - was) for each, was in zip(really, before, strict=True))
        if told is not None and not least <= told <= most:
            yield f"it says that {told} became {state}, but {least} to {most} did"


def _too_few_moving(stage: Stage, proposal: Proposal, others: Sequence[Proposal]) -> Iterator[str]:
    """Devices that were asked to stop and still moved at the last look, beyond those that were said to."""
    outcome = proposal.outcome
    if outcome is None or outcome.still_moving is None or proposal.called is None:
        return
    moving = 0
    for effect in _own(stage, proposal, others):
        part = next((part for part in proposal.called.parts if part.job.job_id == effect.job_id), None)
        if part is not None and effect.action == _ACTIONS[StepKind.CANCEL_TASKS] and effect.job_id in proposal.progress:
            asked = _names_in(stage, effect.job_id, part.touched_states, effect.at - JUST_BEFORE_SECONDS)
            seen_at = proposal.progress[effect.job_id].read_at.timestamp()
            moving += len(asked & _names_in(stage, effect.job_id, OPEN_STATES, seen_at))
    if moving > outcome.still_moving:
        yield f"it says that {outcome.still_moving} of those asked still moved, but {moving} did"


def _names_in(stage: Stage, job_id: str, states: Sequence[TaskState], at: float) -> set[str]:
    rollout = stage.fleet.rollouts[job_id]
    return {task.device_name for state in states for task in rollout.tasks(at, state=state)}

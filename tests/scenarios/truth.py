"""What must be true at the end of every story, whatever it tells: nothing was claimed that the fleet contradicts.

The bot's last word on each change is held against what the simulated devices were at that moment, and the calls that
took effect against those that the bot says it made. It knows no story.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from bot.model import OPEN_STATES, Counts, OutcomeCode, Part, StepKind, TaskState
from bot.operations import Repeat
from bot.ops import KNOWN
from bot.proposals import CallAnswer, Proposal, State
from bot.sandbox.inventory import Effect
from tests.scenarios.stage import CHANNEL, Stage, _actions

BY_HAND = "BY-HAND"
"""The request id of what somebody did without the bot."""

MOST_ATTEMPTS = 3
_ACTIONS = {
    StepKind.CANCEL_TASKS: "CancelOTATaskByJob",
    StepKind.CANCEL_STRATEGY: "CancelOTAStrategyByJob",
    StepKind.CANCEL_DEVICES: "CancelOTATaskByDevice",
    StepKind.RETRY_TASKS: "ReupgradeOTATask",
    StepKind.SET_RATE: "UpdateOTAJob",
}
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
    if code in (OutcomeCode.STOPPED, OutcomeCode.GOAL_REACHED_UNCONFIRMED):
        yield from _not_stopped(stage, proposal)
    if code is OutcomeCode.DONE:
        yield from _not_done(stage, proposal)
    if code in _NOTHING_DONE:
        yield from _done_after_all(stage, proposal, others)
    yield from _wrong_sums(stage, proposal)


def _wrong_counts(stage: Stage, part: Part) -> Iterator[str]:
    """Numbers that were shown and were never true. An unknown one is no lie."""
    if part.tasks:
        return
    for state, shown in part.counts.by_state.items():
        is_now = _count(stage, part, state, part.counts)
        if shown not in (None, is_now):
            yield f"{shown} {state} were shown of {part.job.job_id}, there were {is_now}"


def _count(stage: Stage, part: Part, state: TaskState, counts: Counts) -> int:
    """How many of the batch, or of the devices that are named in it, were in the state when `counts` were read."""
    at, rollout = counts.read_at.timestamp(), stage.fleet.rollouts[part.job.job_id]
    if not part.tasks:
        return rollout.counts(at)[state.value]
    names = {task.device for task in part.tasks}
    return sum(1 for _ in rollout.tasks(at, state=state, names=names))


def _wrong_last_line(stage: Stage, proposal: Proposal) -> Iterator[str]:
    assert proposal.outcome is not None
    line = _flat(proposal.outcome.notice.text)
    in_channel = [message for message in stage.slack.workspace.messages(CHANNEL) if message.thread_ts is not None]
    said = sum(line in _flat(message.text) for message in in_channel)
    if proposal.offer is None:
        private = _flat(stage.told(proposal.reply_to.user_id))
        if line not in private:
            yield f"nobody was told the end: {line}"
    elif said != 1:
        yield f"the last line stands {said} times in the channel: {line}"
    if proposal.offer is not None:
        for message in stage.everything():
            if message.thread_ts is not None and any(each.startswith("proposal.") for each in _actions(message)):
                if proposal.offer.offer_id in str(message.blocks):
                    yield "its buttons still stand"


def _flat(text: str) -> str:
    return " ".join(text.split())


def _not_stopped(stage: Stage, proposal: Proposal) -> Iterator[str]:
    """Devices that were asked to stop and moved when it was said that none did."""
    for part in proposal.called.parts if proposal.called is not None else ():
        counts = proposal.progress.get(part.job.job_id)
        at = counts.read_at if counts is not None else proposal.changed_at
        assert at is not None
        states = OPEN_STATES if part.tasks else part.touched_states
        left = {state.value: _count(stage, part, state, Counts({}, at)) for state in states}
        if any(left.values()):
            yield f"it says {proposal.outcome and proposal.outcome.code}, but of {part.job.job_id} there were {left}"
        rollout = stage.fleet.rollouts[part.job.job_id]
        is_halt = any(step.kind is StepKind.CANCEL_STRATEGY and step.target.job == part.job.job_id for step in proposal.steps)
        if is_halt and rollout.has_strategy(at.timestamp()):
            yield f"it says {proposal.outcome and proposal.outcome.code}, but {part.job.job_id} still matches devices"


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
    """More effects of a step than attempts that may have arrived: one, and one more for each lost answer."""
    operation = KNOWN[proposal.operation]
    of_step: Counter[tuple[str, str]] = Counter()
    for effect in _own(stage, proposal, others):
        named = {name: value for name, value in effect.params.items() if name != "IotInstanceId"}
        of_step[effect.action, str(sorted(named.items()))] += 1
    lost = sum(call.answer is CallAnswer.LOST for call in proposal.calls)
    most = 1 if operation.repeat is Repeat.NEVER else min(MOST_ATTEMPTS, 1 + lost)
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
        rises = [
            max(0, _count(stage, part, state, proposal.progress[part.job.job_id]) - (part.counts.by_state[state] or 0))
            for part in parts
        ]
        if told is not None and told > sum(rises):
            yield f"it says that {told} became {state}, but {sum(rises)} did"

"""What the road says from the last look to the cloud's answer: what was sent, and what the cloud said.

As in `sentences`: one function a sentence, plain text, and nothing claimed that is not known. What the devices did is
told in `verdicts`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from bot.model import Counts, Decision, Notice, Preview, Step, StepKind
from bot.operations import Direction
from bot.proposals import CallAnswer, Proposal
from bot.workflow.figures import count_lines, names, state_words
from bot.workflow.sentences import by_hand, lower_first


def changed(before: Preview, after: Preview) -> Notice:
    lines = []
    seen = {part.job.job_id: part.job for part in before.parts}
    for now in (part.job for part in after.parts):
        was = seen.get(now.job_id)
        which = "The rollout" if len(after.parts) == 1 else f"Rollout {now.job_id}"
        if was is None:
            lines.append(f"{which} was not running then.")
            continue
        if was.state is not now.state:
            lines.append(f"{which} was {state_words(was.state)}, it is now {state_words(now.state)}.")
        if was.kind is not now.kind:
            lines.append(f"{which} was a {was.kind} rollout, it is now a {now.kind} one.")
        if was.firmware_id != now.firmware_id:
            lines.append(f"{which} now carries another firmware.")
        if was.settings != now.settings and was.settings and now.settings:
            lines.append(f"{which} has other settings now.")
    return Notice("Nothing was sent yet: the rollout changed after the numbers that were confirmed.", tuple(lines))


def denied_now(decision: Decision) -> Notice:
    return Notice("Nothing was sent: at the last look the policy no longer allows it.", decision.reasons)


def superseded(first: Proposal) -> Notice:
    return Notice(
        f"Not sent (any more): another change of the same rollout was asked for at {first.created_at:%H:%M:%S} UTC and "
        "goes first (a stop always does). Ask again when it is over."
    )


def superseded_by_stop(stop: Proposal) -> Notice:
    return Notice(
        f"Not sent: {stop.operation} of the same rollout was confirmed at {stop.approved_at:%H:%M:%S} UTC, and goes "
        f"first. What it does is told in its own thread ({stop.proposal_id[:8]})."
    )


def never_sent(explained: Notice | None, done: tuple[StepKind, ...] = (), command: str | None = None) -> Notice:
    why = explained.text if explained else "The confirmation was too long ago when the call could be made."
    said = "Nothing was sent to the cloud." if not done else f"{_done(done)} What was left was not sent."
    lines = explained.lines if explained else ("Ask again with /ota.",)
    reference = explained.reference if explained else None
    return Notice(f"{said} {why}", (*lines, *by_hand(command)), command, reference)


def not_read_again(explained: Notice, command: str | None) -> Notice:
    """The last look failed, so nothing was sent; what is said of a lost answer is about the read."""
    return Notice(
        "Nothing was sent to the cloud: the rollout could not be read once more before the call.",
        (f"The read: {lower_first(explained.text)}", *explained.lines, *by_hand(command)),
        command,
        explained.reference,
    )


def not_every_number(read_at: datetime) -> Notice:
    return Notice(
        f"Not every number could be read again: those of {read_at:%H:%M:%S} UTC stand in for them, also in what "
        "is said later of stopped and finished devices."
    )


STEP_WORDS = {
    StepKind.CANCEL_STRATEGY: "cancelling the strategy",
    StepKind.CANCEL_TASKS: "cancelling the tasks",
    StepKind.CANCEL_DEVICES: "cancelling the devices by name",
    StepKind.RETRY_TASKS: "running the tasks again",
    StepKind.SET_RATE: "setting the rate",
}


def step_words(step: Step) -> str:
    """A step with what it is about, where a change has several."""
    of = names(step.devices) if step.devices else step.target.job
    return f"{STEP_WORDS[step.kind]} ({of})"


def _done(done: Iterable[StepKind]) -> str:
    return f"Accepted before that: {', '.join(STEP_WORDS[step] for step in done)}."


def refused(
    step: StepKind,
    explained: Notice,
    done: tuple[StepKind, ...],
    command: str | None,
    *,
    next_step: str | None = None,
) -> Notice:
    lines = (*explained.lines, _done(done)) if done else explained.lines
    if next_step:
        lines = (*lines, next_step)
    return Notice(
        f"The cloud refused {STEP_WORDS[step]}: {lower_first(explained.text)}",
        (*lines, *by_hand(command)),
        command,
        explained.reference,
    )


def after_refusal(step: Step, code: str) -> str | None:
    """The next useful step where the cloud takes no cancel of a batch that is cancelled already."""
    if step.kind is not StepKind.CANCEL_TASKS or not code.casefold().endswith(("jobcanceled", "jobhascanceled")):
        return None
    return (
        "What is left of it can be cancelled device by device, which does not spare devices in progress: "
        f"/ota halt {step.target.job} --queued --notified --unconfirmed --in-progress because …"
    )


_WATCHING = {
    Direction.STOP: "That does not mean that devices stopped: I am watching them.",
    Direction.TUNE: "I am reading it back.",
    Direction.RESTART: "That does not mean that devices run: I am looking whether they do.",
}


def accepted(
    step: Step,
    direction: Direction,
    *,
    is_last: bool,
    request_id: str | None,
    detail: str | None,
    at: datetime,
    of: int = 1,
) -> Notice:
    time = at.strftime("%H:%M:%S UTC")
    what = step_words(step) if of > 1 else STEP_WORDS[step.kind]
    said = f"The cloud accepted {what} at {time}" + (f", the last of {of} calls." if is_last and of > 1 else ".")
    follows = _WATCHING[direction] if is_last else "The next step follows."
    return Notice(f"{said if detail is None else detail} {follows}", reference=request_id)


_CAME_TO = {
    CallAnswer.REFUSED: "The cloud refused {step}",
    CallAnswer.THROTTLED: "The cloud took no call for {step} in time",
    CallAnswer.NOT_SENT: "Not sent: {step}",
    CallAnswer.LOST: "Not known whether it worked: {step}",
    CallAnswer.ACCEPTED: "Accepted: {step}",
}


def given_up(step: Step, answer: CallAnswer, explained: Notice, code: str, *, instead: int, is_last: bool) -> Notice:
    """One step of several came to nothing that can be relied on."""
    said = _CAME_TO[answer].format(step=step_words(step))
    if instead:
        then = f"I cancel its devices by name instead, in {instead} call{'s' if instead > 1 else ''}."
    else:
        then = "I watch what was accepted." if is_last else "The next step follows."
    follow_up = after_refusal(step, code) if not instead else None
    lines = (*explained.lines, follow_up) if follow_up else explained.lines
    return Notice(f"{said}: {lower_first(explained.text)} {then}", lines, explained.command, explained.reference)


def arrived_unanswered() -> str:
    return "The cloud's answer was lost, but it has the call: it refused a second copy of it."


def step_reached_unanswered(step: StepKind) -> str:
    return f"No answer came to {STEP_WORDS[step]}, but its goal is reached; whether that was this call is not known."


def lost(step: StepKind, why: str, request_id: str | None = None) -> Notice:
    return Notice(
        f"The answer to {STEP_WORDS[step]} was lost ({why}). Whether it arrived is not known yet: I am finding out.",
        reference=request_id,
    )


def goal_reached_unconfirmed(step: StepKind, counts: Counts) -> Notice:
    goal = {
        StepKind.SET_RATE: "the rate is set",
        StepKind.RETRY_TASKS: "the tasks run again",
    }.get(step, "nothing that it names is left")
    return Notice(
        f"No answer came to the call, but the goal is reached: {goal}. Whether that was this call is not known.",
        count_lines(counts) if counts.by_state else (),
    )


def strategy_unconfirmed(jobs: Iterable[str], counts: Counts) -> Notice:
    """The tasks are over, but the strategy was not confirmed as cancelled: new devices may be matched at any time."""
    return Notice(
        "Unknown: nothing that the call names is left now, but it is not known that the strategy was cancelled. It may "
        "match new devices again.",
        (*(f"Make sure: /ota halt {job} because …" for job in jobs), *count_lines(counts)),
    )


def unknown_outcome(why: str, command: str | None, reference: str | None = None) -> Notice:
    return Notice(
        f"Unknown: the call may or may not have arrived ({why}). Look with /ota status before you ask for it again.",
        by_hand(command),
        command,
        reference,
    )


def broken(reference: str, *, was_called: bool = False, command: str | None = None) -> Notice:
    said = (
        "A call was made, and what it did is not known: look with /ota status."
        if was_called
        else "Nothing was sent for this; ask again."
    )
    return Notice(
        f"Something broke inside otabrake. {said}",
        ("Show the reference to whoever runs it.", *by_hand(command)),
        command,
        reference,
    )


def cannot_stand(why: str) -> Notice:
    return Notice(
        f"Not done: I cannot post the card in this channel ({why}), so nobody could confirm it. Nothing was sent.",
        ("Invite me with /invite @otabrake and ask again, or ask in another channel.",),
    )


def stands_elsewhere(instance: str | None) -> Notice:
    """Without an instance, in a direct message."""
    there = f"in the channel of {instance}" if instance is not None else "in our direct messages"
    return Notice(
        f"I cannot post here, so the card stands {there}: look there.",
        ("To have it here, invite me with /invite @otabrake.",),
    )


def goes_on_elsewhere(instance: str | None, why: str) -> Notice:
    """Told to the asker of a card whose place is lost; without an instance, it goes on in a direct message."""
    there = f"in the channel of {instance}" if instance is not None else "in our direct messages"
    return Notice(f"The channel of your card takes nothing from me ({why}). It goes on at a new card {there}.")


def began_elsewhere(why: str) -> str:
    """Said where a card goes on, of the place that it had."""
    return f"This began in another channel, which takes nothing from me any more: {why}."


def card_is_gone() -> str:
    """Said at a new card beside the place of the first one."""
    return "The first card of this was deleted or locked. That stopped nothing: it goes on here."

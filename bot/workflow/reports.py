"""What the road says from the last look on: what was sent, what the cloud said, what the devices did.

As in `sentences`: one function a sentence, plain text, and nothing claimed that is not known.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from bot.model import (
    Counts,
    Decision,
    JobState,
    Notice,
    OutcomeCode,
    Preview,
    StepKind,
)
from bot.workflow.figures import count_lines
from bot.workflow.sentences import by_hand, lower_first


def changed(before: Preview, after: Preview) -> Notice:
    lines = []
    if before.job.state is not after.job.state:
        lines.append(f"The rollout was {_said(before.job.state)}, it is now {_said(after.job.state)}.")
    if before.job.kind is not after.job.kind:
        lines.append(f"It was a {before.job.kind} rollout, it is now a {after.job.kind} one.")
    if before.job.firmware_id != after.job.firmware_id:
        lines.append("It now carries another firmware.")
    return Notice("Nothing was sent yet: the rollout changed after the numbers that were confirmed.", tuple(lines))


def _said(state: JobState) -> str:
    return state.replace("_", " ").lower()


def denied_now(decision: Decision) -> Notice:
    return Notice("Nothing was sent: at the last look the policy no longer allows it.", decision.reasons)


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


def not_every_number(before: Counts) -> Notice:
    return Notice(
        f"Not every number could be read again: those of {before.read_at:%H:%M:%S} UTC stand in for them, also in what "
        "is said later of stopped and finished devices."
    )


_STEP_WORDS = {
    StepKind.CANCEL_STRATEGY: "cancelling the strategy",
    StepKind.CANCEL_TASKS: "cancelling the tasks",
}


def _done(done: Iterable[StepKind]) -> str:
    return f"Accepted before that: {', '.join(_STEP_WORDS[step] for step in done)}."


def refused(step: StepKind, explained: Notice, done: tuple[StepKind, ...], command: str | None) -> Notice:
    lines = (*explained.lines, _done(done)) if done else explained.lines
    return Notice(
        f"The cloud refused {_STEP_WORDS[step]}: {lower_first(explained.text)}",
        (*lines, *by_hand(command)),
        command,
        explained.reference,
    )


def accepted(step: StepKind, *, is_last: bool, request_id: str | None, detail: str | None, at: datetime) -> Notice:
    time = at.strftime("%H:%M:%S UTC")
    said = f"The cloud accepted {_STEP_WORDS[step]} at {time}." if detail is None else detail
    watching = "That does not mean that devices stopped: I am watching them." if is_last else "The next step follows."
    return Notice(f"{said} {watching}", reference=request_id)


def arrived_unanswered() -> str:
    return "The cloud's answer was lost, but it has the call: it refused a second copy of it."


def step_reached_unanswered(step: StepKind) -> str:
    return f"No answer came to {_STEP_WORDS[step]}, but its goal is reached; whether that was this call is not known."


def lost(step: StepKind, why: str) -> Notice:
    return Notice(
        f"The answer to {_STEP_WORDS[step]} was lost ({why}). Whether it arrived is not known yet: I am finding out."
    )


def goal_reached_unconfirmed(counts: Counts) -> Notice:
    return Notice(
        "No answer came to the call, but the goal is reached: nothing that it names is left. "
        "Whether that was this call is not known.",
        count_lines(counts),
    )


def unknown_outcome(why: str, command: str | None) -> Notice:
    return Notice(
        f"Unknown: the call may or may not have arrived ({why}). Look with /ota status, and stop it again if needed.",
        by_hand(command),
        command,
    )


def final(code: OutcomeCode, *, stopped: int, finished: int, failed: int, moving: int, spared: int) -> Notice:
    """What the devices did since the call. `spared`: those that were open before and were not asked to stop."""
    heads = {
        OutcomeCode.STOPPED: "S",
        OutcomeCode.PARTLY_STOPPED: "Partly stopped: s",
        OutcomeCode.NOT_STOPPED: "Not stopped: s",
    }
    lines = []
    if spared:
        ended = finished + failed
        among = f"; up to {min(spared, ended):,} of those that finished or failed are among them" if ended else ""
        lines.append(f"Besides, {spared:,} were not asked to stop{among}.")
    if moving:
        lines.append("Some devices still move although they were asked to stop. Look again with /ota status.")
    if finished:
        lines.append("Devices on the new version stay on it: ship them a higher version.")
    counts = f"topped {stopped:,}, finished anyway {finished:,}, failed {failed:,}"
    left = f"{moving:,}" if moving else "none"
    return Notice(f"{heads[code]}{counts}; of those asked to stop, {left} still moving.", tuple(lines))


def never_seen(follow_seconds: float) -> Notice:
    minutes = round(follow_seconds / 60)
    return Notice(
        f"The cloud accepted the call, but at the end of {minutes} min it did not tell what the devices do. "
        "Look with /ota status."
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


def stands_elsewhere(instance: str) -> Notice:
    return Notice(
        f"I cannot post here, so the card stands in the channel of {instance}: confirm it there.",
        ("To have it here, invite me with /invite @otabrake.",),
    )

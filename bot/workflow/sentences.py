"""What the road says to people: one function a sentence, values in, a `Notice` out.

Plain text only; markup, mentions and buttons are the edge's. Numbers that are not known are called unknown.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from datetime import datetime

from bot.model import (
    Counts,
    Decision,
    JobKind,
    JobState,
    Notice,
    OutcomeCode,
    Preview,
    Requirements,
    StepKind,
)
from bot.operations import Kind, Operation
from bot.proposals import Proposal
from bot.workflow.figures import count_lines, effect_lines, job_line

OVER = (JobState.COMPLETED, JobState.CANCELED)


def strategy_line(preview: Preview, operation: Operation) -> str | None:
    """What is said of a dynamic rollout's strategy: that it ends first, or that it goes on."""
    steps = {step.kind for step in operation.steps(preview)}
    if StepKind.CANCEL_STRATEGY in steps:
        return "No new devices will be matched: the strategy is cancelled first."
    if preview.job.kind is JobKind.DYNAMIC and StepKind.CANCEL_STRATEGY not in steps:
        return f"It keeps matching new devices until it is halted, as a second step: /ota halt {preview.job.job_id}"
    return None


def shown(preview: Preview) -> Notice:
    job = preview.job
    return Notice(f"Rollout {job.job_id} is {job.state.replace('_', ' ').lower()}.", (job_line(job),))


def dry_run(preview: Preview, operation: Operation, decision: Decision) -> Notice:
    verdict = "the policy allows it" if decision.is_allowed else "the policy denies it"
    lines = [
        job_line(preview.job),
        *effect_lines(preview),
        *decision.reasons,
        *requirement_lines(decision.requirements),
    ]
    second = strategy_line(preview, operation)
    return Notice(
        f"Dry run of {operation.verb} {preview.job.job_id}: {verdict}; nothing was sent.",
        (*lines, second) if second else tuple(lines),
    )


def requirement_lines(requirements: Requirements) -> tuple[str, ...]:
    return ("A reason is required: end the line with because …",) if requirements.reason else ()


def denied(operation: str, decision: Decision) -> Notice:
    return Notice(
        f"Not done, and nothing was sent: the policy does not allow {operation} here for you.", decision.reasons
    )


def no_policy(command: str | None) -> Notice:
    return Notice(
        "Not done: there is no valid policy, so nothing is allowed. Nothing was sent.",
        ("Whoever runs otabrake can see what is wrong with: otabrake policy check", *_by_hand(command)),
        command,
    )


def not_let_in(why: str) -> Notice:
    return Notice(f"Not done: {why} Nothing was sent.")


def people_unavailable(command: str | None) -> Notice:
    return Notice(
        "Not done: Slack did not tell me who you are, and without that nobody is let in. Nothing was sent.",
        ("Try again in a moment.", *_by_hand(command)),
        command,
    )


def _by_hand(command: str | None) -> tuple[str, ...]:
    return ("If it cannot wait, somebody with a key can run:",) if command else ()


def unknown_instance(name: str, known: Iterable[str]) -> Notice:
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"Did you mean {near[0]}?" if near else f"Known instances: {', '.join(names) or 'none'}."
    return Notice(f"Not done: there is no instance called {name}. {hint}")


def which_instance(job: str, verb: str, names: Iterable[str]) -> Notice:
    names = sorted(names)
    text = f"Not done: {job} is on {names[0]}. Say so:" if len(names) == 1 else "Not done: which instance do you mean?"
    return Notice(text, tuple(f"/ota {verb} {job} on {name}" for name in names))


def no_such_job(job: str, names: Iterable[str]) -> Notice:
    return Notice(f"Not done: there is no job {job} on {' or '.join(names)}. Copy its id again from the console.")


def no_channel(instance: str) -> Notice:
    return Notice(
        f"Not done: a confirmation card needs a channel, and {instance} has none in the policy. "
        "Type the same line in a channel."
    )


def already_waiting(pending: Proposal) -> Notice:
    return Notice(
        f"The same stop is already waiting for a yes, asked for at {pending.created_at:%H:%M:%S} UTC: confirm it on "
        "its card if the policy allows it for you. Nothing new was made.",
        (f"Its reason: {pending.reason}",) if pending.reason else (),
    )


def needs_reason(operation: Operation, proposal: Proposal, decision: Decision) -> Notice:
    flags = [f"--{param.flag}" for param in operation.params if param.name in proposal.params]
    line = " ".join(["/ota", operation.verb, proposal.target.job, "on", proposal.target.instance, *flags, "because …"])
    return Notice("Not done: this needs a reason. Say it again with one:", (line, *decision.reasons))


def nothing_to_stop(preview: Preview) -> Notice:
    job = preview.job
    if job.state in OVER:
        how = "cancelled" if job.state is JobState.CANCELED else "completed"
        text = f"Nothing to stop: the rollout is already {how}. Nothing was sent."
    else:
        text = "Nothing to stop: no device is in a state that this call names. Nothing was sent."
    second = (
        ("This dynamic rollout still matches new devices. To end that: /ota halt " + job.job_id,)
        if job.kind is JobKind.DYNAMIC and job.state not in OVER
        else ()
    )
    return Notice(text, (job_line(job), *second, *count_lines(preview.counts, is_brief=True)))


def not_read(explained: Notice, command: str | None) -> Notice:
    """The cloud could not be asked about the job: nothing can be offered."""
    return Notice(
        f"Not done: {_lower_first(explained.text)} Nothing was changed.",
        (*explained.lines, *_by_hand(command)),
        command,
        explained.reference,
    )


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


# At a click.


def unknown_card() -> Notice:
    return Notice("That card is not known here. Nothing was done; ask again with /ota.")


def out_of_date() -> Notice:
    return Notice("That offer is out of date: newer numbers stand in the thread. Look at them and confirm there.")


def too_late() -> Notice:
    return Notice("Your click arrived too late to count. Nothing was done by it; click again.")


def expired() -> Notice:
    return Notice("This offer has expired. Nothing was sent. Ask again with /ota.")


def no_longer_waiting(proposal: Proposal) -> Notice:
    if proposal.outcome is not None:
        return Notice(f"It is over: {_lower_first(proposal.outcome.notice.text)}")
    return Notice("It is already confirmed and on its way; the thread shows how it goes.")


def confirmation_needs_reason() -> Notice:
    return Notice(
        "Your yes does not count: the policy now requires a reason, and this was asked without one. "
        "Ask again with … because …"
    )


def click_denied(decision: Decision) -> Notice:
    return Notice("Your click does not count: the policy does not allow it for you here.", decision.reasons)


def dismissal_denied() -> Notice:
    return Notice("Only the person who asked, or somebody who could confirm it, may dismiss this.")


def dismissed() -> Notice:
    return Notice("Nothing was sent to the cloud; the rollout goes on.")


def ended_expired() -> Notice:
    return Notice("Nobody said yes in time. Nothing was sent to the cloud; the rollout goes on. Ask again with /ota.")


# At the re-check and the call.


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
    return Notice(f"{said} {why}", (*lines, *_by_hand(command)), command, reference)


def not_read_again(explained: Notice, command: str | None) -> Notice:
    """The last look failed, so nothing was sent; what is said of a lost answer is about the read."""
    return Notice(
        "Nothing was sent to the cloud: the rollout could not be read once more before the call.",
        (f"The read: {_lower_first(explained.text)}", *explained.lines, *_by_hand(command)),
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
        f"The cloud refused {_STEP_WORDS[step]}: {_lower_first(explained.text)}",
        (*lines, *_by_hand(command)),
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
        _by_hand(command),
        command,
    )


# After the call.


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
        ("Show the reference to whoever runs it.", *_by_hand(command)),
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


def help_text(operations: Iterable[Operation]) -> Notice:
    lines = []
    for operation in operations:
        mark = "" if operation.kind is Kind.READ else " (asks first)"
        lines += [f"/ota {operation.usage}", f"    {operation.help}{mark}"]
    return Notice("What I can do:", (*lines, "/ota help [<command>]", "    This text, or more about one command."))


def help_on(operation: Operation) -> Notice:
    flags = tuple(f"--{param.flag}: {param.help}" for param in operation.params)
    examples = tuple(f"/ota {example}" for example in operation.examples)
    return Notice(f"/ota {operation.usage}", (operation.help, *flags, "For example:", *examples))

"""What the road says to people: one function a sentence, values in, a `Notice` out.

Plain text only; markup, mentions and buttons are the edge's. Numbers that are not known are called unknown.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from bot.model import (
    Decision,
    JobKind,
    JobState,
    Notice,
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
        ("Whoever runs otabrake can see what is wrong with: otabrake policy check", *by_hand(command)),
        command,
    )


def not_let_in(why: str) -> Notice:
    return Notice(f"Not done: {why} Nothing was sent.")


def people_unavailable(command: str | None) -> Notice:
    return Notice(
        "Not done: Slack did not tell me who you are, and without that nobody is let in. Nothing was sent.",
        ("Try again in a moment.", *by_hand(command)),
        command,
    )


def by_hand(command: str | None) -> tuple[str, ...]:
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
        f"Not done: {lower_first(explained.text)} Nothing was changed.",
        (*explained.lines, *by_hand(command)),
        command,
        explained.reference,
    )


def lower_first(text: str) -> str:
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
        return Notice(f"It is over: {lower_first(proposal.outcome.notice.text)}")
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

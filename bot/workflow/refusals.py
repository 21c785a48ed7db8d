"""What a person is told who is turned down, or whose change would do nothing: one function a sentence.

Plain text only, for that person alone; each says what to do. Numbers that are not known are called unknown.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from bot.model import (
    Decision,
    Firmware,
    JobKind,
    JobState,
    Notice,
    Preview,
)
from bot.operations import Operation, Subject
from bot.proposals import Proposal
from bot.workflow.figures import (
    OVER,
    count_lines,
    job_line,
    preview_lines,
    state_words,
)
from bot.workflow.sentences import by_hand, lower_first, typed


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


def unknown_instance(name: str, known: Iterable[str]) -> Notice:
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"Did you mean {near[0]}?" if near else f"Known instances: {', '.join(names) or 'none'}."
    return Notice(f"Not done: there is no instance called {name}. {hint}")


def which_instance(name: str, instances: Iterable[str]) -> Notice:
    known = sorted(instances)
    if len(known) == 1:
        return Notice(f"Not done: {name} is on {known[0]}. If you mean that, pick it, or add: on {known[0]}")
    return Notice(
        "Not done: which instance do you mean? Pick one, or say it again with:",
        tuple(f"on {instance}" for instance in known),
    )


def which_firmware(word: str, verb: str, packages: Iterable[Firmware], instance: str) -> Notice:
    return Notice(
        f"Not done: version {word} is the version of several firmwares. Say which one:",
        tuple(
            f"/ota {verb} {each.firmware_id} on {instance} because … ({each.name}, product {each.product})"
            for each in packages
        ),
    )


def no_such_firmware(word: str, instances: Iterable[str]) -> Notice:
    return Notice(
        f"Not done: there is no firmware with the id or version {word} on {' or '.join(instances)}. "
        "See what there is: /ota firmware"
    )


def nowhere(name: str, subject: Subject, instances: Iterable[str], *, near: str | None = None) -> Notice:
    """What was named is on no instance that this person may look at."""
    if subject is Subject.FIRMWARE:
        return no_such_firmware(name, instances)
    places = " or ".join(instances)
    if subject is Subject.DEVICES:
        return Notice(f"Not done: there is no device {name} of that product on {places}. Check product key and name.")
    if near is not None:
        return Notice(f"Not done: there is no job {name} on {places}. Did you mean {near}?")
    return Notice(
        f"Not done: there is no job {name} on {places}. Copy its id again from the console, or see: /ota jobs"
    )


def no_channel(instance: str) -> Notice:
    return Notice(
        f"Not done: a confirmation card needs a channel, and {instance} has none in the policy. "
        "Type the same line in a channel."
    )


def already_waiting(pending: Proposal, operation: Operation) -> Notice:
    preview = pending.offer.preview if pending.offer is not None else None
    lines = preview_lines(preview, operation, pending.params) if preview is not None else ()
    return Notice(
        f"The same is already waiting for a yes, asked for at {pending.created_at:%H:%M:%S} UTC: confirm it on "
        "its card if the policy allows it for you. Nothing new was made.",
        (*((f"Its reason: {pending.reason}",) if pending.reason else ()), *lines),
    )


def stop_under_way(stop: Proposal) -> Notice:
    return Notice(
        f"Not done: this rollout is being stopped (asked for at {stop.created_at:%H:%M:%S} UTC), and a stop goes "
        "first. Ask again when it is over."
    )


def already_under_way(first: Proposal) -> Notice:
    return Notice(
        f"Not done: the same kind of change of this rollout is not over yet (asked for at {first.created_at:%H:%M:%S} "
        "UTC). Ask again when it is."
    )


def no_such_proposal(proposal_id: str, found: int) -> Notice:
    if found:
        return Notice(f"Not done: several changes begin with {proposal_id}. Give more characters of the id.")
    return Notice(f"Not done: there is no change whose id begins with {proposal_id}. Copy it from the last line.")


def not_over_yet(before: Proposal) -> Notice:
    return Notice(
        f"Not done: the change {before.proposal_id[:8]} is not over yet. Its last line says whether something is left."
    )


def needs_reason(operation: Operation, proposal: Proposal, decision: Decision) -> Notice:
    return Notice(
        "Not done: this needs a reason. Say it again with one:",
        (f"{typed(operation, proposal.target, proposal.params)} because …", *decision.reasons),
    )


def nothing_to_stop(preview: Preview) -> Notice:
    if not preview.parts:
        what = "no open task of it is left" if preview.target.devices else "no rollout of it is running"
        return Notice(f"Nothing to stop: {what}. Nothing was sent.")
    job = preview.job
    if all(part.job.state in OVER for part in preview.parts):
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


def nothing_to_retry(preview: Preview) -> Notice:
    return Notice(
        "Nothing to run again: no task is in the state that this names. Nothing was sent.",
        (job_line(preview.job), *count_lines(preview.counts, is_brief=True)),
    )


def over_already(preview: Preview) -> Notice:
    return Notice(f"Not done: the rollout is {state_words(preview.job.state)}; it has no rate any more.")


def settings_unknown(preview: Preview) -> Notice:
    return Notice(
        "Not done: the cloud did not tell all settings of this rollout, and what is not sent again would be lost. "
        "Nothing was sent."
    )


def same_rate(preview: Preview, rate: int) -> Notice:
    return Notice(f"Not done: the rate is {rate:,} devices per minute already. Nothing was sent.")


def not_read(explained: Notice, command: str | None) -> Notice:
    """The cloud could not be asked about the job: nothing can be offered."""
    return Notice(
        f"Not done: {lower_first(explained.text)} Nothing was changed.",
        (*explained.lines, *by_hand(command)),
        command,
        explained.reference,
    )


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

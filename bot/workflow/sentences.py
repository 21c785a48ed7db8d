"""What the road says to people: one function a sentence, values in, a `Notice` out.

Plain text only; markup, mentions and buttons are the edge's. Numbers that are not known are called unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bot.model import (
    Decision,
    Notice,
    Preview,
    Requirements,
    Target,
    Task,
    TaskState,
)
from bot.operations import Kind, Operation, Params, Subject, value_of
from bot.workflow.figures import (
    failure_lines,
    job_line,
    names,
    number,
    preview_lines,
    progress_line,
    state_words,
    task_line,
)


def shown(preview: Preview) -> Notice:
    job, counts = preview.job, preview.counts
    settings = job.settings
    rate = f"Rate: {number(settings.per_minute)} devices per minute" if settings is not None else ""
    lines = [job_line(job), job.description, progress_line(counts), rate, *failure_lines(counts)]
    return Notice(f"Rollout {job.job_id} is {state_words(job.state)}.", tuple(line for line in lines if line))


def open_tasks(target: Target, tasks: Sequence[Task]) -> Notice:
    if not tasks:
        return Notice(f"Nothing is open for {names(target.devices)}: no unfinished task, as of now.")
    return Notice(f"{len(tasks)} open task{'s' if len(tasks) != 1 else ''}:", tuple(task_line(task) for task in tasks))


def tasks_follow(preview: Preview, states: Sequence[TaskState]) -> Notice:
    count = preview.counts.of(states or TaskState)
    what = ", ".join(state.value.lower().replace("_", " ") for state in states) or "all"
    return Notice(
        f"I am reading the tasks of {preview.job.job_id} ({what}: {number(count)} now). "
        "The file comes as a direct message.",
        ("That takes about a second for 500 tasks, longer while somebody stops a rollout.",),
    )


def dry_run(preview: Preview, operation: Operation, params: Params, decision: Decision) -> Notice:
    verdict = "the policy allows it" if decision.is_allowed else "the policy denies it"
    if decision.is_allowed and decision.requirements.reason:
        verdict += ", with a reason"
    lines = (
        *preview_lines(preview, operation, params),
        *decision.reasons,
        *requirement_lines(decision.requirements),
    )
    idle = "" if preview.parts else " There is nothing that it would touch."
    return Notice(f"Dry run of {operation.verb} {preview.target.name}: {verdict}; nothing was sent.{idle}", lines)


def requirement_lines(requirements: Requirements) -> tuple[str, ...]:
    return ("A reason is required: end the line with because …",) if requirements.reason else ()


def by_hand(command: str | None) -> tuple[str, ...]:
    return ("If it cannot wait, somebody with a key can run:",) if command else ()


def typed(operation: Operation, target: Target, params: Params) -> str:
    """The line that asks for this, as one would type it."""
    words = ["/ota", operation.verb]
    if operation.subject is Subject.DEVICES:
        words += [target.product, *target.devices]
    else:
        words += [target.job or target.firmware]
    flags = []
    for param in operation.params:
        value = value_of(params, param.name) if param.takes else None
        if value is not None and not param.flag:
            words.append(str(value))
        elif value is not None:
            flags += [f"--{param.flag}", str(value)]
        elif param.name in params:
            flags.append(f"--{param.flag}")
    return " ".join([*words, "on", target.instance, *flags])


_NAMES = ("Alibaba", "RAM", "IoT", "STS", "Slack", "HTTP")


def lower_first(text: str) -> str:
    """For the middle of a sentence; a name keeps its capital."""
    return text if text.startswith(_NAMES) else text[:1].lower() + text[1:]


def dismissed() -> Notice:
    return Notice("Nothing was sent to the cloud; the rollout goes on.")


def ended_expired() -> Notice:
    return Notice("Nobody said yes in time. Nothing was sent to the cloud; the rollout goes on. Ask again with /ota.")


def help_text(operations: Iterable[Operation]) -> Notice:
    lines = []
    for operation in operations:
        mark = "" if operation.kind is Kind.READ else " (asks first)"
        lines += [f"/ota {operation.usage}", f"    {operation.help}{mark}"]
    lines += ["/ota resume <id> [because …]", "    Ask for what an earlier change has left. (asks first)"]
    return Notice("What I can do:", (*lines, "/ota help [<command>]", "    This text, or more about one command."))


def help_on(operation: Operation) -> Notice:
    flags = tuple(f"--{param.flag}: {param.help}" for param in operation.params if param.flag)
    examples = tuple(f"/ota {example}" for example in operation.examples)
    return Notice(f"/ota {operation.usage}", (operation.help, *flags, "For example:", *examples))

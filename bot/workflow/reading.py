"""Reads: what is shown at once, to the asker alone, with an audit entry. A change's dry run is one of them."""

from __future__ import annotations

from bot.audit import Entry, EntryName, Fact
from bot.errors import CloudError
from bot.exchange import Ask, Delivery, File, FileKind, Post, PostKind
from bot.model import UNKNOWN, Actor, Decision, Notice, Preview, Question, Target, TaskState
from bot.operations import Kind, Subject
from bot.policy.decide import allowed_instances, decide
from bot.policy.load import Policy
from bot.workflow import lists, refusals, sentences
from bot.workflow.finding import asked_as, denied
from bot.workflow.looking import look
from bot.workflow.means import Means, TurnedDown, ask_policy, reply


async def show(means: Means, delivery: Delivery, ask: Ask, policy: Policy, actor: Actor, target: Target) -> None:
    """Answers a read of a job or of devices, or a change's dry run, for which the policy for reads applies."""
    operation = means.operations[ask.operation]
    if operation.subject is Subject.DEVICES and operation.kind is Kind.READ:
        await _show_device(means, delivery, ask, policy, actor, target)
        return
    name, channel = asked_as(means, ask), delivery.reply_to.place.channel
    try:
        preview = (await look(means, operation, ask.params, target)).preview
    except CloudError as error:
        raise TurnedDown(means.words.explain(error, target), why="cloud") from error
    decision = _decide_read(policy, actor, name, channel, preview)
    if operation.kind is Kind.CHANGE:
        decision = decide(policy, ask_policy(actor, operation.name, channel, target, preview))
        notice = sentences.dry_run(preview, operation, ask.params, decision)
        await _answer(means, delivery, ask, target, decision, notice, preview=preview)
    elif operation.name == "job.tasks":
        await _send_tasks(means, delivery, ask, target, decision, preview)
    else:
        await _answer(means, delivery, ask, target, decision, sentences.shown(preview), preview=preview)


def _decide_read(policy: Policy, actor: Actor, name: str, channel: str | None, preview: Preview) -> Decision:
    product = next((part.job.product for part in preview.parts), "") or preview.target.product or UNKNOWN
    decision = decide(policy, Question(actor, name, channel, preview.target.instance, product))
    if not decision.is_allowed:
        raise TurnedDown(refusals.denied(name, decision), why="denied")
    return decision


async def _show_device(
    means: Means, delivery: Delivery, ask: Ask, policy: Policy, actor: Actor, target: Target
) -> None:
    question = Question(actor, ask.operation, delivery.reply_to.place.channel, target.instance, target.product)
    decision = decide(policy, question)
    if not decision.is_allowed:
        raise TurnedDown(refusals.denied(ask.operation, decision), why="denied")
    try:
        tasks = [
            task
            for device in target.devices
            for task in await means.reads.fetch_open_tasks(target.instance, target.product, device)
        ]
    except CloudError as error:
        raise TurnedDown(means.words.explain(error, target), why="cloud") from error
    await _answer(means, delivery, ask, target, decision, sentences.open_tasks(target, tasks))


async def _send_tasks(
    means: Means, delivery: Delivery, ask: Ask, target: Target, decision: Decision, preview: Preview
) -> None:
    """The file is made when it is sent; how many rows it will have is said at once."""
    states = tuple(state for state in TaskState if state.value.casefold() in ask.params)
    file = File(FileKind.TASKS, target, states)
    notice = sentences.tasks_follow(preview, states)
    post = Post(PostKind.FILE, delivery.delivery_id, reply_to=delivery.reply_to, file=file)
    await _answer(means, delivery, ask, target, decision, notice, posts=(post,))


async def show_list(means: Means, delivery: Delivery, ask: Ask, policy: Policy, actor: Actor) -> None:
    """Answers from what discovery found: no list waits for the cloud. Each row is decided by itself."""
    place = delivery.reply_to.place
    allowed = allowed_instances(policy, actor=actor, operation=ask.operation, channel=place.channel)
    if ask.instance is not None and ask.instance not in policy.instances:
        raise TurnedDown(refusals.unknown_instance(ask.instance, policy.instances), why="no such instance")
    names = [name for name in allowed if ask.instance in (None, name)]
    if not names:
        raise denied(policy, actor, ask.operation, place, ask.instance or "")

    def may_see(instance: str, product: str) -> bool:
        question = Question(actor, ask.operation, place.channel, instance, product or UNKNOWN)
        return decide(policy, question).is_allowed

    jobs = [row for row in await means.found.fetch_found_jobs(names) if may_see(row.instance, row.job.product)]
    packages = [
        row for row in await means.found.fetch_found_firmware(names) if may_see(row.instance, row.firmware.product)
    ]
    word, now = ask.word, means.clock()
    if ask.operation == "job.list":
        notice = lists.job_lines(jobs, word=word, now=now, firmware=packages, instances=names)
    else:
        notice = lists.firmware_lines(packages, word=word, now=now, jobs=jobs, instances=names)
    facts: dict[str, Fact] = {"operation": ask.operation, "instance": ask.instance, "word": ask.word}
    entry = Entry(EntryName.SHOWN, means.clock(), actor.user_id, None, facts)
    await reply(means, lane=delivery.delivery_id, to=delivery.reply_to, notice=notice, entry=entry)


async def _answer(
    means: Means,
    delivery: Delivery,
    ask: Ask,
    target: Target,
    decision: Decision,
    notice: Notice,
    *,
    preview: Preview | None = None,
    posts: tuple[Post, ...] = (),
) -> None:
    facts = facts_of(ask, target) | {"policy": decision.policy, "effect": decision.effect.value}
    entry = Entry(EntryName.SHOWN, means.clock(), delivery.reply_to.user_id, None, facts)
    await reply(
        means,
        lane=delivery.delivery_id,
        to=delivery.reply_to,
        notice=notice,
        entry=entry,
        preview=preview,
        posts=posts,
    )


def facts_of(ask: Ask, target: Target) -> dict[str, Fact]:
    """What an audit entry says of an ask. What was not given is left out."""
    given: dict[str, Fact] = {
        "job": target.job,
        "firmware": target.firmware,
        "product": target.product,
        "devices": list(target.devices),
        "resumes": ask.resumes,
        "break_glass": ask.is_break_glass,
    }
    said: dict[str, Fact] = {
        "operation": ask.operation,
        "instance": target.instance,
        "params": sorted(ask.params),
        "dry_run": ask.is_dry_run,
    }
    return said | {name: value for name, value in given.items() if value}

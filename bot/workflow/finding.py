"""What an ask means: on which instance, and which firmware a version is.

Without `on`: the one instance whose channel this is, the only one allowed, the one that knows what was named. What is
left open is asked back with buttons.
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Sequence

from bot.errors import CloudError, CloudRefused
from bot.exchange import Ask
from bot.model import UNKNOWN, Actor, Firmware, Place, Question, Target
from bot.operations import Kind, Subject
from bot.policy.decide import allowed_instances, decide
from bot.policy.load import Policy
from bot.workflow import refusals
from bot.workflow.means import Means, TurnedDown

NO_SUCH_JOB = "iot.ota.invalidjobid"
_NO_SUCH = (
    NO_SUCH_JOB,
    "iot.device.notexisteddevice",
    "iot.prod.notexistedproduct",
    "iot.prod.invalidformattedproductkey",
    "iot.ota.firmwarenotfound",
    "iot.ota.invalidfirmwareuid",
)


def asked_as(means: Means, ask: Ask) -> str:
    """The operation that the policy is asked about: a dry run is a read."""
    return means.operations.names(Kind.READ)[0] if ask.is_dry_run else ask.operation


def denied(policy: Policy, actor: Actor, operation: str, place: Place, instance: str) -> TurnedDown:
    """The denial with its reasons, before anything of the target is known."""
    question = Question(actor, operation, place.channel, instance, UNKNOWN, UNKNOWN, UNKNOWN)
    notice = refusals.denied(operation, decide(policy, question))
    return TurnedDown(notice, why="denied", facts={"operation": operation, "instance": instance})


def standing_in(policy: Policy, place: Place) -> list[str]:
    """The instances whose channel this is; with only one instance, that one."""
    if len(policy.instances) == 1:
        return list(policy.instances)
    return [name for name, instance in policy.instances.items() if place.channel and instance.channel == place.channel]


async def find_target(means: Means, policy: Policy, actor: Actor, ask: Ask, place: Place) -> Target:
    """The target that is meant. Raises `TurnedDown`."""
    instance = await _find_instance(means, policy, actor, ask, place)
    if means.operations[ask.operation].subject is not Subject.FIRMWARE:
        return ask.on(instance)
    try:
        packages = await _packages(means, instance, ask.firmware)
    except CloudError as error:
        raise TurnedDown(means.words.explain(error, ask.on(instance)), why="cloud") from error
    if len(packages) == 1:
        return Target(instance, firmware=packages[0].firmware_id, product=packages[0].product)
    verb = means.operations[ask.operation].verb
    if packages:
        raise TurnedDown(refusals.which_firmware(ask.firmware, verb, packages, instance), why="which firmware")
    raise TurnedDown(refusals.no_such_firmware(ask.firmware, [instance]), why="no such firmware")


async def _packages(means: Means, instance: str, word: str) -> tuple[Firmware, ...]:
    """The firmware of this id, or all of this version. Raises `CloudError` if neither could be asked."""
    answers = await asyncio.gather(
        means.reads.fetch_firmware(instance, firmware_id=word),
        means.reads.fetch_firmware(instance, version=word),
        return_exceptions=True,
    )
    found: dict[str, Firmware] = {}
    errors = []
    for answer in answers:
        if isinstance(answer, CloudError):
            errors += [] if _is_unknown(answer) else [answer]
        elif isinstance(answer, BaseException):
            raise answer
        else:
            found |= {firmware.firmware_id: firmware for firmware in answer}
    if errors and not found:
        raise errors[0]
    return tuple(found.values())


async def _find_instance(means: Means, policy: Policy, actor: Actor, ask: Ask, place: Place) -> str:
    if ask.instance is not None:
        if ask.instance in policy.instances:
            return ask.instance
        raise TurnedDown(refusals.unknown_instance(ask.instance, policy.instances), why="no such instance")
    name = asked_as(means, ask)
    allowed = allowed_instances(policy, actor=actor, operation=name, channel=place.channel)
    here = standing_in(policy, place)
    likely = here if len(here) == 1 else list(allowed)
    if not likely:
        raise denied(policy, actor, name, place, "")
    if len(policy.instances) == 1:
        return likely[0]
    known = await means.found.fetch_found_jobs(likely, job=ask.job) if ask.job else ()
    if len(known) == 1:
        return known[0].instance
    knowing = await _knowing(means, ask, likely)
    if len(knowing) == 1:
        return knowing[0]
    if knowing:
        raise TurnedDown(refusals.which_instance(ask.on("").name, knowing), why="which instance", picks=knowing)
    raise await _elsewhere(means, policy, actor, ask, place, likely)


async def _elsewhere(
    means: Means, policy: Policy, actor: Actor, ask: Ask, place: Place, likely: Sequence[str]
) -> TurnedDown:
    """Nowhere where it would be expected: perhaps on another instance that this person may look at."""
    read = means.operations.names(Kind.READ)[0]
    readable = allowed_instances(policy, actor=actor, operation=read, channel=place.channel)
    elsewhere = await _knowing(means, ask, [each for each in readable if each not in likely])
    name = ask.on("").name
    if elsewhere:
        return TurnedDown(refusals.which_instance(name, elsewhere), why="another instance", picks=elsewhere)
    names = sorted({*likely, *readable})
    found = await means.found.fetch_found_jobs(names) if ask.job else ()
    by_folded = {each.job.job_id.casefold(): each.job.job_id for each in found}
    near = difflib.get_close_matches(ask.job.casefold(), by_folded, n=1, cutoff=0.8)
    notice = refusals.nowhere(
        name, means.operations[ask.operation].subject, names, near=by_folded[near[0]] if near else None
    )
    return TurnedDown(notice, why="no such job")


async def _knowing(means: Means, ask: Ask, names: Sequence[str]) -> list[str]:
    """Those of the instances that know what was named, or do not answer: a guess that cannot be checked stands."""
    answers = await asyncio.gather(*(_knows(means, ask, name) for name in names))
    return [name for name, knows in zip(names, answers, strict=True) if knows]


async def _knows(means: Means, ask: Ask, instance: str) -> bool:
    subject = means.operations[ask.operation].subject
    try:
        if subject is Subject.JOB:
            await means.reads.fetch_job(ask.on(instance))
        elif subject is Subject.FIRMWARE:
            return bool(await _packages(means, instance, ask.firmware))
        elif subject is Subject.DEVICES:
            await means.reads.fetch_open_tasks(instance, ask.product, ask.devices[0])
    except CloudError as error:
        return not _is_unknown(error)
    return True


def _is_unknown(error: CloudError) -> bool:
    return isinstance(error, CloudRefused) and error.code.casefold() in _NO_SUCH

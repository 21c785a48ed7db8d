"""The cloud's refusals and failures put for people: the table of `meanings`, filled in with what this call was about.

A code that is not listed passes through with its message. The cloud's own words are foreign text: one line, cut, plain.
The RequestId, where there is one, is the notice's reference. https://www.alibabacloud.com/help/doc-detail/87387.htm
"""

from __future__ import annotations

import re

from bot.alibaba.answers import Denial, NotMade, Refusal, plain_text
from bot.alibaba.changes import ACTIONS, INCOMPLETE
from bot.alibaba.command_lines import command_line, host_of
from bot.alibaba.key_sources import KEY_ENDED, KEY_UNAVAILABLE
from bot.alibaba.meanings import (
    GATEWAY,
    LOST,
    NOT_MADE,
    OPERATOR,
    SERVICE,
    THROTTLED,
    UNREACHABLE,
    UNREAD,
    YOU,
    Meaning,
    folded_table,
)
from bot.alibaba.ota_meanings import OTA, PRODUCTS_AND_DEVICES
from bot.errors import CloudLost, CloudRefused, CloudThrottled, CloudUnreachable
from bot.model import Instance, Notice, Target

__all__ = [
    "BAD_ENDPOINT",
    "KEY_CHANGED",
    "NO_CREDENTIALS",
    "UNKNOWN_INSTANCE",
    "command_line",
    "explain",
    "known_code",
]

KEY_CHANGED = "otabrake.KeyChanged"
UNKNOWN_INSTANCE = "otabrake.UnknownInstance"
NO_CREDENTIALS = "otabrake.NoCredentials"
BAD_ENDPOINT = "otabrake.BadEndpoint"

OWN = {
    KEY_CHANGED: Meaning(
        "The access key of instance {instance} was changed while this call was under way.",
        "See what the call did ({see}), and ask again if devices still have to be stopped.",
        YOU,
    ),
    UNKNOWN_INSTANCE: Meaning(
        "The policy has no instance {instance}.",
        "Check the name, or add the instance to the policy folder under instances.",
        YOU,
    ),
    NO_CREDENTIALS: Meaning(
        "There is no access key for instance {instance}.",
        "Set {prefix}_ACCESS_KEY_ID and {prefix}_ACCESS_KEY_SECRET, then restart otabrake.",
        OPERATOR,
    ),
    KEY_UNAVAILABLE: Meaning(
        "The access key of instance {instance} could not be fetched ({message}).",
        "Check the variables that begin with {prefix}_ and what they name. otabrake keeps trying: ask again.",
        OPERATOR,
    ),
    KEY_ENDED: Meaning(
        "The access key of instance {instance} has ended ({message}).",
        "Check that what the variables beginning with {prefix}_ name still answers. otabrake keeps trying: ask again.",
        OPERATOR,
    ),
    BAD_ENDPOINT: Meaning(
        "Instance {instance} cannot be called: {message}", "Correct it in the policy folder.", OPERATOR
    ),
    INCOMPLETE: Meaning(
        "The call could not be made: {message}.", "Ask again; if it stays so, make the change in the IoT console.", YOU
    ),
}
_TABLES = (SERVICE, GATEWAY, OTA, PRODUCTS_AND_DEVICES, OWN)
_MEANINGS = folded_table(*_TABLES)
_SPELLINGS = {code.casefold(): code for table in _TABLES for code in table}
_BEGINNINGS = sorted(
    ((code.rstrip("*"), meaning) for code, meaning in _MEANINGS.items() if code.endswith((".", "*"))),
    key=lambda entry: len(entry[0]),
    reverse=True,
)
_READS = (
    "QueryOTAJob",
    "ListOTATaskByJob",
    "ListOTAFirmware",
    "QueryOTAFirmware",
    "ListOTAJobByFirmware",
    "ListOTAUnfinishedTaskByDevice",
)
_MAX_NAME_CHARACTERS = 120
_ACTION = re.compile(r"iot:[A-Za-z0-9*]{1,80}")


def explain(error: Exception, target: Target, instance: Instance | None) -> Notice:
    """What happened as a sentence; what to do and who can as lines; the RequestId as reference."""
    code = plain_text(error.code) if isinstance(error, CloudRefused) else ""
    message = plain_text(error.message) if isinstance(error, CloudRefused) else ""
    reference = plain_text(getattr(error, "request_id", None)) or None
    meaning = _meaning_of(error, code)
    if meaning is None:
        said = f"{code}: {message}" if message else code or type(error).__name__
        lines = ("Look the code up in Alibaba Cloud's documents, or open a ticket there with the RequestId.",)
        return Notice(f"Alibaba Cloud refused ({said}).", lines, reference=reference)
    facts = {**_facts(error, instance), **_names(target, getattr(error, "about", "")), "code": code, "message": message}
    quoted = (f"Alibaba Cloud says: {code}: {message}",) if _is_quotable(meaning, code, message) else ()
    return Notice(
        meaning.happened.format_map(facts),
        (
            f"What to do: {meaning.remedy.format_map(facts)}",
            f"Who can: {meaning.who}",
            *_ram_says(_denial(error)),
            *quoted,
        ),
        reference=reference,
    )


def known_code(code: str) -> str | None:
    """The code as the tables spell it; None if they do not hold it as a whole."""
    return _SPELLINGS.get(code.casefold())


def _is_quotable(meaning: Meaning, code: str, message: str) -> bool:
    return bool(message) and meaning.may_quote and not code.startswith("otabrake.")


def _meaning_of(error: Exception, code: str) -> Meaning | None:
    if isinstance(error, CloudThrottled):
        return THROTTLED
    if isinstance(error, CloudUnreachable):
        return NOT_MADE if isinstance(error, NotMade) else UNREACHABLE
    if isinstance(error, CloudLost):
        return UNREAD if error.is_read else LOST
    name = code.casefold()
    return _MEANINGS.get(name) or next((meaning for start, meaning in _BEGINNINGS if name.startswith(start)), None)


def _names(target: Target, about: str = "") -> dict[str, str]:
    """What the call was about, in words that read right whatever of it is known."""
    devices = about or (target.name if target.devices else "")
    job, firmware, product, devices = (
        plain_text(part)[:_MAX_NAME_CHARACTERS] for part in (target.job, target.firmware, target.product, devices)
    )
    known = [("job", job), ("firmware", firmware), ("product", product), ("device", devices)]
    named = {noun: f"{noun} {name}" for noun, name in known if name}
    the_job = named.get("job", "the job")
    return {
        "the_job": the_job,
        "The_job": the_job[0].upper() + the_job[1:],
        **{f"no_{noun}": named.get(noun, f"such {noun}") for noun, _ in known},
        "names": " and ".join(named.values()) or "what was typed",
        "see": _look(target, job=job, firmware=firmware),
        "cancel": f"/ota cancel {job or '<job>'}",
        "instance": plain_text(target.instance),
    }


def _look(target: Target, *, job: str, firmware: str) -> str:
    """What to type to see how things are."""
    if job:
        return f"/ota status {job}"
    if target.product and target.devices:
        return f"/ota device {plain_text(target.product)} {plain_text(target.devices[0])}"
    return f"/ota jobs {firmware}" if firmware else "/ota jobs"


def _facts(error: Exception, instance: Instance | None) -> dict[str, str]:
    actions = _refused_actions(error)
    return {
        "instance_id": (instance.instance_id if instance else None) or "none",
        "instance_remedy": _instance_remedy(instance),
        "region": instance.region if instance else "unknown",
        "host": _host(instance),
        "prefix": (instance.credentials if instance else None) or "ALIBABA_CLOUD",
        "actions": ", ".join(actions),
        "to_whom": f" to {principal}" if (principal := _denial(error).principal) else "",
        "permit": _permit(actions, _denial(error)),
        "skew": _skew(error),
        "pause": _pause(error),
        "why": plain_text(str(error)),
    }


def _instance_remedy(instance: Instance | None) -> str:
    where = "the Overview page of the IoT console"
    if instance is not None and instance.instance_id is None:
        return (
            f"The policy folder gives {instance.name} no instance_id: copy the id from {where}. If it shows none, "
            "check the region."
        )
    name = instance.name if instance else "the instance"
    return (
        f"Check instance_id and region of {name} in the policy folder against {where}. If it shows no id there, "
        "instance_id must be left out."
    )


def _denial(error: Exception) -> Denial:
    return (error.denial if isinstance(error, Refusal) else None) or Denial()


def _refused_actions(error: Exception) -> list[str]:
    """The refused action as RAM told it, or the one that was called; all that we ever need if neither is known."""
    told = _denial(error).action
    if _ACTION.fullmatch(told):
        return [told]
    asked = error.action if isinstance(error, Refusal) else None
    return [f"iot:{action}" for action in ([asked] if asked else [*_READS, *ACTIONS.values()])]


def _permit(actions: list[str], denial: Denial) -> str:
    if denial.kind.casefold() == "explicitdeny":
        return (
            f"A policy forbids it: take {', '.join(actions)} out of the statement with Effect Deny. An Allow elsewhere "
            "does not outweigh it."
        )
    quoted = ",".join(f'"{action}"' for action in actions)
    statement = f'{{"Effect":"Allow","Action":[{quoted}],"Resource":"*"}}'
    return f'Attach this policy to the RAM user or role: {{"Version":"1","Statement":[{statement}]}}'


def _ram_says(denial: Denial) -> tuple[str, ...]:
    told = [part for part in (denial.action, denial.principal, denial.kind, denial.policy_type) if part]
    return (f"RAM says: {', '.join(told)}",) if told else ()


def _host(instance: Instance | None) -> str:
    if instance is None:
        return "its endpoint"
    return host_of(instance.endpoint or f"iot.{instance.region}.aliyuncs.com")


def _skew(error: Exception) -> str:
    ahead = error.clock_ahead_seconds if isinstance(error, Refusal) else None
    if ahead is None:
        return "more than 15 minutes"
    minutes = round(abs(ahead) / 60)
    much = f"{minutes} minutes" if minutes < 120 else f"{round(minutes / 60)} hours"
    return f"{much} ({'ahead' if ahead > 0 else 'behind'})"


def _pause(error: Exception) -> str:
    seconds = error.retry_after_seconds if isinstance(error, CloudThrottled) else None
    if not seconds:
        return "a few seconds"
    whole = max(1, round(seconds))
    return f"{whole} second" if whole == 1 else f"{whole} seconds"

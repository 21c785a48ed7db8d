"""What people type after the slash command, as an `Ask` or a `Resume`, or a `Notice` that says what was wrong with it.

Keyboards send em dashes for `--`, curly quotes and escaped signs; Slack sends `&amp;` and links in `<…>`. All of that
is read as what was meant. What it does not do: decide anything, or look anything up.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from bot.exchange import Ask, Resume
from bot.model import Notice
from bot.operations import Kind, Operation, Operations, Param, Subject
from bot.slack import misread
from bot.slack.misread import HELP, RESUME, Misread
from bot.workflow.sentences import help_on, help_text

DEVICES_MOST = 50
REASON_LENGTH = 500
_DASHES = str.maketrans({"—": "--", "–": "--", "−": "-", "‐": "-", "‑": "-"})
_SPACES = re.compile(r"[\s\u00a0\u2000-\u200b\u202f\u3000\ufeff]+")
_LINK = re.compile(r"<(?:[@#!]?[^<>|]*\|)([^<>]+)>|<([^<>|]+)>")
_BECAUSE = re.compile(r"(?:^|\s)because(?:\s+|$)", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z0-9_.*-]{1,128}")
_DEVICE = re.compile(r"[A-Za-z0-9_.:@#-]{1,64}")
"""Rather more than the cloud takes (4 to 32 of these, without #): it is the one to refuse a name."""

_PROPOSAL = re.compile(r"[0-9a-f]{6,32}")
_NUMBER = re.compile(r"[0-9]{1,9}|[0-9]{1,3}(?:,[0-9]{3}){1,2}")
_QUOTES = "`'\"“”‘’„«»"
_WRAPPING = f"{_QUOTES}*_~"


def parse(text: str, operations: Operations) -> Ask | Resume | Notice:
    """The ask in `text` (everything after the slash command)."""
    head, reason = _split_reason(text)
    words = [word for word in _SPACES.split(head.translate(_DASHES)) if word.strip(_WRAPPING)]
    try:
        return _read(words, reason, operations)
    except Misread as no:
        if no.is_whole or len(words) < 2:
            return no.notice
        typed = misread.line(*_with_reason(words, reason))
        return replace(no.notice, lines=(*no.notice.lines, f"You typed: {typed}"))


def _split_reason(text: str) -> tuple[str, str | None]:
    """What comes before `because`, and what comes after it as it was typed."""
    plain = html.unescape(_LINK.sub(lambda match: match.group(1) or match.group(2), text))
    match = _BECAUSE.search(plain)
    if match is None:
        return plain, None
    reason = _SPACES.sub(" ", plain[match.end() :]).strip().strip(_WRAPPING)
    return plain[: match.start()], reason[:REASON_LENGTH] or None


def _read(words: Sequence[str], reason: str | None, operations: Operations) -> Ask | Resume | Notice:
    bare = [word.strip(_WRAPPING) for word in words[:2]] + list(words[2:])
    verb = bare[0].casefold() if bare else HELP
    if verb == HELP:
        return _help(bare[1:], operations)
    if verb == RESUME:
        return _resume(bare[1:], reason)
    found = operations.starting(bare)
    if found is None:
        raise misread.unknown_verb(_with_reason(bare, reason), operations)
    operation, length = found
    if [word.lstrip("-—–").casefold() for word in words[length:]] == [HELP]:
        return help_on(operation)
    turned = misread.misspelt_verb(_with_reason(bare, reason), operations) if length == 1 and len(bare) > 2 else None
    if turned is not None:
        raise turned
    return _ask(operation, _sorted(operation, words[length:], reason), reason)


def _with_reason(words: Sequence[str], reason: str | None) -> list[str]:
    return [*words, *(["because", reason] if reason else [])]


def _help(words: Sequence[str], operations: Operations) -> Notice:
    if not words:
        return help_text(operations.by_name.values())
    if words[0].casefold() == RESUME:
        return misread.help_on_resume()
    if words[0].casefold() == HELP:
        return help_text(operations.by_name.values())
    found = operations.starting(words)
    if found is None:
        raise misread.unknown_verb(words, operations)
    return help_on(found[0])


def _resume(words: Sequence[str], reason: str | None) -> Resume:
    wanted = words[0].strip(_WRAPPING).casefold() if len(words) == 1 else ""
    if not _PROPOSAL.fullmatch(wanted):
        raise misread.no_proposal_id()
    return Resume(wanted, reason)


@dataclass(slots=True)
class _Sorted:
    """The words after a verb, by what they are; `names` are those that are neither switch nor instance."""

    names: list[str] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    instance: str | None = None
    is_dry_run: bool = False


def _sorted(operation: Operation, words: Sequence[str], reason: str | None) -> _Sorted:
    found = _Sorted()
    rest = iter(words)
    for word in rest:
        if word.startswith("-"):
            typed = _with_reason([operation.verb, *words], reason)
            _take_flag(operation, found, word.lstrip("-"), rest, typed)
        elif word.casefold() == "on":
            found.instance = next(rest, "").strip(_WRAPPING) or None
            if found.instance is None:
                raise misread.wrong(operation.usage, "After on comes the name of an instance.")
        elif name := word.strip(f"{_QUOTES},;"):
            found.names.append(name)
    if found.instance is not None and not _WORD.fullmatch(found.instance):
        raise misread.no_name(operation, found.instance)
    return found


def _take_flag(operation: Operation, found: _Sorted, word: str, rest: Iterator[str], typed: Sequence[str]) -> None:
    flag, _, value = word.partition("=")
    flag = flag.casefold().replace("_", "-")
    param = next((each for each in operation.params if each.flag and _same(each.flag, flag)), None)
    if param is not None and param.takes is not None:
        _take_number(operation, found, param, value or next(rest, None))
    elif param is not None and not value:
        found.params[param.name] = param.name
    elif flag == "dry-run" and operation.kind is Kind.CHANGE and not value:
        found.is_dry_run = True
    else:
        raise misread.unknown_flag(operation, word if param is not None else flag, typed)


def _same(flag: str, typed: str) -> bool:
    """Both spellings of cancelled are right."""
    return flag.replace("cancelled", "canceled") == typed.replace("cancelled", "canceled")


def _take_number(operation: Operation, found: _Sorted, param: Param, word: str | None) -> None:
    low, high = param.takes or (0, 0)
    typed = word.strip(_WRAPPING) if word is not None else ""
    number = int(typed.replace(",", "")) if _NUMBER.fullmatch(typed) else None
    if number is None or not low <= number <= high:
        raise misread.no_number(operation, param, word)
    found.params[param.name] = f"{param.name}={number}"


def _ask(operation: Operation, found: _Sorted, reason: str | None) -> Ask:
    subject = operation.subject
    if subject is Subject.CATALOG:
        named = _catalog(operation, found)
    elif not found.names:
        raise misread.nothing_named(operation)
    elif subject is Subject.DEVICES:
        named = _devices(operation, found)
    elif subject is Subject.FIRMWARE:
        named = Ask(operation.name, firmware=_only(operation, found.names))
    else:
        named = Ask(operation.name, _only(operation, _after_job(operation, found, reason)))
    params = frozenset(found.params.values())
    return replace(named, instance=found.instance, params=params, reason=reason, is_dry_run=found.is_dry_run)


def _catalog(operation: Operation, found: _Sorted) -> Ask:
    return Ask(operation.name, word=_only(operation, found.names) if found.names else "")


def _only(operation: Operation, names: Sequence[str]) -> str:
    if len(names) > 1:
        raise misread.too_many_words(operation, names, allowed=1)
    if not _WORD.fullmatch(names[0]):
        raise misread.no_name(operation, names[0])
    return names[0]


def _devices(operation: Operation, found: _Sorted) -> Ask:
    product, *rest = found.names
    if not _WORD.fullmatch(product):
        raise misread.no_name(operation, product)
    devices = tuple(dict.fromkeys(name for word in rest for name in word.split(",") if name))
    if not devices:
        raise misread.nothing_named(operation)
    for device in devices:
        if not _DEVICE.fullmatch(device):
            raise misread.no_name(operation, device)
    if len(devices) > DEVICES_MOST:
        raise misread.too_many_devices(operation, product, devices, most=DEVICES_MOST)
    return Ask(operation.name, product=product, devices=devices)


def _after_job(operation: Operation, found: _Sorted, reason: str | None) -> list[str]:
    """The job, once the words that belong behind it are taken: a number, or the switch of a read without its dashes."""
    job, *rest = found.names
    number = next((param for param in operation.params if not param.flag), None)
    if number is not None:
        _take_number(operation, found, number, rest[0] if rest else None)
        return [job, *rest[1:]]
    if rest and operation.kind is Kind.READ and operation.params:
        word = "-".join(rest).casefold().replace("_", "-")
        param = next((each for each in operation.params if _same(each.flag, word)), None)
        if param is None:
            raise misread.unknown_state(operation, word, _with_reason([operation.verb, job, word], reason))
        found.params[param.name] = param.name
        return [job]
    return found.names

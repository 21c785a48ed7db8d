"""What people type after the slash command, as an `Ask`, or a `Notice` that says what was wrong with it.

Keyboards send em dashes for `--`, curly quotes and escaped signs; Slack sends `&amp;` and links in `<…>`. All of that
is read as what was meant. What it does not do: decide anything, or look anything up.
"""

from __future__ import annotations

import difflib
import html
import re

from bot.exchange import Ask
from bot.model import Notice
from bot.operations import Kind, Operation, Operations
from bot.workflow.sentences import help_on, help_text

_DASHES = str.maketrans({"—": "--", "–": "--", "−": "-", "‐": "-", "‑": "-"})
_SPACES = re.compile(r"[\s\u00a0\u2000-\u200b\u202f\u3000\ufeff]+")
_LINK = re.compile(r"<(?:[@#!]?[^<>|]*\|)([^<>]+)>|<([^<>|]+)>")
_BECAUSE = re.compile(r"(?:^|\s)because(?:\s+|$)", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z0-9_.*-]{1,128}")
_WRAPPING = "`'\"*_~“”‘’„«»"
_STOPPING = ("stop", "abort", "kill", "pause", "brake")
REASON_LENGTH = 500
_TEXT_SHOWN = 80


def parse(text: str, operations: Operations) -> Ask | Notice:
    """The ask in `text` (everything after the slash command)."""
    head, reason = _split_reason(text)
    words = [word for word in _SPACES.split(head.translate(_DASHES)) if word.strip(_WRAPPING)]
    if not words or words[0].casefold() == "help":
        return _help(words[1:], operations)
    verb = words[0].strip(_WRAPPING).casefold()
    operation = operations.with_verb(verb)
    if operation is None:
        return _unknown_verb(words, operations)
    return _ask(operation, words[1:], reason)


def _split_reason(text: str) -> tuple[str, str | None]:
    """What comes before `because`, and what comes after it as it was typed."""
    plain = html.unescape(_LINK.sub(lambda match: match.group(1) or match.group(2), text))
    match = _BECAUSE.search(plain)
    if match is None:
        return plain, None
    reason = _SPACES.sub(" ", plain[match.end() :]).strip().strip(_WRAPPING)
    return plain[: match.start()], reason[:REASON_LENGTH] or None


def _help(words: list[str], operations: Operations) -> Notice:
    operation = operations.with_verb(words[0].casefold()) if words else None
    if operation is not None:
        return help_on(operation)
    if words:
        return _unknown_verb(words, operations)
    return help_text(operations.by_name.values())


def _unknown_verb(words: list[str], operations: Operations) -> Notice:
    verbs = (*operations.verbs(), "help")
    if words[0].casefold() in _STOPPING:
        stops = [operation for operation in operations.by_name.values() if operation.kind is Kind.CHANGE]
        lines = tuple(f"{' '.join(['/ota', each.verb, *words[1:]])[:300]}\n    {each.help}" for each in stops)
        return Notice(f"There is no /ota {_cut(words[0])}. Which of these do you mean? Nothing was done.", lines)
    near = difflib.get_close_matches(words[0].casefold(), verbs, n=1)
    if near:
        return Notice(
            f"There is no /ota {_cut(words[0])}. Did you mean {near[0]}? Nothing was done.",
            (" ".join(["/ota", near[0], *words[1:]])[:300],),
        )
    return Notice(f"There is no /ota {_cut(words[0])}. Nothing was done.", (f"I know: {', '.join(verbs)}.",))


def _ask(operation: Operation, words: list[str], reason: str | None) -> Ask | Notice:
    jobs: list[str] = []
    params: set[str] = set()
    instance: str | None = None
    is_dry_run = False
    rest = iter(words)
    for word in rest:
        if word.startswith("-"):
            flag = word.lstrip("-").casefold().replace("_", "-")
            name = _param(operation, flag)
            if name is not None:
                params.add(name)
            elif flag == "dry-run" and operation.kind is Kind.CHANGE:
                is_dry_run = True
            else:
                return _unknown_flag(operation, flag)
        elif word.casefold() == "on":
            instance = next(rest, "").strip(_WRAPPING) or None
            if instance is None:
                return _wrong(operation, "After on comes the name of an instance.")
        else:
            jobs.append(word.strip("`'\"“”‘’„«»"))
    if not jobs:
        return _wrong(operation, "Which job?")
    if len(jobs) > 1:
        return _too_many_words(operation, jobs)
    for word in (jobs[0], instance or jobs[0]):
        if not _WORD.fullmatch(word):
            return _wrong(operation, f"{_cut(word)} is not a name that the cloud or the policy uses.")
    return Ask(operation.name, jobs[0], instance, frozenset(params), reason, is_dry_run)


def _too_many_words(operation: Operation, words: list[str]) -> Notice:
    """Most often a reason without its because, or one that is misspelt."""
    rest = words[1:]
    if difflib.get_close_matches(rest[0].casefold(), ["because"], n=1):
        rest = rest[1:]
    return Notice(
        f"I can't tell what {_cut(repr(' '.join(words[1:])))} means. If it is the reason, say so; nothing was done.",
        (f"/ota {operation.verb} {words[0]} because {' '.join(rest)}"[:300],),
    )


def _param(operation: Operation, flag: str) -> str | None:
    return next((param.name for param in operation.params if param.flag == flag), None)


def _unknown_flag(operation: Operation, flag: str) -> Notice:
    flags = [param.flag for param in operation.params]
    if operation.kind is Kind.CHANGE:
        flags.append("dry-run")
    near = difflib.get_close_matches(flag, flags, n=1)
    hint = f" Did you mean --{near[0]}?" if near else ""
    return _wrong(operation, f"There is no --{_cut(flag)} here.{hint}")


def _wrong(operation: Operation, why: str) -> Notice:
    return Notice(f"{why} Nothing was done.", (f"/ota {operation.usage}",))


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT_SHOWN else text[: _TEXT_SHOWN - 1] + "…"

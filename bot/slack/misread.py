"""What to tell somebody whose line cannot be read: why, and the nearest line that can, with all that was typed in it.

Nothing is decided or guessed here: what is not clear is never done.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from bot.errors import OtabrakeError
from bot.model import Notice
from bot.operations import Kind, Operation, Operations, Param, Subject

RESUME = "resume"
HELP = "help"
RESUME_USAGE = f"{RESUME} <id> [because …]"
LINE_LENGTH = 2_000
_STOPPING = ("stop", "abort", "kill", "pause", "brake")
_TEXT_SHOWN = 80
_VERB_WORDS = 2


class Misread(OtabrakeError):
    """A line that is no ask; `notice` says why, and what to type. `is_whole`: all that was typed stands in it."""

    def __init__(self, notice: Notice, *, is_whole: bool = True) -> None:
        super().__init__(notice.text)
        self.notice = notice
        self.is_whole = is_whole


def cut(text: str, length: int = _TEXT_SHOWN) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def line(*words: str) -> str:
    """A line to copy."""
    return cut(" ".join(["/ota", *(word for word in words if word)]), LINE_LENGTH)


def wrong(usage: str, why: str, *mended: str) -> Misread:
    """A line of a verb that is known, with what it should look like."""
    return Misread(Notice(f"{why} Nothing was done.", (*mended, f"/ota {usage}")), is_whole=bool(mended))


def unknown_verb(words: Sequence[str], operations: Operations) -> Misread:
    verbs = (*operations.verbs(), RESUME, HELP)
    head = f"There is no /ota {cut(words[0])}."
    if words[0].casefold() in _STOPPING:
        stops = [operation for operation in operations.by_name.values() if operation.is_stop]
        lines = tuple(f"{line(each.verb, *words[1:])}\n    {each.help}" for each in stops)
        return Misread(Notice(f"{head} Which of these do you mean? Nothing was done.", lines))
    meant = nearest_verb(words, verbs)
    if meant is None:
        return Misread(Notice(f"{head} Nothing was done.", (f"I know: {', '.join(verbs)}.",)))
    verb, length = meant
    return Misread(Notice(f"{head} Did you mean {verb}? Nothing was done.", (line(verb, *words[length:]),)))


def nearest_verb(words: Sequence[str], verbs: Iterable[str]) -> tuple[str, int] | None:
    """The verb that these words nearly begin with, also turned round, and how many words that takes."""
    known = tuple(verbs)
    first, *more = (word.casefold() for word in words[:_VERB_WORDS])
    if more:
        long = [verb for verb in known if " " in verb]
        if f"{more[0]} {first}" in long:
            return f"{more[0]} {first}", _VERB_WORDS
        if near := difflib.get_close_matches(f"{first} {more[0]}", long, n=1, cutoff=0.85):
            return near[0], _VERB_WORDS
    near = difflib.get_close_matches(first, [verb for verb in known if " " not in verb], n=1)
    return (near[0], 1) if near else None


def misspelt_verb(words: Sequence[str], operations: Operations) -> Misread | None:
    """A verb of two words whose beginning is a verb by itself (`halt firmwre`, `firmware halt`)."""
    meant = nearest_verb(words, [verb for verb in operations.verbs() if " " in verb])
    if meant is None:
        return None
    verb, length = meant
    typed = " ".join(words[:length])
    return Misread(
        Notice(f"There is no /ota {cut(typed)}. Did you mean {verb}? Nothing was done.", (line(verb, *words[length:]),))
    )


def unknown_flag(operation: Operation, flag: str, typed: Sequence[str]) -> Misread:
    flags = [param.flag for param in operation.params if param.flag]
    if operation.kind is Kind.CHANGE:
        flags.append("dry-run")
    return _unknown_word(operation, f"--{flag}", [f"--{each}" for each in flags], typed)


def unknown_state(operation: Operation, word: str, typed: Sequence[str]) -> Misread:
    """A word where a switch may be typed without its dashes."""
    return _unknown_word(operation, word, [param.flag for param in operation.params], typed)


def _unknown_word(operation: Operation, word: str, known: Sequence[str], typed: Sequence[str]) -> Misread:
    near = difflib.get_close_matches(word.casefold(), known, n=1)
    why = f"There is no {cut(word)} here."
    if not near:
        return wrong(operation.usage, why)
    mended = [near[0] if _bare(each) == _bare(word) else each for each in typed]
    return wrong(operation.usage, f"{why} Did you mean {near[0]}?", line(*mended))


def _bare(word: str) -> str:
    return word.casefold().lstrip("-").replace("_", "-")


def no_number(operation: Operation, param: Param, word: str | None) -> Misread:
    low, high = param.takes or (0, 0)
    said = f"--{param.flag}" if param.flag else "After the job"
    what = f"{said} takes a whole number from {low:,} to {high:,}"
    if not param.flag:
        what = f"{said} comes a whole number from {low:,} to {high:,}: {param.help}"
    return wrong(operation.usage, f"{what}." if word is None else f"{what}, not {cut(word)}.")


_WHICH = {
    Subject.JOB: "Which job?",
    Subject.FIRMWARE: "Which firmware? Its id, or its version.",
    Subject.DEVICES: "Which product, and which devices?",
}


def nothing_named(operation: Operation) -> Misread:
    return wrong(operation.usage, _WHICH[operation.subject])


def no_name(operation: Operation, word: str) -> Misread:
    return wrong(operation.usage, f"{cut(word)} is not a name that the cloud or the policy uses.")


def too_many_words(operation: Operation, words: Sequence[str], *, allowed: int) -> Misread:
    """Most often a reason without its because, or one that is misspelt."""
    known, rest = words[:allowed], list(words[allowed:])
    said = f"I can't tell what {cut(repr(' '.join(rest)))} means."
    if difflib.get_close_matches(rest[0].casefold(), ["because"], n=1):
        rest = rest[1:]
    if operation.kind is Kind.READ:
        return wrong(operation.usage, said, line(operation.verb, *known))
    mended = line(operation.verb, *known, "because", *rest)
    return Misread(Notice(f"{said} If it is the reason, say so; nothing was done.", (mended,)))


def too_many_devices(operation: Operation, product: str, devices: Sequence[str], *, most: int) -> Misread:
    lines = [line(operation.verb, product, *devices[at : at + most]) for at in range(0, len(devices), most)]
    return wrong(operation.usage, f"At most {most} devices at once, and these are {len(devices)}.", *lines)


def no_proposal_id() -> Misread:
    why = f"After {RESUME} comes the id of a change that was not done to its end, as its last line says it."
    return wrong(RESUME_USAGE, why)


def help_on_resume() -> Notice:
    said = "Do what is left of a change that ended before all of it was done; it is asked for anew, and confirmed anew."
    return Notice(f"/ota {RESUME_USAGE}", (said,))

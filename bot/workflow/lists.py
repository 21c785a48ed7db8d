"""Lists of what discovery has found, in words: values in, a `Notice` out.

Everything in them is "as of", and says so; whatever somebody then acts on is read anew from the cloud. Plain text only.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

from bot.model import Firmware, Job, Notice
from bot.ports import FoundFirmware, FoundJob
from bot.workflow.figures import OVER, job_line, state_words

Item = TypeVar("Item", FoundJob, FoundFirmware)
Looks = Mapping[str, datetime | None]

SHOWN = 20
"""The most rollouts, or packages, that a list shows."""

FETCHED = 500
"""As many as the port gives: of a list of that length there may be more."""

LATE = timedelta(minutes=5)
"""An older look is called old."""

_RUNNING_SHOWN = 3
_MISSING = (
    "A rollout that began lately, or whose firmware is not among the newest, may be missing here: "
    "/ota status <job> asks the cloud itself."
)


def job_lines(
    found: Sequence[FoundJob],
    *,
    word: str = "",
    now: datetime,
    firmware: Sequence[FoundFirmware] = (),
    instances: Collection[str] = (),
) -> Notice:
    """The rollouts, running ones first and then the newest; with `word`, those of a product, a firmware or a version.

    `firmware` tells how fresh the look is where no rollout was found, `instances` are those that were asked about.
    """
    looks = _looks([*found, *firmware], instances)
    if not any(looks.values()):
        return _nothing_yet("rollout", instances)
    matching = _matching(found, word, _words_of_job)
    if not matching:
        return _no_match("rollout", word, (_words_of_job(each) for each in found), looks, now)
    ordered = sorted(matching, key=_running_then_newest)
    running = sum(_is_running(each) for each in ordered)
    text = f"{_many(running, 'running rollout')}, {len(ordered) - running:,} over, {_as_of(looks, now)}:"
    shown = [_job_line(each, looks[each.instance], now) for each in ordered[:SHOWN]]
    return Notice(text, (*shown, *_left_out(ordered, found), *_old_looks(looks, now), _MISSING))


def firmware_lines(
    found: Sequence[FoundFirmware],
    *,
    word: str = "",
    now: datetime,
    jobs: Sequence[FoundJob] = (),
    instances: Collection[str] = (),
) -> Notice:
    """The packages, the newest first, each with its running rollouts; with `word`, those of a product or a version."""
    looks = _looks([*found, *jobs], instances)
    if not any(looks.values()):
        return _nothing_yet("firmware", instances)
    matching = _matching(found, word, _words_of_firmware)
    if not matching:
        return _no_match("firmware", word, (_words_of_firmware(each) for each in found), looks, now)
    ordered = sorted(matching, key=lambda each: (*_newest(each.firmware.created_at), each.firmware.firmware_id))
    running = [each for each in sorted(jobs, key=_running_then_newest) if _is_running(each)]
    shown = [_firmware_line(each, running) for each in ordered[:SHOWN]]
    text = f"{_many(len(ordered), 'update package')}, {_as_of(looks, now)}:"
    return Notice(text, (*shown, *_left_out(ordered, found), *_old_looks(looks, now), _MISSING))


def ago(at: datetime, now: datetime) -> str:
    """How long ago, in the unit that people would use."""
    seconds = max(0, int((now - at).total_seconds()))
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def _looks(found: Iterable[FoundJob | FoundFirmware], instances: Collection[str]) -> Looks:
    """When each instance was last looked at; None: never yet."""
    looks: dict[str, datetime | None] = dict.fromkeys(instances)
    for each in found:
        last = looks.get(each.instance)
        looks[each.instance] = each.seen_at if last is None else max(last, each.seen_at)
    return looks


def _as_of(looks: Looks, now: datetime) -> str:
    """As of the oldest of the looks that are not late; those that are have a line of their own."""
    seen = [at for at in looks.values() if at is not None]
    return f"as of {_at(min([at for at in seen if now - at <= LATE] or seen), now)}"


def _at(at: datetime, now: datetime) -> str:
    day = "" if at.date() == now.date() else f"{at:%Y-%m-%d} "
    return f"{day}{at:%H:%M:%S} UTC ({ago(at, now)})"


def _old_looks(looks: Looks, now: datetime) -> list[str]:
    lines = []
    for instance, at in sorted(looks.items()):
        if at is None:
            lines.append(f"Nothing is known of {instance} yet.")
        elif now - at > LATE:
            lines.append(f"{instance} could not be looked at since {_at(at, now)}: what stands here of it may be over.")
    return lines


def _nothing_yet(what: str, instances: Collection[str]) -> Notice:
    """There may be none, none that this person may see, or no look may have succeeded: only the log knows which."""
    where = f" on {', '.join(sorted(instances))}" if instances else ""
    hint = "I look about once a minute. If this stays so and should not, the log says what the cloud answers."
    return Notice(f"I know of no {what}{where} yet.", (hint, _MISSING))


def _no_match(what: str, word: str, words: Iterable[Iterable[str]], looks: Looks, now: datetime) -> Notice:
    known = {each.casefold(): each for some in words for each in some}
    near = difflib.get_close_matches(word.casefold(), known, n=1) if word else []
    hint = (f"Did you mean {known[near[0]]}?",) if near else ()
    of = f" of {word}" if word else ""
    return Notice(f"I know of no {what}{of}, {_as_of(looks, now)}.", (*hint, *_old_looks(looks, now), _MISSING))


def _matching(found: Sequence[Item], word: str, words: Callable[[Item], Iterable[str]]) -> list[Item]:
    """Those that the word names, or failing that, those with a name that begins so."""
    wanted = word.casefold()
    if not wanted:
        return list(found)
    exactly = [each for each in found if any(name.casefold() == wanted for name in words(each))]
    return exactly or [each for each in found if any(name.casefold().startswith(wanted) for name in words(each))]


def _words_of_job(found: FoundJob) -> tuple[str, ...]:
    job = found.job
    return _given(job.product, job.firmware_id, job.firmware, job.dest_version, job.job_id)


def _words_of_firmware(found: FoundFirmware) -> tuple[str, ...]:
    firmware = found.firmware
    return _given(firmware.product, firmware.firmware_id, firmware.name, firmware.dest_version)


def _given(*words: str) -> tuple[str, ...]:
    return tuple(word for word in words if word)


def _is_running(found: FoundJob) -> bool:
    return found.job.state not in OVER


def _newest(created_at: datetime | None) -> tuple[bool, float]:
    return created_at is None, -created_at.timestamp() if created_at is not None else 0.0


def _running_then_newest(found: FoundJob) -> tuple[object, ...]:
    return not _is_running(found), *_newest(found.job.created_at), found.job.job_id


def _job_line(found: FoundJob, look: datetime | None, now: datetime) -> str:
    """All that is needed to act on it. A rollout that is over stays so; one that ran may not run any more."""
    job = found.job
    parts = [f"{job.job_id} on {found.instance}: {state_words(job.state)}", job_line(job), _created(job)]
    if _is_running(found) and look is not None and look - found.seen_at > LATE:
        parts.append(f"last seen {_at(found.seen_at, now)}")
    return " · ".join(part for part in parts if part)


def _firmware_line(found: FoundFirmware, running: Sequence[FoundJob]) -> str:
    firmware = found.firmware
    versions = " → ".join(_given(firmware.src_version, firmware.dest_version))
    product = f"product {firmware.product}" if firmware.product else ""
    here = [
        each.job.job_id
        for each in running
        if (each.instance, each.job.firmware_id) == (found.instance, firmware.firmware_id)
    ]
    more = f" and {len(here) - _RUNNING_SHOWN:,} more" if len(here) > _RUNNING_SHOWN else ""
    runs = f"running: {', '.join(here[:_RUNNING_SHOWN])}{more}" if here else "nothing runs"
    return f"{firmware.firmware_id} on {found.instance}: " + " · ".join(
        _given(firmware.name, versions, product, _created(firmware), runs)
    )


def _created(made: Job | Firmware) -> str:
    return f"created {made.created_at:%Y-%m-%d %H:%M} UTC" if made.created_at is not None else ""


def _left_out(ordered: Sequence[object], found: Sequence[object]) -> tuple[str, ...]:
    more = len(ordered) - SHOWN
    if more <= 0:
        return ()
    at_least = "at least " if len(found) >= FETCHED else ""
    return (f"… and {at_least}{more:,} more: name a product, a firmware or a version to see fewer.",)


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"

"""Has a curve drawn: how numbers moved over time, as a PNG.

The plotting library is heavy and is never imported by the bot: a child process draws (`painting`: JSON on stdin, PNG on
stdout) and is ended when it takes too long. It is given none of our settings, so it holds no secret. A number that is
not known is a gap, never a zero. What it does not do: word anything, or bound how many pictures are drawn at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from bot.errors import OtabrakeError

MAX_SECONDS = 20.0
MAX_PICTURE_BYTES = 8 * 2**20
MAX_COMPLAINT_BYTES = 4096
MAX_STRETCHES = 200
"""A long curve is thinned to so many stretches; the lowest and the highest value in each stay."""
MAX_TITLE, MAX_NAME = 80, 16

Values = tuple[int | None, ...]


class ChartFailed(OtabrakeError):
    """There is no picture; the text is a sentence that says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Moments (aware, in order) and what each series counted at them; None is unknown. `marks` are named moments."""

    title: str
    times: tuple[datetime, ...]
    series: Mapping[str, Values]
    marks: tuple[tuple[datetime, str], ...] = ()

    def __post_init__(self) -> None:
        if any(moment.tzinfo is None for moment in (*self.times, *(at for at, _ in self.marks))):
            raise ValueError("a moment without a time zone")
        if list(self.times) != sorted(self.times):
            raise ValueError("the moments are not in order")
        if any(len(values) != len(self.times) for values in self.series.values()):
            raise ValueError("a series needs one value for each moment")


def has_curve(curve: Curve) -> bool:
    """Whether there is something to see: three different moments with a known value, and a value that changed."""
    seen = {
        moment
        for place, moment in enumerate(curve.times)
        if any(values[place] is not None for values in curve.series.values())
    }
    return len(seen) >= 3 and any(len(set(values) - {None}) > 1 for values in curve.series.values())


async def draw(curve: Curve, *, seconds: float = MAX_SECONDS) -> bytes:
    """The picture, 1200 x 675 pixels. Raises `ChartFailed`; a child that is not done in time is killed and reaped."""
    order = json.dumps(_order(curve)).encode()
    try:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-P", "-W", "ignore", "-m", "bot.painting"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_surroundings(),
        )
    except OSError as error:
        raise ChartFailed(f"The process that draws could not be started ({error.strerror}).") from error
    try:
        async with asyncio.timeout(seconds):
            return await _drawn_by(child, order)
    except TimeoutError:
        raise ChartFailed(f"Drawing took longer than {seconds:g} seconds.") from None
    finally:
        await _reap(child)


async def _drawn_by(child: asyncio.subprocess.Process, order: bytes) -> bytes:
    assert child.stdin and child.stdout and child.stderr  # noqa: S101, PT018 (all three were asked for)
    picture, complaint, _ = await asyncio.gather(
        _read(child.stdout, MAX_PICTURE_BYTES), _read(child.stderr, MAX_COMPLAINT_BYTES), _feed(child.stdin, order)
    )
    status = await child.wait()
    if status == 0 and picture.startswith(b"\x89PNG\r\n\x1a\n"):
        return picture
    last = complaint.decode(errors="replace").strip().rpartition("\n")[2][:200]
    raise ChartFailed(
        f"The process that draws ended with status {status} and without a picture ({last or 'silently'})."
    )


async def _read(stream: asyncio.StreamReader, most: int) -> bytes:
    """What comes, to its end; of more than `most` bytes only the last are kept."""
    kept = b""
    while chunk := await stream.read(65536):
        kept = (kept + chunk)[-most:]
    return kept


async def _feed(stream: asyncio.StreamWriter, order: bytes) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stream.write(order)
        await stream.drain()
        stream.close()
        await stream.wait_closed()


async def _reap(child: asyncio.subprocess.Process) -> None:
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await asyncio.shield(child.wait())


def _surroundings() -> dict[str, str]:
    """The child finds what we find, and a home for its list of fonts; nothing else of ours is its business."""
    found = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "MPLBACKEND": "agg"}
    with contextlib.suppress(RuntimeError):
        found["HOME"] = str(Path.home())
    return found


def _order(curve: Curve) -> dict[str, object]:
    """The curve as JSON, thinned; moments are seconds since 1970."""
    kept = _thinned(curve)
    return {
        "title": _cut(curve.title, MAX_TITLE),
        "times": [curve.times[place].timestamp() for place in kept],
        "series": [[_cut(name, MAX_NAME), [values[place] for place in kept]] for name, values in curve.series.items()],
        "marks": [[at.timestamp(), _cut(label, MAX_NAME)] for at, label in curve.marks],
    }


def _thinned(curve: Curve) -> list[int]:
    """The places to draw: all of a short curve; of a long one each stretch's ends, lowest, highest and unknown."""
    count = len(curve.times)
    if count <= 2 * MAX_STRETCHES:
        return list(range(count))
    kept: set[int] = set()
    for stretch in range(MAX_STRETCHES):
        places = range(count * stretch // MAX_STRETCHES, count * (stretch + 1) // MAX_STRETCHES)
        kept |= {places[0], places[-1]}
        for values in curve.series.values():
            kept.update(_telling(values, places))
    return sorted(kept)


def _telling(values: Values, places: range) -> Iterator[int]:
    """Where a series is lowest, highest and unknown within a stretch."""
    known = [(value, place) for place in places if (value := values[place]) is not None]
    if known:
        yield min(known)[1]
        yield max(known)[1]
    if len(known) < len(places):
        yield next(place for place in places if values[place] is None)


def _cut(text: str, most: int) -> str:
    shown = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"

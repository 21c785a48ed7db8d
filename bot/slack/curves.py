"""How the devices of a batch moved over time, as a picture with its words.

What it does not do: draw (`charts`), or read what was counted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from bot.charts import Curve, draw, has_curve
from bot.exchange import File
from bot.model import Counts, TaskState
from bot.ports import Reading
from bot.proposals import Proposal
from bot.workflow.figures import movement_line

STATE_NAMES = {
    TaskState.CONFIRM: "Unconfirmed",
    TaskState.QUEUED: "Queued",
    TaskState.NOTIFIED: "Notified",
    TaskState.IN_PROGRESS: "In progress",
    TaskState.SUCCEEDED: "New version",
    TaskState.FAILED: "Failed",
    TaskState.CANCELED: "Cancelled",
}
"""Short names, in the words of cards and replies."""

Draw = Callable[[Curve], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Picture:
    """A PNG; `alt_text` says what is to be seen on it, `as_of` is its last moment."""

    content: bytes
    title: str
    alt_text: str
    as_of: datetime


async def picture_of(
    file: File, readings: Sequence[Reading], about: Proposal | None, *, draw: Draw = draw
) -> Picture | None:
    """The picture, or None if there is nothing to see. Raises `ChartFailed`."""
    counts = counts_since(file, readings, about)
    curve = Curve(
        title=f"Devices of rollout {file.target.job} by state",
        times=tuple(each.read_at for each in counts),
        series={name: tuple(each.by_state.get(state) for each in counts) for state, name in STATE_NAMES.items()},
        marks=marks_of(about),
    )
    if not has_curve(curve):
        return None
    alt_text = f"{curve.title}. {movement_line(counts[0], counts[-1])}"
    return Picture(await draw(curve), curve.title, alt_text, counts[-1].read_at)


def counts_since(file: File, readings: Sequence[Reading], about: Proposal | None) -> list[Counts]:
    """What was counted over time, from just before the call on, where that is known."""
    counts = sorted((reading.counts for reading in readings), key=lambda each: each.read_at)
    before = about.baseline.get(file.target.job) if about is not None else None
    is_first = before is not None and (not counts or before.read_at <= counts[0].read_at)
    return [before, *counts] if before is not None and is_first else counts


def marks_of(about: Proposal | None) -> tuple[tuple[datetime, str], ...]:
    """What people and the cloud did meanwhile."""
    if about is None:
        return ()
    marks = ((about.approved_at, "confirmed"), (about.followed_from, "accepted"))
    return tuple((at, label) for at, label in marks if at is not None)

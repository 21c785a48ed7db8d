"""The child process that draws for `charts`: an order as JSON on stdin, a PNG of 1200 x 675 pixels on stdout.

Made for a tired person on a phone: a line for each series with its name and last value at its end, times in UTC, a
named line where something happened. Colours are told apart by colour-blind people (after Okabe and Ito) and each line
has its dashes too. Unknown values are gaps, series that stayed at zero are named below instead of drawn. Text is never
markup. What it does not do: use pyplot or any global state, or read files but the library's own and fonts.

https://matplotlib.org/stable/users/explain/figure/backends.html
"""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

WIDTH, HEIGHT, DOTS_PER_INCH = 1200, 675, 200
LEFT, RIGHT, BOTTOM, TOP = 0.115, 0.715, 0.2, 0.78
COLOURS = ("#6b6b6b", "#0072b2", "#a87900", "#d55e00", "#00875f", "#000000", "#aa3f92", "#2f9fe0")
DASHES = ("-", "--", "-.", "-", "--", ":", "-", "-.")
FONTS = ("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans SC", "WenQuanYi Zen Hei", "PingFang SC", "Microsoft YaHei")
INK, QUIET, FAINT = "#1c1f23", "#5d646c", "#dfe2e6"
LABEL_POINTS, SMALL_POINTS = 8.0, 7.0
LABEL_GAP = 29
"""Pixels from one label to the next."""
STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)
"""Seconds between the times that are written below."""


@dataclass(frozen=True, slots=True)
class Line:
    """One series: its place decides its looks; `values` has a gap (NaN) where nothing is known."""

    place: int
    name: str
    values: tuple[float, ...]

    @property
    def known(self) -> list[int]:
        return [at for at, value in enumerate(self.values) if not math.isnan(value)]

    @property
    def alone(self) -> list[int]:
        """Known places without a known neighbour: a line does not show them, a dot must."""
        known = set(self.known)
        return [at for at in sorted(known) if at - 1 not in known and at + 1 not in known]

    @property
    def colour(self) -> str:
        return COLOURS[self.place % len(COLOURS)]

    @property
    def ending(self) -> str:
        """Its name and what it stands at, if that is known."""
        last = self.values[-1]
        return f"{self.name}: unknown" if math.isnan(last) else f"{self.name} {last:,.0f}"


def main() -> None:
    sys.stdout.buffer.write(picture(json.load(sys.stdin.buffer)))


def picture(order: Mapping[str, Any]) -> bytes:
    figure = Figure(figsize=(WIDTH / DOTS_PER_INCH, HEIGHT / DOTS_PER_INCH), dpi=DOTS_PER_INCH, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((LEFT, BOTTOM, RIGHT - LEFT, TOP - BOTTOM))
    times: list[float] = order["times"]
    marks: list[tuple[float, str]] = order["marks"]
    lines = [
        Line(place, name, tuple(math.nan if value is None else float(value) for value in values))
        for place, (name, values) in enumerate(order["series"])
    ]
    shown = [line for line in lines if any(line.values[at] for at in line.known)]
    _set_heights(axes, shown)
    _set_times(figure, axes, [*times, *(at for at, _ in marks)])
    for line in shown:
        axes.plot(
            times,
            line.values,
            color=line.colour,
            linestyle=DASHES[line.place % len(DASHES)],
            linewidth=2,
            marker="o",
            markersize=4,
            markevery=line.alone,
            clip_on=False,
        )
    _name_lines(figure, axes, times, shown)
    _name_marks(figure, axes, marks)
    if not any(line.known for line in lines):
        _write(figure, (LEFT + RIGHT) / 2, (BOTTOM + TOP) / 2, "nothing is known", points=LABEL_POINTS, ha="center")
    _fit(_write(figure, 0.015, 0.945, order["title"], points=10.5, weight="bold"), most=WIDTH * 0.97)
    _fit(_write(figure, 0.015, 0.035, _not_shown(lines), points=SMALL_POINTS, color=QUIET), most=WIDTH * 0.97)
    kept = io.BytesIO()
    figure.savefig(kept, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
    return kept.getvalue()


def _set_heights(axes: Axes, lines: Sequence[Line]) -> None:
    highest = max((line.values[at] for line in lines for at in line.known), default=0.0)
    axes.set_ylim(0, max(1.0, highest) * 1.05)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=LABEL_POINTS, labelcolor=INK, color=FAINT, labelfontfamily=_fonts())
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(QUIET)


def _set_times(figure: Figure, axes: Axes, moments: Sequence[float]) -> None:
    if not moments:
        axes.set_xticks([])
        return
    first, last = min(moments), max(moments)
    margin = (last - first) * 0.01 or 30.0
    axes.set_xlim(first - margin, last + margin)
    span = last - first
    step = next((one for one in STEPS if span / one <= 5), 86_400 * math.ceil(span / 86_400 / 5))
    form = "%H:%M:%S" if step < 60 else "%H:%M" if span < 86_400 else "%m-%d %H:%M"
    axes.xaxis.set_major_locator(
        FixedLocator([at * step for at in range(math.ceil(first / step), int(last / step) + 1)])
    )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda moment, _: f"{datetime.fromtimestamp(moment, UTC):{form}}"))
    days = sorted({f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d}" for moment in (first, last)})
    _write(figure, LEFT, 0.092, f"UTC, {' to '.join(days)}", points=SMALL_POINTS, color=QUIET)


def _name_lines(figure: Figure, axes: Axes, times: Sequence[float], lines: Sequence[Line]) -> None:
    """Each line's name and last value to the right of it, moved apart where ends are close."""
    ends = sorted(((_end(axes, times, line), line) for line in lines), key=lambda end: (end[0][1], -end[1].place))
    heights: list[float] = []
    for (_, height), _ in ends:
        heights.append(max(height, heights[-1] + LABEL_GAP if heights else 0.0))
    highest = HEIGHT * TOP + LABEL_GAP
    for place in reversed(range(len(heights))):
        heights[place] = min(heights[place], highest)
        highest = heights[place] - LABEL_GAP
    for ((right, from_height), line), height in zip(ends, heights, strict=True):
        label = _write(
            figure, RIGHT + 0.03, height / HEIGHT, line.ending, points=LABEL_POINTS, color=line.colour, weight="bold"
        )
        _fit(label, most=WIDTH * (0.965 - RIGHT))
        leader = axes.plot(
            [max(right / WIDTH, RIGHT - 0.01), RIGHT + 0.024],
            [from_height / HEIGHT, height / HEIGHT],
            color=line.colour,
            linewidth=0.6,
            alpha=0.5,
            transform=figure.transFigure,
            clip_on=False,
        )
        leader[0].set_zorder(1)


def _end(axes: Axes, times: Sequence[float], line: Line) -> tuple[float, float]:
    """Where the last known value stands, in pixels from the left and from below."""
    at = line.known[-1]
    right, height = axes.transData.transform((times[at], line.values[at]))
    return float(right), float(height)


def _name_marks(figure: Figure, axes: Axes, marks: Sequence[tuple[float, str]]) -> None:
    """A vertical line for each mark and its name above, a row higher where names would meet."""
    taken: list[float] = []
    for moment, label in sorted(marks):
        axes.axvline(moment, color=INK, linewidth=0.9, linestyle=(0, (2, 2)))
        left = float(axes.transData.transform((moment, 0.0))[0])
        written = _write(figure, left / WIDTH, TOP + 0.03, label, points=SMALL_POINTS)
        width = written.get_window_extent().width
        if left + width > WIDTH * 0.985:
            written.set_horizontalalignment("right")
            left -= width
        row = next((at for at, end in enumerate(taken) if end < left), len(taken))
        taken[row : row + 1] = [left + width + 12]
        written.set_y(TOP + 0.03 + 0.045 * min(row, 2))


def _not_shown(lines: Sequence[Line]) -> str:
    always_zero = [line.name for line in lines if line.known and not any(line.values[at] for at in line.known)]
    unknown = [line.name for line in lines if not line.known]
    said = [("always 0: ", always_zero), ("never known: ", unknown)]
    return "   ".join(f"{what}{', '.join(names)}" for what, names in said if names)


def _write(figure: Figure, across: float, up: float, text: str, *, points: float, **looks: Any) -> Text:
    """Text as it is, dollar signs and backslashes too; `across` and `up` are parts of the picture."""
    return figure.text(
        across,
        up,
        text,
        **{"fontsize": points, "color": INK, "va": "center", **looks},
        family=_fonts(),
        parse_math=False,
    )


def _fit(text: Text, *, most: float) -> None:
    """Makes text smaller until it is no wider than so many pixels."""
    while (width := text.get_window_extent().width) > most:
        text.set_fontsize(0.98 * float(text.get_fontsize()) * most / width)


def _fonts() -> list[str]:
    """The fonts there are of those that we ask for: the first comes with the library, the others have Chinese."""
    there = set(fontManager.get_font_names())
    return [name for name in FONTS if name in there]


if __name__ == "__main__":
    main()

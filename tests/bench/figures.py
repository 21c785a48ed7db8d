"""Figures: medians, ratios taken round by round, and goals that are compared with them. Pure, apart from printing."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Goal:
    """What a ratio should be: at most or at least `ratio`. A stretch is wished for, not promised."""

    ratio: float
    is_at_most: bool = True
    is_stretch: bool = False

    def is_met(self, measured: float) -> bool:
        return measured <= self.ratio if self.is_at_most else measured >= self.ratio

    def verdict(self, measured: float) -> str:
        sign = "≤" if self.is_at_most else "≥"
        kind = "stretch " if self.is_stretch else ""
        return f"{kind}{sign} {self.ratio:g}×: {'met' if self.is_met(measured) else 'NOT MET'}"


def at_most(ratio: float) -> Goal:
    return Goal(ratio)


def at_least(ratio: float, *, is_stretch: bool = False) -> Goal:
    return Goal(ratio, is_at_most=False, is_stretch=is_stretch)


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def row(name: str, values: Sequence[float], *, unit: str) -> tuple[str, ...]:
    """One measured figure: the median over the rounds, with the range."""
    return name, f"{spelt(median(values))} {unit}", f"{spelt(min(values))}–{spelt(max(values))}"


def ratio_row(name: str, ours: Sequence[float], theirs: Sequence[float], goal: Goal | None = None) -> tuple[str, ...]:
    """The median of the ratios of each round, their range, and the goal if there is one."""
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    middle = median(ratios)
    spread = f"{spelt(min(ratios))}–{spelt(max(ratios))}"
    return name, f"{spelt(middle)}×", spread, goal.verdict(middle) if goal else ""


def print_table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table in Markdown."""
    full = [[*each, *[""] * (len(heads) - len(each))] for each in rows]
    widths = [max(len(line[at]) for line in [heads, *full]) for at in range(len(heads))]
    print(f"\n{title}\n")
    for line in (heads, ["-" * width for width in widths], *full):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")
    print(flush=True)


def spelt(value: float) -> str:
    """Three digits, more or less."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"

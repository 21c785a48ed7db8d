"""A number of devices at every moment, and a moment for every device: stretches of even steps.

`at(n)` is when the turn of device `n` comes, `reached(now)` the first device whose turn has not come: each is the
inverse of the other, without rounding between them. Both take the same time for ten devices and for a million.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stretch:
    """Devices from `first` on: the first one's turn at `at`, then one a `step` (0: all at once)."""

    first: int
    at: float
    step: float


class Line:
    """Stretches one after another, for devices up to `end`. Turns never come earlier for a higher number."""

    def __init__(self, stretches: Sequence[Stretch], end: int) -> None:
        self.stretches = [stretch for stretch in stretches if stretch.first < end]
        self.end = end
        self._firsts = [stretch.first for stretch in self.stretches]
        self._ats = [stretch.at for stretch in self.stretches]

    def at(self, number: int) -> float:
        stretch = self.stretches[bisect_right(self._firsts, number) - 1]
        return stretch.at + (number - stretch.first) * stretch.step

    def reached(self, now: float) -> int:
        place = bisect_right(self._ats, now) - 1
        if place < 0:
            return self._firsts[0] if self._firsts else self.end
        stretch = self.stretches[place]
        first, at, step = stretch.first, stretch.at, stretch.step
        last = self._firsts[place + 1] if place + 1 < len(self._firsts) else self.end
        if step == 0 or now >= at + (last - 1 - first) * step:
            return last
        found = first + int((now - at) / step) + 1
        while at + (found - first) * step <= now:
            found += 1
        while at + (found - 1 - first) * step > now:
            found -= 1
        return found

    def changed_from(self, number: int, stretches: Sequence[Stretch]) -> Line:
        """The same line for the devices before `number`, and `stretches` from there on."""
        return Line([*(stretch for stretch in self.stretches if stretch.first < number), *stretches], self.end)

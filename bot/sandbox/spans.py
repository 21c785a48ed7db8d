"""Evenly spaced numbers, and finding a page of many such spans together without going through what comes before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import islice

_NEAR = 100
"""So many numbers before a page are walked over rather than searched through."""


@dataclass(frozen=True, slots=True)
class Span:
    """The numbers `first`, `first + step` … below `end`."""

    first: int
    end: int
    step: int

    @property
    def numbers(self) -> range:
        return range(self.first, self.end, self.step)

    def below(self, number: int) -> int:
        """How many are lower than `number`."""
        return max(0, (min(self.end, number) - self.first + self.step - 1) // self.step)


def ranked(spans: Sequence[Span], first: int, last: int) -> list[int]:
    """Those in places `first` to `last` (not included) of all numbers, which are different, in rising order."""
    start, before = _start(spans, first)
    rest = [span.numbers[span.below(start) :] for span in spans]
    return list(islice(merge(*rest), first - before, last - before))


def _start(spans: Sequence[Span], first: int) -> tuple[int, int]:
    """A number close before place `first`, and how many are lower: numbers lie evenly, so a guess is soon near."""
    low, high = min(span.first for span in spans), max(span.end for span in spans)
    before, until = 0, sum(len(span.numbers) for span in spans)
    turn = 0
    while first - before > _NEAR:
        turn += 1
        share = 0.5 if turn % 4 == 0 else (first - _NEAR / 2 - before) / (until - before)
        guess = min(high - 1, low + max(1, int((high - low) * share)))
        lower = sum([span.below(guess) for span in spans])
        if lower <= first:
            low, before = guess, lower
        else:
            high, until = guess, lower
    return low, before

"""The arithmetic of vast rollouts: bands of devices that are made and notified along a line each, and spans in them.

Each device follows one of a few profiles: delays after it was made, and from NOTIFIED on after it was notified. Every
time is monotone in the device's number, so that the devices of a profile that are in one state are neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, inf

from bot.model import OPEN_STATES, JobKind, TaskState
from bot.sandbox.courses import Course, Cut, Task
from bot.sandbox.facts import Facts
from bot.sandbox.lines import Line, Stretch
from bot.sandbox.spans import Span


@dataclass(frozen=True, slots=True)
class Profile:
    """What a device does. The first `untold` delays count from when it was made, the others from when it was told."""

    number: int
    states: tuple[TaskState, ...]
    delays: tuple[float, ...]
    untold: int
    confirm_seconds: float
    ends_after: float
    ignores: bool
    failure: str

    @classmethod
    def of(cls, task: Task) -> Profile:
        """The profile of a task that was planned for moment 0."""
        untold = sum(1 for _, state in task.moves if state in (TaskState.CONFIRM, TaskState.QUEUED))
        confirm = task.moves[untold - 1][0]
        return cls(
            number=task.number,
            states=tuple(state for _, state in task.moves),
            delays=tuple(at - (0 if place < untold else confirm) for place, (at, _) in enumerate(task.moves)),
            untold=untold,
            confirm_seconds=confirm,
            ends_after=task.ends_at - confirm,
            ignores=task.ignores,
            failure=task.failure,
        )

    def times(self, made_at: float, told_at: float) -> list[float]:
        """When a device enters each state."""
        told_at = max(told_at, made_at + self.confirm_seconds)
        return [(made_at if place < self.untold else told_at) + delay for place, delay in enumerate(self.delays)]


@dataclass(frozen=True, slots=True)
class Piece:
    """Devices of one profile from `first` below `end`, closed together at `cut_at` if that is not infinite."""

    first: int
    end: int
    cut_at: float = inf
    state: TaskState = TaskState.CANCELED


class Band:
    """Devices that are made along one line and told along another."""

    def __init__(self, profiles: Sequence[Profile], made: Line, told: Line, *, first: int) -> None:
        self._profiles = profiles
        self._made = made
        self._told = told
        self._stop = made.end
        self.first = first
        self.end = made.end
        self._pieces: list[tuple[Piece, ...]] = [(Piece(first, self.end),) for _ in profiles]

    def existing(self, now: float) -> int:
        """The first device that was not made by `now`."""
        return min(self._made.reached(now), self._stop)

    def count(self, now: float, counts: dict[TaskState, int]) -> None:
        """Adds how many devices are in each state."""
        step = len(self._profiles)
        for profile, pieces, bounds in self._bounded(now):
            shift = step - 1 - profile.number
            for piece in pieces:
                low, high = piece.first, piece.end
                if now >= piece.cut_at:
                    counts[piece.state] += (high + shift) // step - (low + shift) // step
                    continue
                for place, state in enumerate(profile.states):
                    top, bottom = bounds[place], bounds[place + 1]
                    top, bottom = high if top > high else top, low if bottom < low else bottom
                    if top > bottom:
                        counts[state] += (top + shift) // step - (bottom + shift) // step

    def spans(self, now: float, state: TaskState) -> Iterator[Span]:
        """Where the devices are that are in `state`."""
        for profile, pieces, bounds in self._bounded(now):
            places = [place for place, each in enumerate(profile.states) if each is state]
            for piece in pieces:
                if now >= piece.cut_at:
                    found = [(piece.first, piece.end)] if piece.state is state else []
                else:
                    found = [(max(piece.first, bounds[at + 1]), min(piece.end, bounds[at])) for at in places]
                for low, high in found:
                    if (span := self._span(profile, low, high)).first < span.end:
                        yield span

    def task(self, number: int, name: str) -> Task:
        """The device as a task of its own."""
        profile = self._profiles[number % len(self._profiles)]
        times = profile.times(self._made.at(number), self._told.at(number))
        ends_at = times[profile.untold] + profile.ends_after if len(times) > profile.untold else inf
        moves = tuple(zip(times, profile.states, strict=True))
        piece = next(each for each in self._pieces[profile.number] if each.first <= number < each.end)
        if piece.cut_at < inf:
            moves = (*(move for move in moves if move[0] <= piece.cut_at), (piece.cut_at, piece.state))
        return Task(number, name, moves, ignores=profile.ignores, ends_at=ends_at, failure=profile.failure)

    def last_move(self, now: float) -> float:
        """When a device last moved, or was closed."""
        last = -inf
        for profile, pieces, bounds in self._bounded(now):
            for piece in pieces:
                if now >= piece.cut_at:
                    last = max(last, piece.cut_at)
                    continue
                for place in range(len(profile.states)):
                    span = self._span(profile, max(piece.first, bounds[place + 1]), min(piece.end, bounds[place]))
                    if span.first < span.end:
                        number = span.numbers[-1]
                        last = max(last, profile.times(self._made.at(number), self._told.at(number))[place])
        return last

    def cut(self, cut: Cut) -> int:
        """Closes what the cut hits, and says how many that are."""
        hit = 0
        then = {profile.number: bounds for profile, _, bounds in self._bounded(cut.at)}
        for profile, pieces, bounds in list(self._bounded(cut.now)):
            ends = profile.states[-1] not in OPEN_STATES
            open_from = then[profile.number][len(profile.states) - 1] if ends else self.first
            for low, high in _stretches(profile, bounds, open_from, cut):
                pieces, closed = _closed(pieces, low, high, cut)
                hit += sum(len(self._span(profile, piece.first, piece.end).numbers) for piece in closed)
            self._pieces[profile.number] = pieces
        return hit

    def single_out(self, number: int) -> None:
        """Leaves the device to somebody else."""
        place = number % len(self._profiles)
        kept: list[Piece] = []
        for piece in self._pieces[place]:
            if not piece.first <= number < piece.end:
                kept.append(piece)
                continue
            kept += _parts(piece, (piece.first, number), (number + 1, piece.end))
        self._pieces[place] = tuple(kept)

    def tell_anew(self, now: float, start: float, step: float) -> float:
        """Notifies those that wait from `start + step`, one a `step`; says when the last of those that exist is told.

        Devices that are made later join the queue, and are told a `step` after they were made once it is empty.
        """
        first = self._told.reached(now)
        if first >= self.end:
            return start
        begin = max(start, self._made.at(first))
        stretches = [Stretch(first, begin + step, step)]
        made_step = self._made.stretches[-1].step
        if made_step > step:
            empty = first + ceil((begin - self._made.at(first)) / (made_step - step))
            stretches.append(Stretch(empty, self._made.at(empty) + step, made_step))
        self._told = self._told.changed_from(first, stretches)
        return start + step * max(0, self.existing(now) - first)

    def stop(self, now: float) -> None:
        """No device is made after `now`."""
        self._stop = self.existing(now)

    def _bounded(self, now: float) -> Iterator[tuple[Profile, tuple[Piece, ...], list[int]]]:
        """Each profile with its pieces, and for each of its states the first device that has not entered it."""
        made, told = self._made.reached, self._told.reached
        existing = self.existing(now)
        notified = min(existing, told(now))
        for profile, pieces in zip(self._profiles, self._pieces, strict=True):
            bounds, confirm, untold = [existing], profile.confirm_seconds, profile.untold
            for place in range(1, len(profile.states)):
                delay = profile.delays[place]
                if place < untold:
                    bound = made(now - delay)
                elif confirm:
                    bound = min(made(now - delay - confirm), told(now - delay))
                else:
                    bound = told(now - delay) if delay else notified
                bounds.append(bound if bound < existing else existing)
            bounds.append(self.first)
            yield profile, pieces, bounds

    def _span(self, profile: Profile, low: int, high: int) -> Span:
        step = len(self._profiles)
        return Span(low + (profile.number - low) % step, high, step)


def bands_of(facts: Facts, course: Course, profiles: Sequence[Profile]) -> list[Band]:
    """The devices that a rollout begins with, and those that a dynamic one finds later."""
    step = 60 / course.per_minute
    begins_at = max(facts.created_at, facts.starts_at)
    made = Line([Stretch(0, facts.created_at, 0)], course.devices)
    told = Line([Stretch(0, begins_at + step, step)], course.devices)
    bands = [Band(profiles, made, told, first=0)] if course.devices else []
    if facts.kind is JobKind.DYNAMIC and course.enrol_per_minute > 0 and course.enrol_at_most > course.devices:
        each, first = 60 / course.enrol_per_minute, course.devices
        made = Line([Stretch(first, facts.starts_at + each, each)], course.enrol_at_most)
        told = Line([Stretch(first, facts.starts_at + each + step, each)], course.enrol_at_most)
        bands.append(Band(profiles, made, told, first=first))
    return bands


def _stretches(profile: Profile, bounds: Sequence[int], open_from: int, cut: Cut) -> list[tuple[int, int]]:
    """Where the devices are whose state the cut stops; states whose devices are neighbours are one stretch."""
    found: list[tuple[int, int]] = []
    for place, state in enumerate(profile.states):
        low, high = max(bounds[place + 1], open_from), bounds[place]
        if low >= high or not cut.stops(state, ignores=profile.ignores):
            continue
        if found and found[-1][0] == high:
            high = found.pop()[1]
        found.append((low, high))
    return found


def _closed(pieces: Sequence[Piece], low: int, high: int, cut: Cut) -> tuple[tuple[Piece, ...], list[Piece]]:
    """The pieces with those from `low` below `high` closed, and the closed ones."""
    kept: list[Piece] = []
    closed: list[Piece] = []
    for piece in pieces:
        first, end = max(piece.first, low), min(piece.end, high)
        if first >= end or piece.cut_at <= cut.at:
            kept.append(piece)
            continue
        closed.append(Piece(first, end, cut.at, cut.end))
        kept += [*_parts(piece, (piece.first, first)), closed[-1], *_parts(piece, (end, piece.end))]
    return tuple(kept), closed


def _parts(piece: Piece, *places: tuple[int, int]) -> list[Piece]:
    """Those parts of a piece that have room for a device."""
    return [Piece(first, end, piece.cut_at, piece.state) for first, end in places if first < end]

"""Slots for tests that are not about them: always one free, or none ever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from itertools import count

from bot.ports import Claim, Freed, Lane, Slot


class OpenSlots:
    """Every second has passed already and nothing is paused: whoever asks gets a slot. Takes a database to be wired."""

    def __init__(self, database: object = None) -> None:
        self._tokens = count(1)
        self.freed: list[Freed] = []
        self.paused: list[Lane] = []

    async def claim(self, lane: Lane, *, foreground: int, background: int, hold_seconds: float) -> Claim:
        numbers = [lane.limit - 1] * foreground + [0] * background
        return Claim(tuple(Slot(lane, number, next(self._tokens)) for number in numbers))

    async def release(self, freed: Sequence[Freed]) -> None:
        self.freed += freed

    async def pause(self, lane: Lane, *, until: float) -> None:
        self.paused.append(lane)


class ClaimedSlots(OpenSlots):
    """Tells when somebody has asked."""

    def __init__(self, database: object = None) -> None:
        super().__init__(database)
        self.is_claimed = asyncio.Event()

    async def claim(self, lane: Lane, *, foreground: int, background: int, hold_seconds: float) -> Claim:
        self.is_claimed.set()
        return await super().claim(lane, foreground=foreground, background=background, hold_seconds=hold_seconds)


class FullSlots(OpenSlots):
    """Nothing is free, nor will be before an hour has passed."""

    async def claim(self, lane: Lane, *, foreground: int, background: int, hold_seconds: float) -> Claim:
        return Claim((), again_at=time.monotonic() + 3600)

"""What was seen at the cloud and is kept: looks at batches that are followed, and what discovery found."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from bot.model import (
    Counts,
    Firmware,
    Job,
    Target,
)


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at the devices of a batch: what was counted, and when the look began."""

    counts: Counts
    began_at: datetime


@dataclass(frozen=True, slots=True)
class Watched:
    """What is looked at: the tasks of a batch, or only those of these devices."""

    target: Target

    @property
    def key(self) -> str:
        return self.target.key


class Readings(Protocol):
    """The looks at batches that are followed: one poll for all who follow the same, in whatever process."""

    async def may_read(self, watched: Watched, *, hold_seconds: float) -> float:
        """0: it is this caller's turn to look, and nobody else's for `hold_seconds`; else seconds until it may be."""
        ...

    async def save_reading(self, watched: Watched, reading: Reading, *, pause_seconds: float) -> None:
        """Keeps what was seen; the next look is due after a pause."""
        ...

    async def put_off(self, watched: Watched, *, pause_seconds: float) -> None:
        """Nothing could be seen: the next look is due after a pause."""
        ...

    async def fetch_readings(
        self, watched: Watched, *, since: datetime, most: int | None = None
    ) -> tuple[Reading, ...]:
        """The looks that began at `since` or later, oldest first; with `most`, only the newest ones."""
        ...


@dataclass(frozen=True, slots=True)
class FoundJob:
    """A batch as discovery last saw it."""

    instance: str
    job: Job
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class FoundFirmware:
    instance: str
    firmware: Firmware
    seen_at: datetime


class Found(Protocol):
    """What discovery has learnt, kept so that no list waits for the cloud."""

    async def save_found(
        self, instance: str, firmware: Sequence[Firmware], jobs: Sequence[Job], *, seen_at: datetime
    ) -> None:
        """Replaces what was known of these packages and of their batches; others stay as they were seen."""
        ...

    async def forget_unseen(self, instance: str, *, before: datetime) -> None:
        """Drops what was last seen before that."""
        ...

    async def fetch_found_jobs(self, instances: Collection[str], *, job: str | None = None) -> tuple[FoundJob, ...]:
        """The batches, running ones first and then the newest (at most 500); with `job`, only that one."""
        ...

    async def fetch_found_firmware(self, instances: Collection[str]) -> tuple[FoundFirmware, ...]:
        """The packages, the newest first (at most 500)."""
        ...

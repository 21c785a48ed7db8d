"""What is written on a rollout of the simulated fleet, and those of its settings that UpdateOTAJob may change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bot.model import JobKind


@dataclass(frozen=True, slots=True)
class Facts:
    """Times are seconds since the epoch; `scheduled` ones start at `starts_at`, and end at `finishes_at` if it is set.

    `src_versions` and `tags` are those that the rollout was made with; `Settings` has those of now.
    """

    job_id: str
    instance_id: str
    product_key: str
    firmware_id: str
    kind: JobKind
    created_at: float
    starts_at: float
    device_prefix: str
    first_device: int = 1
    description: str = ""
    target_selection: str = "ALL"
    gray_percent: str | None = None
    src_versions: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    finishes_at: float | None = None
    overwrite_mode: int | None = None
    dynamic_mode: int = 1
    retry_interval: int | None = None
    retry_count: int | None = None
    group_id: str | None = None
    group_name: str | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """`per_minute` is how many devices are notified a minute."""

    per_minute: float
    timeout_minutes: int | None
    src_versions: tuple[str, ...]
    tags: Mapping[str, str]

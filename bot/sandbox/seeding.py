"""Building a simulated fleet from what `seed_fleet.yaml` says. Times there are relative to the moment of seeding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bot.model import OPEN_STATES, JobKind
from bot.sandbox.courses import Course
from bot.sandbox.facts import Facts
from bot.sandbox.habits import Habits
from bot.sandbox.inventory import Firmware, Product, SandboxInstance
from bot.sandbox.questions import changed_habits
from bot.sandbox.rollouts import Rollout

_KINDS = {kind.value: kind for kind in JobKind}


@dataclass(frozen=True, slots=True)
class Seeded:
    """What a fleet is made of."""

    instances: Sequence[SandboxInstance]
    products: Sequence[Product]
    firmwares: Sequence[Firmware]
    rollouts: Sequence[Rollout]
    habits: Habits


def seeded(seed_data: Mapping[str, Any], *, now: float, seed: int, habits: Habits | None) -> Seeded:
    """The parts of a fleet. Raises ValueError with a sentence about the row that is wrong."""
    habits = habits or changed_habits(Habits(), seed_data.get("habits", {}))
    return Seeded(
        instances=[_made(SandboxInstance, row) for row in seed_data.get("instances", ())],
        products=[_made(Product, row) for row in seed_data.get("products", ())],
        firmwares=[_firmware(row, now) for row in seed_data.get("firmwares", ())],
        rollouts=[_rollout(row, now, seed, habits) for row in seed_data.get("jobs", ())],
        habits=habits,
    )


def _made(kind: type[Any], row: Mapping[str, Any]) -> Any:
    """A value of `kind` from its fields, with a sentence for the one who wrote the row."""
    try:
        return kind(**row)
    except (TypeError, ValueError) as error:
        raise ValueError(f"cannot make a {kind.__name__} of {dict(row)}: {error}") from error


def _firmware(row: Mapping[str, Any], now: float) -> Firmware:
    fields = dict(row)
    created_at = now - float(fields.pop("created_seconds_ago", 86_400))
    files = tuple(fields.pop("files", ()))
    firmware: Firmware = _made(Firmware, {**fields, "files": files, "created_at": created_at})
    return firmware


def _rollout(row: Mapping[str, Any], now: float, seed: int, habits: Habits) -> Rollout:
    """`starts_in_seconds` (negative: ago), `finishes_in_seconds` and `canceled_seconds_ago` are moments."""
    fields = dict(row)
    course: Course = _made(Course, fields.pop("course", {}))
    starts_at = now + float(fields.pop("starts_in_seconds", 0))
    finishes_in = fields.pop("finishes_in_seconds", None)
    created_at = now - float(fields.pop("created_seconds_ago", max(0.0, now - starts_at)))
    canceled_ago = fields.pop("canceled_seconds_ago", None)
    fields["kind"] = _KINDS.get(str(fields.get("kind", "static")))
    if fields["kind"] is None:
        raise ValueError(f"job {row.get('job_id')}: kind must be one of {', '.join(_KINDS)}")
    fields["src_versions"] = tuple(fields.get("src_versions", ()))
    fields["finishes_at"] = None if finishes_in is None else now + float(finishes_in)
    facts: Facts = _made(Facts, {**fields, "created_at": created_at, "starts_at": starts_at})
    # What was cancelled before the beginning was cancelled in the plainest of clouds.
    rollout = Rollout(facts, course, seed=seed, habits=Habits())
    if canceled_ago is not None:
        canceled_at = now - float(canceled_ago)
        if facts.kind is JobKind.DYNAMIC:
            rollout.cancel_strategy(canceled_at)
        rollout.cancel_tasks(OPEN_STATES, canceled_at)
    rollout.habits = habits
    return rollout

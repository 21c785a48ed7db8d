"""Changes at the cloud: the steps of an operation, each attempt at one, and the cloud's receipt."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from bot.model.rollouts import JobSettings, Target, Touch


class StepKind(StrEnum):
    """One change at the cloud."""

    CANCEL_STRATEGY = "cancel_strategy"
    CANCEL_TASKS = "cancel_tasks"
    CANCEL_DEVICES = "cancel_devices"
    RETRY_TASKS = "retry_tasks"
    SET_RATE = "set_rate"


@dataclass(frozen=True, slots=True)
class Step:
    """One change to be made at the cloud: what, to which batch, and which tasks it names.

    `devices` are names (CANCEL_DEVICES, with the target's product and firmware; RETRY_TASKS, beside the ids in
    `tasks`), `settings` all that a batch shall have (SET_RATE).
    """

    kind: StepKind
    target: Target
    touches: frozenset[Touch] = frozenset()
    devices: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    settings: JobSettings | None = None


@dataclass(frozen=True, slots=True)
class Intent:
    """One attempt at a step, written down before it is sent, so that it can be sent again byte for byte.

    `nonce` and `date` are what the signature is made of, `key_id` the access key's id (its secret is not here),
    `deadline` the time by which an answer must have come.
    """

    step: Step
    nonce: str
    date: datetime
    key_id: str
    deadline: datetime


@dataclass(frozen=True, slots=True)
class Receipt:
    """The cloud accepted a call. That says nothing about the devices."""

    request_id: str | None

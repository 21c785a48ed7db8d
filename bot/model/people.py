"""People and what they are told: who asks, where, what the policy says of it, what is offered, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, StrEnum

from bot.model.rollouts import Preview, Touch


class Unknown(Enum):
    """A fact that exists but could not be learnt. (`None` says that the operation has no such fact.)"""

    UNKNOWN = "unknown"


UNKNOWN = Unknown.UNKNOWN

CLOCKS_DIFFER = timedelta(seconds=60)
"""So far ahead the clock of another replica may be. What is further ahead was written before ours was set back."""


def is_from_terminal(user_id: str) -> bool:
    """Whether this is a person at a terminal (the OS user at the machine, `alice@ops1`), whom Slack does not know."""
    return "@" in user_id


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks: an identity that was checked at `verified_at`. `user_id` is Slack's, or that of a person at a terminal.

    `groups` are the ids of the Slack user groups this person is in, among those that the policy names.
    """

    user_id: str
    groups: frozenset[str]
    verified_at: datetime


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was asked: a channel id, or none (a direct message, a terminal)."""

    channel: str | None
    thread: str | None = None


class Effect(StrEnum):
    ALLOW = "allow"
    DENY = "deny"


class Confirm(StrEnum):
    CLICK = "click"


@dataclass(frozen=True, slots=True)
class Requirements:
    """What people must still do before an allowed call is made."""

    confirm: Confirm = Confirm.CLICK
    reason: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What the policy says.

    `rules` are the names of the rules that decided, `reasons` one sentence each (with the rule's `note`), `policy`
    the digest of the policy that was asked.
    """

    effect: Effect
    rules: tuple[str, ...]
    reasons: tuple[str, ...]
    policy: str
    requirements: Requirements = field(default_factory=Requirements)

    @property
    def is_allowed(self) -> bool:
        return self.effect is Effect.ALLOW


@dataclass(frozen=True, slots=True)
class Question:
    """What the policy is asked about. `UNKNOWN`: could not be learnt; `None`: this operation has no such fact."""

    actor: Actor
    operation: str
    channel: str | None
    instance: str
    product: str | Unknown | None = None
    touches: frozenset[Touch] | Unknown | None = None
    devices: int | Unknown | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """One preview of one proposal, put before people. `offer_id` is 128 random bits in hex: all that a button holds."""

    offer_id: str
    preview: Preview
    decision: Decision
    made_at: datetime
    expires_at: datetime

    def has_expired(self, now: datetime) -> bool:
        """So it has if the clock was set back: then nobody can tell for how long it has stood."""
        return now >= self.expires_at or now < self.made_at - CLOCKS_DIFFER


class OutcomeCode(StrEnum):
    """How a proposal ended. Stable for ever."""

    STOPPED = "stopped"
    PARTLY_STOPPED = "partly_stopped"
    NOT_STOPPED = "not_stopped"
    NOTHING_TO_STOP = "nothing_to_stop"
    GOAL_REACHED_UNCONFIRMED = "goal_reached_unconfirmed"
    DONE = "done"
    NOT_DONE = "not_done"
    REFUSED_BY_CLOUD = "refused_by_cloud"
    UNKNOWN_OUTCOME = "unknown_outcome"
    DENIED = "denied"
    DISMISSED = "dismissed"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to tell a person, as plain text: no markup of any kind is in it, and an edge adds what it needs.

    `text` is the sentence that must arrive, `lines` what follows it, `command` a line to copy, `reference` an id under
    which the log knows it.
    """

    text: str
    lines: tuple[str, ...] = ()
    command: str | None = None
    reference: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a proposal ended, with the devices' movement since the baseline (None: not known, or never called)."""

    code: OutcomeCode
    notice: Notice
    stopped: int | None = None
    finished_anyway: int | None = None
    failed: int | None = None
    still_moving: int | None = None

"""What happened, for whoever watches from outside: logs and metrics. Values, and one method that takes them.

Each is over or committed when it is noted, and nothing depends on who listens. What it does not do: count, or write.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from bot.audit import Entry
from bot.exchange import Delivery, ReplyTo
from bot.ports.leases import Lease
from bot.ports.store import Transition


class AckResult(StrEnum):
    """With what a delivery was acknowledged. Only what was written is answered later (and, perhaps, what was late).

    At once: help, and what could not be read. Unknown: a button that is none of ours. Ignored: nobody listens to it.
    """

    WRITTEN = "written"
    DUPLICATE = "duplicate"
    AT_ONCE = "answered_at_once"
    UNKNOWN = "unknown"
    IGNORED = "ignored"
    LATE = "late"
    NOT_WRITTEN = "not_written"
    FAILED = "failed"
    MALFORMED = "malformed"


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """Something ended at the gate, with this HTTP status."""

    status: int
    why: str


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """What the gate admitted has got its answer, so long after it came. `kind` is what the gate took it for.

    `delivery` and `reply_to` are None where nobody read so far; `reference` is the id that the person was shown, `why`
    and `error` say what went wrong.
    """

    kind: str
    result: AckResult
    seconds: float
    delivery: Delivery | None = None
    reply_to: ReplyTo | None = None
    reference: str | None = None
    why: str | None = None
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class Received:
    """A delivery was written down, or was there already."""

    delivery: Delivery
    is_new: bool


@dataclass(frozen=True, slots=True)
class Written:
    """What one transaction wrote: a step of a proposal, or entries that concern none; and what it answers.

    `handled` is the id of a delivery.
    """

    entries: tuple[Entry, ...]
    transition: Transition | None = None
    handled: str | None = None


@dataclass(frozen=True, slots=True)
class Claimed:
    """Work that nobody did was taken up by this process; `delivery` is what is answered, where it is one."""

    lease: Lease
    delivery: Delivery | None = None


@dataclass(frozen=True, slots=True)
class WorkFailed:
    """A piece of work failed for a reason of our own, and is tried again."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class LeaseTaken:
    """Somebody else has claimed what this process was working on."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class CallMade:
    """One signed call, from asking for its slot to its answer.

    `step` is the kind of change that it makes, or what a read is for. `job` is what it names, if it is one batch.
    `code` is "ok", the cloud's code, or a word of ours for what never became an answer; `family` is the same with few
    values: a known code, the first two parts of another, or "other". `nonce` is that of a change's intent, `copy` how
    often this call was tried by itself. `seconds` is None if the call was not made.
    """

    instance: str
    action: str
    step: str
    code: str
    family: str
    waited_seconds: float
    seconds: float | None
    is_throttled: bool = False
    job: str | None = None
    request_id: str | None = None
    nonce: str | None = None
    copy: int = 1


class PostResult(StrEnum):
    DELIVERED = "delivered"
    PUT_OFF = "put_off"
    GIVEN_UP = "given_up"


@dataclass(frozen=True, slots=True)
class Posted:
    """What came of an attempt to deliver a post."""

    result: PostResult


Happening = TurnedAway | Acknowledged | Received | Written | Claimed | WorkFailed | LeaseTaken | CallMade | Posted


class Telemetry(Protocol):
    """Who is told what happened."""

    def note(self, happening: Happening) -> None:
        """Takes no time, and never raises."""
        ...


class Unheard:
    """A `Telemetry` to which nobody listens."""

    def note(self, happening: Happening) -> None:
        """Forgets it."""

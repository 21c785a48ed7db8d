"""What the world said to a proposal: the answers that move it on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from bot.model import Counts, Decision, Intent, Offer, Outcome, Place, Preview, Step
from bot.proposals.values import CallAnswer


@dataclass(frozen=True, slots=True)
class Offered:
    """A preview was made and the policy allows the call: it is put before people."""

    offer: Offer


@dataclass(frozen=True, slots=True)
class Confirmed:
    """An entitled person's yes to the offer `offer_id`, as decided anew at the click, in the place of the click."""

    offer_id: str
    by: str
    decision: Decision
    place: Place


@dataclass(frozen=True, slots=True)
class Called:
    """An attempt is about to be sent; the first one keeps what the re-check saw, and all steps to be made."""

    intent: Intent
    preview: Preview | None = None
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class Accepted:
    """The cloud accepted the step under way; after the last one the devices are followed until `follow_until`."""

    request_id: str | None
    is_last: bool
    follow_until: datetime
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Deferred:
    """The attempt changed nothing (not sent, or throttled): another one may follow."""

    answer: CallAnswer
    detail: str
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Lost:
    """The attempt's answer was lost: it may have arrived."""

    detail: str
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class GivenUp:
    """The step under way came to `answer`, and the next one is taken up, or `instead` of it these; after the last one
    what was accepted before is followed until `follow_until`."""

    answer: CallAnswer
    is_last: bool
    follow_until: datetime
    detail: str
    request_id: str | None = None
    instead: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class Progress:
    """What the devices did since, by job."""

    counts: Mapping[str, Counts]


@dataclass(frozen=True, slots=True)
class Ended:
    """The end, with what the last attempt came to if there was one."""

    outcome: Outcome
    answer: CallAnswer | None = None
    request_id: str | None = None
    detail: str | None = None
    dismissed_by: str | None = None


Answer = Offered | Confirmed | Called | Accepted | Deferred | Lost | GivenUp | Progress | Ended
ANSWERS: tuple[type[Answer], ...] = (
    Offered,
    Confirmed,
    Called,
    Accepted,
    Deferred,
    Lost,
    GivenUp,
    Progress,
    Ended,
)

"""What is exchanged with people: asks and clicks that come in, posts that go out.

Frozen values, as in `model`; edges translate what they know into these.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from bot.model import Notice, Place, Preview


@dataclass(frozen=True, slots=True)
class Ask:
    """Somebody asked for an operation. `instance` is None where none was named."""

    operation: str
    job: str
    instance: str | None = None
    params: frozenset[str] = frozenset()
    reason: str | None = None
    is_dry_run: bool = False


class Choice(StrEnum):
    CONFIRM = "confirm"
    DISMISS = "dismiss"


@dataclass(frozen=True, slots=True)
class Click:
    """Somebody answered an offer."""

    choice: Choice
    offer_id: str


@dataclass(frozen=True, slots=True)
class ReplyTo:
    """Where an answer for one person alone goes. `address` is the edge's own and means nothing to the core."""

    user_id: str
    place: Place
    address: str | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One thing that was asked or answered, as it is written down before it is acknowledged.

    `key` is what makes a second copy of it recognisable.
    """

    delivery_id: str
    key: str
    reply_to: ReplyTo
    received_at: datetime
    content: Ask | Click


class PostKind(StrEnum):
    """What is owed to people: a card and its buttons are made true, lines are added, a reply is for one person."""

    CARD = "card"
    BUTTONS = "buttons"
    LINE = "line"
    BROADCAST = "broadcast"
    REPLY = "reply"


@dataclass(frozen=True, slots=True)
class Post:
    """One thing owed to people, written in the transaction that makes it true.

    Posts of one `lane` (a proposal or a delivery) are sent in order. `preview` adds the numbers to a reply.
    """

    kind: PostKind
    lane: str
    notice: Notice | None = None
    reply_to: ReplyTo | None = None
    preview: Preview | None = None

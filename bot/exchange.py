"""What is exchanged with people: asks and clicks that come in, posts that go out.

Frozen values, as in `model`; edges translate what they know into these.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from bot.model import Notice, Place, Preview, Target, TaskState


@dataclass(frozen=True, slots=True)
class Ask:
    """Somebody asked for an operation. `instance` is None where none was named.

    `job`, `firmware` (an id or a version), `product` and `devices` are what was typed of the target; `word` is what a
    list is narrowed down to. `resumes` is the proposal whose left-over shall be done. `is_break_glass`: approvals
    shall be waived, if any are required.
    """

    operation: str
    job: str = ""
    instance: str | None = None
    params: frozenset[str] = frozenset()
    reason: str | None = None
    is_dry_run: bool = False
    firmware: str = ""
    product: str = ""
    devices: tuple[str, ...] = ()
    word: str = ""
    resumes: str | None = None
    is_break_glass: bool = False

    def on(self, instance: str) -> Target:
        """What is asked about, on this instance."""
        return Target(instance, self.job, self.firmware, self.product, self.devices)


class Choice(StrEnum):
    CONFIRM = "confirm"
    DISMISS = "dismiss"


@dataclass(frozen=True, slots=True)
class Click:
    """Somebody answered an offer."""

    choice: Choice
    offer_id: str


@dataclass(frozen=True, slots=True)
class Resume:
    """Somebody wants the rest of a proposal done; `proposal_id` may be its first characters."""

    proposal_id: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Pick:
    """Somebody whom we asked which instance is meant picked one; `delivery_id` is the delivery of the ask."""

    delivery_id: str
    instance: str


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
    content: Ask | Click | Resume | Pick


class PostKind(StrEnum):
    """What is owed to people: card, buttons and progress are made true; lines and files are added.

    A reply is for one person.
    """

    CARD = "card"
    BUTTONS = "buttons"
    PROGRESS = "progress"
    LINE = "line"
    BROADCAST = "broadcast"
    FILE = "file"
    REPLY = "reply"


class FileKind(StrEnum):
    """What a file holds: tasks of a batch, or the curve of its states over time."""

    TASKS = "tasks"
    MOVING = "moving"
    CURVE = "curve"


@dataclass(frozen=True, slots=True)
class File:
    """A file that is made when it is sent: what is in it is as of then.

    `target` is one batch; `states` narrow the tasks down (none: all of them), `since` is where a curve begins.
    """

    kind: FileKind
    target: Target
    states: tuple[TaskState, ...] = ()
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Post:
    """One thing owed to people, written in the transaction that makes it true.

    Posts of one `lane` (a proposal or a delivery) are sent in order. `preview` adds the numbers to a reply, `picks`
    a button for each of these instances (its lane is the delivery of the ask), `pointing_to` the way to the card of
    this proposal and, beside a `preview`, what that card says. A file with a `reply_to` is for that person alone, else
    it goes into the proposal's thread.
    """

    kind: PostKind
    lane: str
    notice: Notice | None = None
    reply_to: ReplyTo | None = None
    preview: Preview | None = None
    file: File | None = None
    picks: tuple[str, ...] = ()
    pointing_to: str | None = None

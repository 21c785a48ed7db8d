"""What the road needs from outside, as Protocols. Edges implement them; `wiring` puts them together."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from bot.audit import Entry
from bot.exchange import Delivery, Post
from bot.model import Actor, Counts, Intent, Job, Notice, Receipt, Step, Target, TaskState
from bot.proposals import Proposal


class Purpose(StrEnum):
    """What a read is for. When calls are short, a stop goes before a preview, and a preview before a follow."""

    STOP = "stop"
    PREVIEW = "preview"
    FOLLOW = "follow"


class CloudReads(Protocol):
    """Reads of the cloud; safe to repeat. Every method may raise a `CloudError`."""

    async def fetch_job(self, target: Target, *, purpose: Purpose = Purpose.PREVIEW) -> Job:
        """The job as the cloud describes it now."""
        ...

    async def fetch_counts(
        self,
        target: Target,
        states: Sequence[TaskState],
        *,
        purpose: Purpose = Purpose.PREVIEW,
        in_order: bool = False,
    ) -> Counts:
        """How many tasks are in each of `states`, all asked at once, or one after the other if `in_order`.

        A state whose number could not be read is None in the answer; raises only if none could be read.
        """
        ...


class CloudChanges(Protocol):
    """Changes at the cloud. Only the road holds one."""

    def prepare(self, step: Step) -> Intent:
        """A new attempt at `step`: a fresh nonce and date, nothing sent. Raises `CloudRefused` without a key for it."""
        ...

    async def send(self, intent: Intent) -> Receipt:
        """Sends an intent, byte for byte the same each time.

        Raises `CloudRefused` (the answer was no), `CloudUnreachable` (it was not sent), `CloudLost` (it may have
        arrived).
        """
        ...


class CloudWords(Protocol):
    """The cloud's answers and calls, put for people."""

    def explain(self, error: Exception, target: Target) -> Notice:
        """What happened, what to do and who can do it, for a `CloudError`; the RequestId stands in `reference`."""
        ...

    def command_line(self, step: Step) -> str:
        """The `aliyun iot …` line that makes the same change by hand."""
        ...


@dataclass(frozen=True, slots=True)
class Person:
    """A person of our workspace as Slack described them at the look-up."""

    actor: Actor
    language: str = "en"


class People(Protocol):
    """Who somebody is."""

    async def identify(self, user_id: str, *, max_age_seconds: float) -> Person:
        """The person behind a Slack user id, with the user groups that the policy names; at most so old.

        Raises `Unidentified` (may not use the bot) or `PeopleUnavailable` (Slack did not tell).
        """
        ...


@dataclass(frozen=True, slots=True)
class Transition:
    """One step of one proposal, as it is written: all of it or nothing.

    `before` is None for a new proposal. `handled` names the delivery that this step answers.
    """

    before: Proposal | None
    after: Proposal
    entries: tuple[Entry, ...]
    posts: tuple[Post, ...] = ()
    handled: str | None = None


@dataclass(frozen=True, slots=True)
class Surface:
    """Where a proposal shows: its root card and the button message in the card's thread (None: not posted yet)."""

    channel: str | None = None
    card: str | None = None
    buttons: str | None = None


@dataclass(frozen=True, slots=True)
class Owed:
    """A post that has not been delivered yet, and how often that was tried."""

    post_id: int
    post: Post
    attempts: int


class Store(Protocol):
    """What is kept. Every method may raise `StoreUnavailable`; then nothing was written."""

    async def receive(self, delivery: Delivery) -> bool:
        """Writes a delivery down. False: its key was seen before, and nothing was written."""
        ...

    async def save(self, transition: Transition) -> bool:
        """A compare-and-set with its entries and posts. False: somebody was faster, and nothing was written."""
        ...

    async def record(
        self, *, entries: Sequence[Entry] = (), posts: Sequence[Post] = (), handled: str | None = None
    ) -> None:
        """Writes what concerns no proposal's state: refusals, reads, lines in a thread."""
        ...

    async def fetch_open_deliveries(self, *, but: Container[str] = ()) -> tuple[Delivery, ...]:
        """Deliveries that nothing has answered yet, oldest first, from the first 500; `but` are ids to leave out."""
        ...

    async def fetch_proposal(self, proposal_id: str) -> Proposal | None: ...

    async def fetch_proposal_of(self, offer_id: str) -> Proposal | None:
        """The proposal that this offer was made for, also when a newer offer stands."""
        ...

    async def fetch_pending(self, operation: str, target: Target, params: frozenset[str]) -> Proposal | None:
        """The one proposal of this kind that waits to be carried out."""
        ...

    async def fetch_work(self, now: datetime) -> tuple[str, ...]:
        """The ids of proposals that have something to do without anybody's click (at most 500)."""
        ...

    async def fetch_owed(self) -> tuple[Owed, ...]:
        """Posts not delivered yet, in the order of writing (at most 500)."""
        ...

    async def settle(self, post_ids: Sequence[int], *, failure: str | None = None) -> None:
        """Marks posts as delivered, or as given up with a reason."""
        ...

    async def count_attempt(self, post_id: int) -> None: ...

    async def fetch_surface(self, proposal_id: str) -> Surface: ...

    async def save_surface(self, proposal_id: str, surface: Surface) -> None: ...


class Notifier(Protocol):
    """Delivers what is owed; it reads it from the store."""

    def wake(self) -> None:
        """Something new is owed."""
        ...

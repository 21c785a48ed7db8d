"""What the road needs from outside, as Protocols. Edges implement them; `wiring` puts them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from bot.model import Actor, Counts, Instance, Intent, Job, Notice, Receipt, Step, Target, TaskState


class CloudReads(Protocol):
    """Reads of the cloud; safe to repeat. Every method may raise a `CloudError`."""

    async def fetch_job(self, target: Target) -> Job:
        """The job as the cloud describes it now."""
        ...

    async def fetch_counts(self, target: Target, states: Sequence[TaskState], *, in_order: bool = False) -> Counts:
        """How many tasks are in each of `states`, all asked at once, or one after the other if `in_order`.

        A state whose number could not be read is None in the answer; raises only if none could be read.
        """
        ...


class CloudChanges(Protocol):
    """Changes at the cloud. Only the road holds one."""

    def prepare(self, step: Step) -> Intent:
        """A new attempt at `step`: a fresh nonce and date, nothing sent."""
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


class Instances(Protocol):
    """The instances that the policy folder names."""

    def __getitem__(self, name: str) -> Instance: ...

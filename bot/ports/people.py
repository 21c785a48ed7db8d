"""Who somebody is, and that they are told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from bot.model import (
    Actor,
)


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


class Notifier(Protocol):
    """Delivers what is owed; it reads it from the store."""

    def wake(self) -> None:
        """Something new is owed."""
        ...

"""People at terminals: who they are follows from where they sit.

Such a person's asks and clicks come in through the database alone, never from Slack. Whoever can write to the database
and read the keys could do anything without us, and is taken at their word: so what is known of them is as of now.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from bot.errors import PeopleUnavailable
from bot.model import Actor, is_from_terminal
from bot.ports import People, Person


class TerminalPeople:
    """`ports.People` for those at terminals; `others` are all the others, where there is somebody to ask."""

    def __init__(self, *, clock: Callable[[], datetime], others: People | None = None) -> None:
        self._clock = clock
        self._others = others

    async def identify(self, user_id: str, *, max_age_seconds: float) -> Person:
        if is_from_terminal(user_id):
            return Person(Actor(user_id, frozenset(), self._clock()))
        if self._others is None:
            raise PeopleUnavailable("Slack is not asked from a terminal")
        return await self._others.identify(user_id, max_age_seconds=max_age_seconds)

"""Complaints about a policy: ``file:line:column: what is wrong; what was expected; did you mean …?``

They are collected, so that one look at the list is enough to mend a folder. Values from the files are shown cut and
without control characters, because a complaint ends in terminals and logs.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Protocol

from bot.errors import PolicyInvalid

_SHOWN = 60
_GUESSES = 100
"""Nearest words are looked for this often; a file with more mistakes than that was not mistyped."""


class Mark(Protocol):
    """A place in a text, counted from 0, as YAML marks it."""

    @property
    def line(self) -> int: ...

    @property
    def column(self) -> int: ...


def shown(text: str) -> str:
    """A value from a file, quoted for people."""
    cut = text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
    return '"' + "".join(char if char.isprintable() else "�" for char in cut) + '"'


def place(file: str, at: Mark) -> str:
    return f"{file}:{at.line + 1}:{at.column + 1}"


class Complaints:
    """Everything found wrong so far."""

    def __init__(self) -> None:
        self._found: list[tuple[str, int, int, str]] = []
        self._guesses = _GUESSES

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(
        self, file: str, at: Mark, wrong: str, *, expected: str | None = None, instead_of: str | None = None
    ) -> None:
        parts = [f"{place(file, at)}: {wrong}"]
        if expected:
            parts.append(f"expected {expected}")
        if instead_of:
            parts.append(f"did you mean {instead_of}?")
        self._found.append((file, at.line, at.column, "; ".join(parts)))

    def nearest(self, word: str, right: Collection[str]) -> str | None:
        """The right word that `word` resembles most, if any does."""
        if self._guesses == 0 or len(word) > _SHOWN:
            return None
        self._guesses -= 1
        by_folded = {option.casefold(): option for option in right}
        near = difflib.get_close_matches(word.casefold(), by_folded, n=1)
        return by_folded[near[0]] if near else None

    def raise_if_any(self) -> None:
        """Raises `PolicyInvalid` with every complaint, in the order of the files."""
        if self._found:
            raise PolicyInvalid([sentence for *_, sentence in sorted(self._found)])

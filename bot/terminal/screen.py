"""What a terminal shows: notices as text, or as JSON with an object a line.

Text of people and of the cloud may hold anything; here nothing in it is a command to the terminal, turns the line round
or begins another one. What it does not do: choose words.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from bot.model import Notice

LINE_LENGTH = 1_500
Write = Callable[[str], None]


def harmless(text: str, *, length: int | None = LINE_LENGTH) -> str:
    """One line of what can be seen: no control characters, no marks that change the direction of writing."""
    cut = text if length is None or len(text) <= length else f"{text[: length - 1]}…"
    if cut.isprintable():
        return cut
    return "".join(char if char.isprintable() else " " if char.isspace() else "\ufffd" for char in cut)


class Screen:
    """Where a conversation is shown, each line at once; `prompt` writes what has no end of line yet."""

    def __init__(self, write: Write, *, prompt: Write, is_json: bool = False) -> None:
        self._write = write
        self.prompt = prompt
        self.is_json = is_json

    def say(self, kind: str, notice: Notice, **facts: object) -> None:
        """A notice; `facts` are for scripts alone."""
        if self.is_json:
            said = {"text": notice.text, "lines": list(notice.lines)}
            more = {"command": notice.command, "reference": notice.reference}
            self._put({"kind": kind, **said, **{name: value for name, value in more.items() if value}, **facts})
            return
        self._write(harmless(notice.text))
        for line in notice.lines:
            self._write(f"  {harmless(line)}")
        for command in (notice.command or "").splitlines():
            self._write(f"    {harmless(command, length=None)}")
        if notice.reference:
            self._write(f"  Reference: {harmless(notice.reference)}")

    def row(self, kind: str, text: str, **facts: object) -> None:
        """One of many of a kind, in one line."""
        if self.is_json:
            self._put({"kind": kind, **facts})
        else:
            self._write(harmless(text))

    def _put(self, what: dict[str, object]) -> None:
        # In ASCII, so that what a terminal would obey is spelt out; of ASCII itself, JSON leaves one such sign.
        self._write(json.dumps(what, ensure_ascii=True).replace("\x7f", "\\u007f"))

"""Tasks of devices as the lines of a CSV file: RFC 4180, UTF-8.

The file begins with a byte order mark: without one Excel takes UTF-8 for the local code page, and the cloud's reasons
are often Chinese; a script opens it as `utf-8-sig`. Spreadsheets run cells that look like formulas, so those get an
apostrophe in front. What it does not do: read the tasks, or keep more than what it is given.

https://www.rfc-editor.org/rfc/rfc4180 · https://owasp.org/www-community/attacks/CSV_Injection
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from datetime import datetime

from bot.model import Task

BEGINNING = "\ufeff".encode()
HEADER = (
    "device",
    "state",
    "progress",
    "reason",
    "task id",
    "from version",
    "to version",
    "created",
    "changed",
    "as of",
)
CELL_LENGTH = 2_000
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "'")
"""What a spreadsheet may run, also as wide letters; and the apostrophe, so that taking one away gives the text back."""

_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_UNSEEN = re.compile(r"[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]+")
_HALVES = re.compile(r"[\ud800-\udfff]")


def task_row(task: Task, as_of: datetime) -> tuple[str, ...]:
    """One device's task in the order of `HEADER`; `as_of` is when it was read."""
    return (
        task.device,
        task.state.value,
        task.progress,
        task.detail,
        task.task_id,
        task.src_version,
        task.dest_version,
        _spelt(task.created_at),
        _spelt(task.changed_at),
        _spelt(as_of),
    )


def csv_lines(rows: Iterable[Sequence[str]]) -> bytes:
    """The rows as lines that end in CR LF."""
    lines = io.StringIO(newline="")
    csv.writer(lines, lineterminator="\r\n", quoting=csv.QUOTE_ALL).writerows(
        [harmless(cell) for cell in row] for row in rows
    )
    return lines.getvalue().encode()


def harmless(text: str) -> str:
    """A cell in one line, with nothing invisible in it, that no spreadsheet runs."""
    if not text.isprintable():
        text = _HALVES.sub("\ufffd", _UNSEEN.sub("", _BREAKS.sub(" ", text)))
    text = text.strip()
    if len(text) > CELL_LENGTH:
        text = f"{text[: CELL_LENGTH - 1]}…"
    return f"'{text}" if text.startswith(_FORMULA) else text


def _spelt(at: datetime | None) -> str:
    """ISO 8601 in UTC, which spreadsheets and scripts both read."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ") if at is not None else ""

"""`otabrake serve` in a world that a test breaks: `python -m tests.broken_victim '{…}'`, the bot's settings around it.

The argument is JSON: `wait_seconds` (how long the start waits for the database), `clock` (a file whose text is added to
the clock, in seconds), `timings` (fields of `Timings`). What is not given is as in production; pictures are not drawn.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from bot import cli, server, wiring
from bot.charts import Curve
from bot.starting import Patience
from bot.workflow.means import Timings

_NOTHING_TO_SEE = b"\x89PNG\r\n\x1a\n"


def shifted(offset: Path) -> Callable[[], datetime]:
    """The clock as somebody has set it."""

    def now() -> datetime:
        return wiring.now() + timedelta(seconds=float(offset.read_text() or 0))

    return now


async def _draw(curve: Curve) -> bytes:
    return _NOTHING_TO_SEE


def main(options: dict[str, Any]) -> None:
    if "wait_seconds" in options:
        wiring.migrated = partial(wiring.migrated, patience=Patience(options["wait_seconds"]))  # type: ignore[attr-defined]
    given: dict[str, Any] = {"draw": _draw}
    if "clock" in options:
        given["clock"] = shifted(Path(options["clock"]))
    if "timings" in options:
        given["timings"] = Timings(**options["timings"])
    server.running = partial(wiring.running, **given)  # type: ignore[assignment]
    cli.main(["serve"])


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

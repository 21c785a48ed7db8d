"""Where a stage is put up: a server of this machine, with cloud, bot and Slack behind one port.

It decides who answers a request, and makes the three parts; what a story may do with them stands in `stage`.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from bot.sandbox.fleet import Fleet
from bot.sandbox.iot import create_iot_app
from bot.sandbox.server import APP_TOKEN, BOT_TOKEN, SIGNING_SECRET, sandbox_settings
from bot.sandbox.slack import create_slack_app
from bot.sandbox.slack_fake import FakeSlack
from bot.sandbox.workspace import load_workspace
from bot.server import served
from bot.storage.database import open_database
from bot.storage.migrations import upgrade
from bot.workflow.means import Timings
from tests.scenarios.stage import SEED, Stage, StoryClock
from tests.scenarios.wire import Wire

HANG_SECONDS = 10.0
"""As long as the bot waits for an answer, so that a call that hangs costs the clock what it would cost people."""

_ANSWERED_BY_BOT = "/slack/events"


class Ground:
    """What stages stand on, one after the other: a server, and what is the same at the beginning of each.

    Each stage puts its own three applications there.
    """

    def __init__(self, empty: Path) -> None:
        self.empty = empty
        self.workspace = load_workspace()
        self.url = ""
        self.wire: Wire | None = None
        self.page: Starlette | None = None
        self.stage: Stage | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The cloud at `/`, the bot where Slack delivers to, Slack everywhere else."""
        path = scope.get("path", "")
        if path == "/" and self.wire is not None:
            await self.wire(scope, receive, send)
        elif path == _ANSWERED_BY_BOT and self.stage is not None and self.stage.bot is not None:
            await self.stage.bot.asgi(scope, receive, send)
        elif self.page is not None:
            await self.page(scope, receive, send)


@asynccontextmanager
async def grounded() -> AsyncIterator[Ground]:
    """A server of this machine for stages."""
    with tempfile.TemporaryDirectory(prefix="otabrake-ground-") as folder:
        empty = Path(folder) / "empty.db"
        database = open_database(f"sqlite:///{empty}")
        await upgrade(database)
        await database.close()
        ground = Ground(empty)
        async with served(ground) as port:
            ground.url = f"http://127.0.0.1:{port}"
            yield ground


@asynccontextmanager
async def staged(
    ground: Ground, seed: Mapping[str, Any], *, cloud_is_ahead_seconds: float = 0, timings: Timings | None = None
) -> AsyncIterator[Stage]:
    """A stage with the fleet of `seed` (as `seed_fleet.yaml` describes one)."""
    clock = StoryClock()
    fleet = Fleet.from_seed(seed, now=clock.seconds, seed=SEED)
    iot = create_iot_app(
        fleet,
        now=lambda: clock.seconds() + cloud_is_ahead_seconds,
        is_throttling=False,
        sleep=clock.sleep,
        hang_seconds=HANG_SECONDS,
    )
    ground.wire = wire = Wire(iot, iot.state.faults, now=clock.seconds, sleep=clock.sleep)
    ground.page = create_slack_app(
        deepcopy(ground.workspace),
        signing_secret=SIGNING_SECRET,
        bot_token=BOT_TOKEN,
        app_token=APP_TOKEN,
        deliver_to=f"{ground.url}{_ANSWERED_BY_BOT}",
        now=clock.seconds,
        transport=httpx.AsyncHTTPTransport(verify=False),
    )
    slack: FakeSlack = ground.page.state.slack
    with tempfile.TemporaryDirectory(prefix="otabrake-story-") as folder, capture_logs() as logs:
        database = shutil.copy(ground.empty, Path(folder) / "otabrake.db")
        settings = sandbox_settings(
            Path(folder), iot_url=ground.url, slack_url=ground.url, database_url=f"sqlite:///{database}"
        )
        ground.stage = stage = Stage(clock, fleet, iot, wire, slack, settings, ground.url, logs, timings or Timings())
        try:
            await stage.open_bot()
            yield stage
        finally:
            await stage.close_bot()
            await slack.courier.aclose()

"""People at terminals for tests: the IoT simulator, a database, and no Slack until a test opens it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import text
from starlette.applications import Starlette

from bot.exchange import Ask, Choice
from bot.sandbox.fleet import Fleet
from bot.sandbox.iot import create_iot_app, load_seed
from bot.sandbox.server import SEED, sandbox_settings
from bot.sandbox.slack import FakeSlack, create_slack_app
from bot.sandbox.workspace import load_workspace
from bot.server import served
from bot.settings import Settings
from bot.storage.database import Database, open_database
from bot.terminal.conversation import Conversation
from bot.terminal.screen import Screen
from bot.terminal_wiring import at_terminal
from bot.wiring import App, running
from tests.conftest import Clock
from tests.slots import OpenSlots

STATIC = "7glPHmaDYLAYMD1HHutT02"
STAGING = "St4g1ngWe5Rt8Yu3Io7P01"
CLOSED = "http://127.0.0.1:1"
RULES = """
groups:
  terminal: {terminal: [alice@ops1, carol@ops2]}
  lookers: {terminal: [bob@ops1]}
rules:
  - {name: terminals look, allow: [reads], who: [terminal, lookers]}
  - {name: terminals stop, allow: [job.cancel, job.halt, firmware.halt], who: [terminal]}
"""


@dataclass
class Typing:
    """A `Keyboard` on which these lines are typed; before each, `meanwhile` happens."""

    lines: list[str]
    is_terminal: bool = True
    meanwhile: Callable[[], Any] = lambda: None

    async def read_line(self) -> str | None:
        if (happening := self.meanwhile()) is not None:
            await happening
        return self.lines.pop(0) if self.lines else None


@dataclass
class Seen:
    """What one conversation showed, and its exit code."""

    lines: list[str] = field(default_factory=list)
    code: int | None = None

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [each for each in self.objects if each["kind"] == kind]


@dataclass
class Site:
    """A machine with the keys: everything but Slack. `settings` are those of a bot whose Slack does not answer."""

    clock: Clock
    fleet: Fleet
    iot: Starlette
    settings: Settings
    database: Database

    async def ask(self, operation: str, job: str = STATIC, *, typed: Typing | None = None, **given: Any) -> Seen:
        ask = {name: value for name, value in given.items() if name not in ("user", "is_json", "is_glass")}
        is_glass = given.get("is_glass", False)
        content = Ask(operation, job, is_break_glass=is_glass, **ask)
        how = {name: given[name] for name in ("user", "is_json") if name in given}
        return await self.talk(lambda talk: talk.ask(content, is_break_glass=is_glass), typed, **how)

    async def answer(
        self, offer_id: str, choice: Choice = Choice.CONFIRM, *, typed: Typing | None = None, **how: Any
    ) -> Seen:
        return await self.talk(lambda talk: talk.answer(offer_id, choice), typed, **how)

    async def talk(
        self,
        what: Callable[[Conversation], Any],
        typed: Typing | None = None,
        *,
        user: str = "alice@ops1",
        is_json: bool = False,
    ) -> Seen:
        """One `otabrake job …` of its own process, as far as a test has several."""
        seen = Seen()
        screen = Screen(seen.lines.append, prompt=seen.lines.append, is_json=is_json)
        log = structlog.get_logger()
        async with at_terminal(
            self.settings, user, log=log, clock=self.clock, sleep=self.clock.sleep, slots=OpenSlots
        ) as terminal:
            seen.code = await what(Conversation(terminal, screen, typed or Typing([STATIC])))
        return seen

    @contextlib.asynccontextmanager
    async def slack_is_back(self) -> AsyncIterator[tuple[FakeSlack, App]]:
        """`otabrake serve` on the same database, and a Slack that answers."""
        page = create_slack_app(
            load_workspace(),
            signing_secret="sandbox-signing-secret",
            bot_token="xoxb-sandbox",
            app_token="xapp-sandbox",
            now=lambda: self.clock().timestamp(),
        )
        async with served(page) as port:
            settings = replace(self.settings, slack_api_url=f"http://127.0.0.1:{port}/api/")
            async with running(settings, clock=self.clock, sleep=self.clock.sleep, slots=OpenSlots) as bot:
                for _ in range(3):
                    await bot.road.sweep_once()
                    await bot.road.drain()
                    await bot.notifier.drain()
                yield page.state.slack, bot

    async def let_leases_lapse(self) -> None:
        """Whoever held a lease has died long ago."""
        await self.database.run(lambda connection: connection.execute(text("UPDATE leases SET until = 1")) and None)

    def effects(self) -> list[str]:
        return [effect.action for effect in self.fleet.history]

    async def rows(self, statement: str) -> list[tuple[Any, ...]]:
        found = await self.database.read(lambda connection: connection.execute(text(statement)).all())
        return [tuple(row) for row in found]

    async def audit(self) -> list[tuple[str, str]]:
        return [(name, actor) for name, actor in await self.rows("SELECT name, actor FROM entries ORDER BY entry_id")]

    async def proposals(self) -> list[dict[str, Any]]:
        return [json.loads(body) for (body,) in await self.rows("SELECT body FROM proposals ORDER BY created_at")]

    async def owed(self) -> list[str]:
        rows = await self.rows("SELECT body FROM outbox WHERE settled_at IS NULL ORDER BY post_id")
        return [json.loads(body)["kind"] for (body,) in rows]


@contextlib.asynccontextmanager
async def open_site(
    clock: Clock, folder: Path, url: str, *, rules: str = RULES, now: Callable[[], datetime] | None = None
) -> AsyncIterator[Site]:
    def seconds() -> float:
        return (now or clock)().timestamp()

    fleet = Fleet.from_seed(load_seed(), now=seconds, seed=SEED)
    iot = create_iot_app(fleet, now=seconds, is_throttling=False, sleep=clock.sleep)
    async with served(iot) as port:
        settings = sandbox_settings(folder, iot_url=f"http://127.0.0.1:{port}", slack_url=CLOSED, database_url=url)
        (folder / "policies" / "terminal.yaml").write_text(rules)
        database = open_database(url)
        yield Site(clock, fleet, iot, settings, database)
        await database.close()

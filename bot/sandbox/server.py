"""The sandbox's servers: everything in one process, or one of the fakes alone.

`serve_sandbox` is a fake Slack with its page, an IoT simulator with a fleet, and the bot as `otabrake serve` would run
it, with a database in a temporary folder. Nothing is kept, and nothing listens beyond this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import click
from starlette.applications import Starlette
from starlette.routing import Mount

from bot.discovery import Rhythm
from bot.logs import configure_logs
from bot.ports import Slots
from bot.sandbox.fleet import Fleet
from bot.sandbox.iot import create_iot_app, load_seed
from bot.sandbox.slack import create_slack_app
from bot.sandbox.slack_fake import FakeSlack
from bot.sandbox.workspace import load_workspace
from bot.server import open_socket, serve_until_signal, served, until_signal
from bot.settings import Settings, read_settings
from bot.storage.database import Database
from bot.storage.slots import SqlSlots
from bot.wiring import App, now, running
from bot.workflow.means import Timings

KEY_ID, KEY_SECRET = "testid", "testsecret"
SIGNING_SECRET = "sandbox-signing-secret"  # noqa: S105 (of a fake that listens on this machine only)
BOT_TOKEN = "xoxb-sandbox"  # noqa: S105 (likewise)
APP_TOKEN = "xapp-sandbox"  # noqa: S105 (likewise)
SEED = 7
PLACEHOLDER = "https://simulator.invalid"
POLICIES = Path(__file__).parent / "policies"


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A running sandbox: the page's application, the bot, and the two fakes for tests to look at."""

    page: Starlette
    slack: FakeSlack
    iot: Starlette
    fleet: Fleet
    bot: App
    bot_url: str
    slack_url: str
    iot_url: str


@contextlib.asynccontextmanager
async def sandbox(
    *,
    port: int = 0,
    database_url: str | None = None,
    is_socket_mode: bool = False,
    timings: Timings | None = None,
    clock: Callable[[], datetime] = now,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    slots: Callable[[Database], Slots] | None = None,
    rhythm: Rhythm | None = None,
    folder: Path | None = None,
) -> AsyncIterator[Sandbox]:
    """Everything, on free ports of this machine (`port`: that of the page and the fake Slack).

    One `clock` runs for bot, fleet and Slack; without a `rhythm` the bot discovers nothing by itself. What it keeps
    is in `folder`, or in a temporary one.
    """

    def seconds() -> float:
        return clock().timestamp()

    async with contextlib.AsyncExitStack() as stack:
        folder = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="otabrake-")))
        fleet = Fleet.from_seed(load_seed(), now=seconds, seed=SEED)
        iot = create_iot_app(fleet, now=seconds, is_throttling=slots is None, sleep=sleep)
        iot_port = await stack.enter_async_context(served(iot))
        page = _slack_app(now=seconds)
        page.router.routes.insert(0, Mount("/_sandbox/iot", app=iot))
        slack: FakeSlack = page.state.slack
        slack_port = await stack.enter_async_context(served(page, port=port, has_lifespan=True))
        settings = sandbox_settings(
            folder,
            iot_url=f"http://127.0.0.1:{iot_port}",
            slack_url=f"http://127.0.0.1:{slack_port}",
            database_url=database_url,
            is_socket_mode=is_socket_mode,
        )
        bot = await stack.enter_async_context(
            running(
                settings,
                timings=timings,
                clock=clock,
                sleep=sleep,
                seconds=lambda: clock().timestamp(),
                slots=slots or SqlSlots,
                rhythm=rhythm,
            )
        )
        bot_port = await stack.enter_async_context(served(bot.asgi))
        slack.deliver_to = f"http://127.0.0.1:{bot_port}/slack/events"
        yield Sandbox(
            page=page,
            slack=slack,
            iot=iot,
            fleet=fleet,
            bot=bot,
            bot_url=f"http://127.0.0.1:{bot_port}",
            slack_url=f"http://127.0.0.1:{slack_port}",
            iot_url=f"http://127.0.0.1:{iot_port}",
        )


def sandbox_settings(
    folder: Path, *, iot_url: str, slack_url: str, database_url: str | None = None, is_socket_mode: bool = False
) -> Settings:
    """The settings of a bot between the two fakes; its policy is the sandbox's, with the simulator as endpoint."""
    policies = folder / "policies"
    policies.mkdir(exist_ok=True)
    for source in POLICIES.glob("*.yaml"):
        text = source.read_text(encoding="utf-8").replace(f"endpoint: {PLACEHOLDER}", f"endpoint: {iot_url}")
        (policies / source.name).write_text(text, encoding="utf-8")
    environ = {
        "SLACK_BOT_TOKEN": BOT_TOKEN,
        "SLACK_API_URL": f"{slack_url}/api/",
        "OTABRAKE_POLICIES": str(policies),
        "OTABRAKE_DATABASE_URL": database_url or f"sqlite:///{folder / 'otabrake.db'}",
        "PORT": "0",
        "ALIBABA_CLOUD_ACCESS_KEY_ID": KEY_ID,
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET": KEY_SECRET,
    }
    door = {"SLACK_APP_TOKEN": APP_TOKEN} if is_socket_mode else {"SLACK_SIGNING_SECRET": SIGNING_SECRET}
    return read_settings(environ | door)


def _slack_app(app_url: str | None = None, *, now: Callable[[], float] = time.time) -> Starlette:
    return create_slack_app(
        load_workspace(),
        signing_secret=SIGNING_SECRET,
        bot_token=BOT_TOKEN,
        app_token=APP_TOKEN,
        deliver_to=app_url,
        now=now,
    )


async def serve_sandbox(*, port: int) -> None:
    """Serves everything until it is interrupted."""
    configure_logs()
    async with sandbox(port=port, rhythm=Rhythm()) as running_sandbox:
        click.echo(f"\n  Open {running_sandbox.slack_url} and stop a rollout. Ctrl-C ends it.\n")
        click.echo(f"  IoT simulator   {running_sandbox.iot_url} (key {KEY_ID} / {KEY_SECRET})")
        click.echo(f"  the bot         {running_sandbox.bot_url}/readyz\n")
        await until_signal()


async def serve_iot(*, port: int) -> None:
    """Serves the IoT simulator alone until it is interrupted."""
    configure_logs()
    fleet = Fleet.from_seed(load_seed(), now=time.time, seed=SEED)
    with open_socket("127.0.0.1", port) as listening:
        click.echo(f"IoT simulator on http://127.0.0.1:{listening.getsockname()[1]} (key {KEY_ID} / {KEY_SECRET})")
        await serve_until_signal(create_iot_app(fleet, now=time.time), listening)


async def serve_slack(*, port: int, app_url: str | None) -> None:
    """Serves the fake Slack alone until it is interrupted."""
    configure_logs()
    with open_socket("127.0.0.1", port) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        click.echo(f"Fake Slack: page on {url}, Web API on {url}/api/")
        click.echo(f"  signing secret  {SIGNING_SECRET}\n  bot token       {BOT_TOKEN}\n  app token       {APP_TOKEN}")
        click.echo(f"  delivers to     {app_url or 'your Socket Mode connection'}")
        await serve_until_signal(_slack_app(app_url), listening, has_lifespan=True)

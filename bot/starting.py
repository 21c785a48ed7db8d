"""Starting against a world that is not there yet: the database is migrated and Slack asked who we are.

What is only late is waited for; what is wrong is said with what to mend. What it does not do: put anything together.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient
from sqlalchemy import Connection, make_url

from bot.errors import ConfigurationError, DependencyAbsent, OtabrakeError, StoreUnavailable
from bot.settings import Settings
from bot.slack.gate import Identity
from bot.slack.people import SLACK_TROUBLE, error_code
from bot.storage.database import Database
from bot.storage.migrations import missing, revision, upgrade
from bot.storage.tables import SCHEMA
from bot.workflow.means import Log

START_SECONDS = 60.0
"""How long a start waits for the database and for Slack."""

LOOK_SECONDS = 5.0
"""How long one look at the database may take."""

SLACK_SECONDS = 10
_BAD_TOKEN = (
    "invalid_auth",
    "not_authed",
    "account_inactive",
    "token_revoked",
    "token_expired",
    "not_allowed_token_type",
    "missing_scope",
)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long something that is late is waited for, how often it is asked, and by which clock."""

    seconds: float = START_SECONDS
    pause_seconds: float = 1.0
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class _Wait:
    """One wait: it is said at once, then each time that it has become twice as long, and it ends in an error."""

    def __init__(self, what: str, patience: Patience, log: Log, *, advice: str) -> None:
        self._what = what
        self._patience = patience
        self._log = log
        self._advice = advice
        self._began_at = patience.monotonic()
        self._say_at = 0.0

    async def on(self, why: str) -> None:
        """Waits until the next attempt is due. Raises `DependencyAbsent` when there is no more time for one."""
        waited, seconds = self._patience.monotonic() - self._began_at, self._patience.seconds
        if waited >= seconds:
            raise DependencyAbsent(f"{self._what} did not answer for {waited:.0f} s ({why}). {self._advice}")
        if waited >= self._say_at:
            gives_up = round(seconds - waited)
            self._log.error(f"waiting for {self._what}", why=why, waited_seconds=round(waited), gives_up_in=gives_up)
            self._say_at = max(1.0, waited * 2)
        await self._patience.sleep(min(self._patience.pause_seconds, seconds - waited))


async def migrated(database: Database, settings: Settings, log: Log, patience: Patience | None = None) -> None:
    """Brings the schema up to date. A server that is not there yet is waited for, and so is a file that is locked."""
    advice = "Check OTABRAKE_DATABASE_URL, and that the database exists, answers and can be written."
    wait = _Wait("the database", patience or Patience(), log, advice=advice)
    while True:
        try:
            await _bring_up_to_date(database, log)
        except TimeoutError:
            await wait.on(f"no answer within {LOOK_SECONDS:.0f} s")
        except StoreUnavailable as error:
            if settings.database_url.startswith("sqlite") and "locked" not in str(error):
                raise _file_trouble(settings.database_url, error) from error
            await wait.on(str(error))
        else:
            database.expect_short_units()
            return


async def _bring_up_to_date(database: Database, log: Log) -> None:
    async with asyncio.timeout(LOOK_SECONDS):
        found = await database.read(revision)
    if found is not None and not _is_known(found):
        raise ConfigurationError(
            [
                f"The database is at revision {found}, and this version of otabrake knows none after {SCHEMA}: a newer "
                "version has used it, or another program. Run that version, or name another database in "
                "OTABRAKE_DATABASE_URL. Nothing was changed."
            ]
        )
    if lacking := await missing(database):
        await upgrade(database)
        log.info("migrated", to=SCHEMA, was=lacking.partition(":")[0])
    async with asyncio.timeout(LOOK_SECONDS):
        await database.run(_can_write)


def _is_known(found: str) -> bool:
    return found.isdigit() and len(found) == len(SCHEMA) and found <= SCHEMA


def _file_trouble(url: str, error: StoreUnavailable) -> OtabrakeError:
    """Why a file of SQLite cannot be used, and what to do: wrong in the settings (2), or not there for us (3)."""
    path, why = Path(make_url(url).database or ""), str(error)
    if path.is_dir():
        return ConfigurationError([f"{path} is a folder: name a file in it, as in sqlite:///{path}/otabrake.db."])
    if "file is not a database" in why:
        return ConfigurationError(
            [
                f"{path} is a file, but not one of SQLite: name another one in OTABRAKE_DATABASE_URL (a new one is "
                "made), or move this one away."
            ]
        )
    if "malformed" in why:
        return ConfigurationError([f"{path} is damaged ({why}): put back a copy that is whole, or move it away."])
    return DependencyAbsent(f"{_absent(path, why)} Check OTABRAKE_DATABASE_URL.")


def _absent(path: Path, why: str) -> str:
    folder = path.parent
    is_named = not path.name.startswith("file:")  # an address in SQLite's own spelling may say anything
    if is_named and not folder.is_dir():
        return f"The folder {folder}, where the database should be, does not exist: make it, or mount it."
    if is_named and not os.access(folder, os.W_OK | os.X_OK):
        return (
            f"The folder {folder} cannot be written by this user, or its disk is read-only. SQLite needs to make files "
            "beside the database: give this user the right to write there."
        )
    if is_named and path.exists() and not os.access(path, os.R_OK | os.W_OK):
        return f"The file {path} cannot be written by this user: give it the right to read and write it."
    return f"{why[:1].upper()}{why[1:]}: there must be room on the disk, and the file must be ours to read and write."


def _can_write(connection: Connection) -> None:
    """Fails on a database that can only be read."""
    connection.exec_driver_sql("CREATE TEMPORARY TABLE IF NOT EXISTS can_write (at INTEGER)")
    connection.exec_driver_sql("UPDATE alembic_version SET version_num = version_num")


def web_client(token: str, settings: Settings, session: aiohttp.ClientSession) -> AsyncWebClient:
    """One session for all calls, and no retries of the SDK's own: it would repeat posts."""
    return AsyncWebClient(
        token=token, base_url=settings.slack_api_url, session=session, timeout=SLACK_SECONDS, retry_handlers=[]
    )


async def who_we_are(
    client: AsyncWebClient, settings: Settings, log: Log, patience: Patience | None = None
) -> Identity:
    """`auth.test`, once. Slack not answering is waited for; a token it does not take is a configuration problem."""
    advice = "Check SLACK_API_URL and the network."
    wait = _Wait("Slack", patience or Patience(pause_seconds=2.0), log, advice=advice)
    while True:
        try:
            answer = await client.auth_test()
            app_id = settings.slack_app_id or await _app_id(client, str(answer.get("bot_id") or ""))
        except SlackApiError as error:
            if error_code(error) in _BAD_TOKEN:
                raise ConfigurationError(
                    [f"Slack does not accept SLACK_BOT_TOKEN ({error_code(error)}): copy it from the app's OAuth page."]
                ) from error
            await wait.on(error_code(error))
        except SLACK_TROUBLE as error:
            await wait.on(type(error).__name__)
        else:
            return Identity(
                team_id=str(answer["team_id"]),
                app_id=app_id,
                enterprise_id=answer.get("enterprise_id"),
                bot_user_id=answer.get("user_id"),
            )


async def check_app_token(client: AsyncWebClient) -> None:
    """The SDK's socket would try a wrong token for ever, in silence."""
    try:
        await client.apps_connections_open(app_token=client.token or "")
    except SlackApiError as error:
        if error_code(error) in _BAD_TOKEN:
            raise ConfigurationError(
                [f"Slack does not accept SLACK_APP_TOKEN ({error_code(error)}): make one with connections:write."]
            ) from error
    except SLACK_TROUBLE:
        return  # the socket itself keeps trying


async def _app_id(client: AsyncWebClient, bot_id: str) -> str | None:
    """Our app's id as Slack knows it; None if this token may not ask."""
    try:
        answer = await client.bots_info(bot=bot_id)
    except SlackApiError:
        return None
    bot = answer.get("bot")
    return bot.get("app_id") if isinstance(bot, dict) else None

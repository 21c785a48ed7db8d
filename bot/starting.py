"""Starting against a world that is not there yet: the database is migrated and Slack asked who we are.

What is only late is waited for; what is wrong is said with what to mend. What it does not do: put anything together.
"""

from __future__ import annotations

import asyncio

import aiohttp
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient
from sqlalchemy import Connection

from bot.errors import ConfigurationError, DependencyAbsent, StoreUnavailable
from bot.settings import Settings
from bot.slack.gate import Identity
from bot.slack.people import SLACK_TROUBLE, error_code
from bot.storage.database import Database
from bot.storage.migrations import missing, upgrade
from bot.storage.tables import SCHEMA
from bot.workflow.means import Log

START_SECONDS = 60
"""How long a start waits for the database and for Slack."""

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


async def migrated(database: Database, settings: Settings, log: Log) -> None:
    """Brings the schema up to date; a database server that is not there yet is waited for."""
    waited = 0
    while True:
        try:
            if lacking := await missing(database):
                await upgrade(database)
                log.info("migrated", to=SCHEMA, was=lacking.partition(":")[0])
            await database.run(_can_write)
        except StoreUnavailable as error:
            if settings.database_url.startswith("sqlite") or waited >= START_SECONDS:
                raise DependencyAbsent(
                    f"{error}. Check OTABRAKE_DATABASE_URL: the database must exist, answer and be writable."
                ) from error
            log.error("waiting for the database", why=str(error), waited_seconds=waited)
            await asyncio.sleep(1)
            waited += 1
        else:
            return


def _can_write(connection: Connection) -> None:
    """Fails on a database that can only be read."""
    connection.exec_driver_sql("CREATE TEMPORARY TABLE IF NOT EXISTS can_write (at INTEGER)")
    connection.exec_driver_sql("UPDATE alembic_version SET version_num = version_num")


def web_client(token: str, settings: Settings, session: aiohttp.ClientSession) -> AsyncWebClient:
    """One session for all calls, and no retries of the SDK's own: it would repeat posts."""
    return AsyncWebClient(
        token=token, base_url=settings.slack_api_url, session=session, timeout=SLACK_SECONDS, retry_handlers=[]
    )


async def who_we_are(client: AsyncWebClient, settings: Settings, log: Log) -> Identity:
    """`auth.test`, once. Slack not answering is waited for; a token it does not take is a configuration problem."""
    waited = 0
    while True:
        try:
            answer = await client.auth_test()
            app_id = settings.slack_app_id or await _app_id(client, str(answer.get("bot_id") or ""))
        except SlackApiError as error:
            if error_code(error) in _BAD_TOKEN:
                raise ConfigurationError(
                    [f"Slack does not accept SLACK_BOT_TOKEN ({error_code(error)}): copy it from the app's OAuth page."]
                ) from error
            waited = await _wait_for_slack(waited, error_code(error), log)
        except SLACK_TROUBLE as error:
            waited = await _wait_for_slack(waited, type(error).__name__, log)
        else:
            return Identity(
                team_id=str(answer["team_id"]),
                app_id=app_id,
                enterprise_id=answer.get("enterprise_id"),
                bot_user_id=answer.get("user_id"),
            )


async def _wait_for_slack(waited: int, why: str, log: Log) -> int:
    if waited >= START_SECONDS:
        raise DependencyAbsent(f"Slack did not answer for {waited} s ({why}). Check SLACK_API_URL and the network.")
    log.error("waiting for Slack", why=why, waited_seconds=waited)
    await asyncio.sleep(2)
    return waited + 2


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

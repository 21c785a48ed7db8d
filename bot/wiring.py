"""The composition root: the only place that puts ports and edges together.

`async with running(settings) as app` is a whole bot; `app.asgi` is what a server serves. The sandbox uses the same,
with settings of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient
from sqlalchemy import Connection
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from bot.alibaba.budget import Budget
from bot.alibaba.client import open_http
from bot.alibaba.cloud import Cloud
from bot.alibaba.key_settings import key_problems, keys_from
from bot.alibaba.key_sources import kept_fresh
from bot.discovery import Discovery, Rhythm, Tools
from bot.errors import ConfigurationError, DependencyAbsent, PolicyInvalid, StoreUnavailable
from bot.logs import get_log
from bot.ops import KNOWN
from bot.policy.folder import read_folder
from bot.policy.load import Policy, load
from bot.ports import Slots
from bot.settings import Settings, read_settings
from bot.slack.attachments import Attachments
from bot.slack.doors import HttpDoor, SocketDoor
from bot.slack.gate import Gate, Identity
from bot.slack.listeners import Listeners, create_bolt
from bot.slack.notifier import SlackNotifier
from bot.slack.people import SLACK_TROUBLE, SlackPeople, error_code
from bot.storage.database import Database, open_database
from bot.storage.migrations import missing, revision, upgrade
from bot.storage.found import SqlFound
from bot.storage.readings import SqlReadings
from bot.storage.slots import SqlSlots
from bot.storage.store import SqlStore
from bot.storage.tables import SCHEMA
from bot.workflow.means import Log, Means, Timings
from bot.workflow.road import Road

START_SECONDS = 60
"""How long a start waits for the database and for Slack."""

SLACK_SECONDS = 10
KEY_SECONDS = 10
"""How long a start waits for keys that have to be fetched; without them it starts as well."""
_BAD_TOKEN = (
    "invalid_auth",
    "not_authed",
    "account_inactive",
    "token_revoked",
    "token_expired",
    "not_allowed_token_type",
    "missing_scope",
)

OPERATIONS = KNOWN


def now() -> datetime:
    return datetime.now(UTC)


def new_id() -> str:
    """128 random bits in hex."""
    return secrets.token_hex(16)


@dataclass(slots=True)
class App:
    """A running bot."""

    settings: Settings
    database: Database
    road: Road
    notifier: SlackNotifier
    policy: Policy | None
    complaints: tuple[str, ...]
    socket: SocketDoor | None = None
    asgi: ASGIApp = field(default_factory=Starlette)
    is_draining: bool = False

    async def why_not_ready(self) -> list[str]:
        """What keeps this process from working, in sentences; empty if nothing does."""
        reasons = []
        if self.is_draining:
            reasons.append("shutting down")
        if self.policy is None:
            reasons.append("no valid policy: see otabrake policy check")
        reasons += await self._database_trouble()
        if self.socket is not None and not await self.socket.is_alive():
            reasons.append("the Socket Mode connection is down")
        return reasons

    async def _database_trouble(self) -> list[str]:
        try:
            async with asyncio.timeout(2):
                found = await self.database.read(revision)
        except (StoreUnavailable, TimeoutError):
            return ["the database does not answer"]
        return [] if found == SCHEMA else [f"the database is at revision {found}, not {SCHEMA}"]


def load_policy(folder: Path) -> Policy:
    """The policy of a folder. Raises `PolicyInvalid`."""
    return load(read_folder(folder), operations=OPERATIONS)


def read_configuration(environ: Mapping[str, str]) -> Settings:
    """The settings, with what is wrong in them and in the credentials named at once. Raises `ConfigurationError`."""
    problems: list[str] = []
    settings: Settings | None = None
    try:
        settings = read_settings(environ)
    except ConfigurationError as error:
        problems += error.problems
    # A policy that cannot be loaded is no problem here: the server starts without one, says so and refuses.
    with contextlib.suppress(PolicyInvalid):
        policy = load_policy(Path(environ.get("OTABRAKE_POLICIES") or "policies"))
        problems += key_problems(environ, policy.instances)
    if settings is None or problems:
        raise ConfigurationError(problems)
    return settings


@asynccontextmanager
async def running(
    settings: Settings,
    *,
    clock: Callable[[], datetime] = now,
    timings: Timings | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    slots: Callable[[Database], Slots] = SqlSlots,
    rhythm: Rhythm | None = None,
) -> AsyncIterator[App]:
    """A whole bot. Raises `ConfigurationError` or `DependencyAbsent` if it cannot start.

    With a `rhythm`, it also goes round the instances in the background and learns what is there.
    """
    log = get_log()
    policy, complaints = _policy_or_complaints(settings, log)
    async with AsyncExitStack() as stack:
        database = open_database(settings.database_url)
        stack.push_async_callback(database.close)
        await _migrated(database, settings, log)
        session = await stack.enter_async_context(
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=SLACK_SECONDS))
        )
        client = _web_client(settings.slack_bot_token, settings, session)
        identity = await _who_we_are(client, settings, log)
        store = SqlStore(database, clock=clock)
        found, readings = SqlFound(database), SqlReadings(database, clock=clock)
        http = await stack.enter_async_context(open_http())
        instances = policy.instances if policy is not None else {}
        keys = keys_from(
            settings.environ, instances, now=clock, on_trouble=lambda why: log.error("key not fetched", why=why)
        )
        await stack.enter_async_context(kept_fresh(keys.values(), first_seconds=KEY_SECONDS))
        cloud = Cloud(
            instances=instances,
            keys=keys,
            http=http,
            budget=await stack.enter_async_context(Budget(slots(database))),
            now=clock,
            new_nonce=new_id,
        )
        notifier = SlackNotifier(
            client,
            session,
            store=store,
            operations=OPERATIONS,
            attachments=Attachments(
                client, session, reads=cloud, readings=readings, words=cloud, clock=clock, sleep=sleep
            ),
            instance=lambda name: policy.instances.get(name) if policy is not None else None,
            log=log,
            unshown=lambda proposal_id, why: road.end_unshown(proposal_id, why),
            sleep=sleep,
        )
        people = SlackPeople(
            client,
            identity,
            usergroups=lambda: policy.usergroups if policy is not None else frozenset(),
            clock=clock,
        )
        means = Means(
            store=store,
            readings=readings,
            found=found,
            reads=cloud,
            changes=cloud,
            words=cloud,
            people=people,
            notifier=notifier,
            operations=OPERATIONS,
            policy=lambda: policy,
            clock=clock,
            new_id=new_id,
            sleep=sleep,
            log=log,
            timings=timings or Timings(),
        )
        road = Road(means)
        if rhythm is not None:
            tools = Tools(cloud, found, readings, lambda: instances, clock, asyncio.sleep, log, rhythm)
            await stack.enter_async_context(Discovery(tools))
        await stack.enter_async_context(notifier)
        await stack.enter_async_context(road)
        bolt = create_bolt(client, identity)
        listeners = Listeners(
            receive=road.receive, operations=OPERATIONS, clock=clock, new_id=new_id, log=log, tell=notifier.tell
        )
        listeners.register(bolt)
        gate = Gate(identity, signing_secret=settings.slack_signing_secret)
        app = App(settings, database, road, notifier, policy, complaints)
        if settings.slack_app_token is not None:
            socket_client = _web_client(settings.slack_app_token, settings, session)
            await _check_app_token(socket_client)
            door = SocketDoor(bolt, gate, app_token=settings.slack_app_token, client=socket_client, log=log)
            app.socket = await stack.enter_async_context(door)
        app.asgi = _asgi(app, HttpDoor(bolt, gate, log=log, now=lambda: clock().timestamp()))
        try:
            yield app
        finally:
            app.is_draining = True


def _policy_or_complaints(settings: Settings, log: Log) -> tuple[Policy | None, tuple[str, ...]]:
    try:
        return load_policy(settings.policies), ()
    except PolicyInvalid as error:
        for complaint in error.complaints:
            log.error("policy refused", complaint=complaint)
        return None, error.complaints


async def _migrated(database: Database, settings: Settings, log: Log) -> None:
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


def _web_client(token: str, settings: Settings, session: aiohttp.ClientSession) -> AsyncWebClient:
    """One session for all calls, and no retries of the SDK's own: it would repeat posts."""
    return AsyncWebClient(
        token=token, base_url=settings.slack_api_url, session=session, timeout=SLACK_SECONDS, retry_handlers=[]
    )


async def _who_we_are(client: AsyncWebClient, settings: Settings, log: Log) -> Identity:
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


async def _check_app_token(client: AsyncWebClient) -> None:
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


def _asgi(app: App, door: HttpDoor) -> ASGIApp:
    async def healthz(request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    async def readyz(request: Request) -> JSONResponse:
        reasons = await app.why_not_ready()
        body = {"status": "not ready" if reasons else "ready", "reasons": reasons}
        return JSONResponse(body, status_code=503 if reasons else 200)

    rest = Starlette(routes=[Route("/healthz", healthz), Route("/readyz", readyz)])

    async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
        """Slack's deliveries go straight to their door: routing costs as much as verifying them."""
        is_slacks = scope["type"] == "http" and scope["path"] == "/slack/events" and scope["method"] == "POST"
        await (door if is_slacks else rest)(scope, receive, send)

    return asgi

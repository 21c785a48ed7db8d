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
from bot.charts import draw
from bot.discovery import Discovery, Rhythm, Tools
from bot.errors import ConfigurationError, PolicyInvalid, StoreUnavailable
from bot.logs import get_log
from bot.ops import KNOWN
from bot.policy.folder import read_folder
from bot.policy.load import Policy, load
from bot.ports import Slots
from bot.settings import Settings, read_settings
from bot.slack.attachments import Attachments
from bot.slack.curves import Draw
from bot.slack.doors import HttpDoor, SocketDoor
from bot.slack.gate import Gate
from bot.slack.listeners import Listeners, create_bolt
from bot.slack.notifier import SlackNotifier
from bot.slack.people import SlackPeople
from bot.starting import SLACK_SECONDS, check_app_token, migrated, web_client, who_we_are
from bot.storage.database import Database, open_database
from bot.storage.found import SqlFound
from bot.storage.leases import SqlLeases, new_owner
from bot.storage.migrations import revision
from bot.storage.readings import SqlReadings
from bot.storage.slots import SqlSlots
from bot.storage.store import SqlStore
from bot.storage.tables import SCHEMA
from bot.workflow.means import Log, Means, Timings
from bot.workflow.road import Road

KEY_SECONDS = 10
"""How long a start waits for keys that have to be fetched; without them it starts as well."""

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
    draw: Draw = draw,
) -> AsyncIterator[App]:
    """A whole bot. Raises `ConfigurationError` or `DependencyAbsent` if it cannot start.

    With a `rhythm`, it also goes round the instances in the background and learns what is there.
    """
    log = get_log()
    policy, complaints = _policy_or_complaints(settings, log)
    async with AsyncExitStack() as stack:
        database = open_database(settings.database_url)
        stack.push_async_callback(database.close)
        await migrated(database, settings, log)
        session = await stack.enter_async_context(
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=SLACK_SECONDS))
        )
        client = web_client(settings.slack_bot_token, settings, session)
        identity = await who_we_are(client, settings, log)
        owner = new_owner()
        store, leases = SqlStore(database, clock=clock, owner=owner), SqlLeases(database, owner=owner)
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
            leases=leases,
            operations=OPERATIONS,
            attachments=Attachments(
                client, session, reads=cloud, readings=readings, words=cloud, clock=clock, sleep=sleep, draw=draw
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
            leases=leases,
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
            socket_client = web_client(settings.slack_app_token, settings, session)
            await check_app_token(socket_client)
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

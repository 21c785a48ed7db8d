"""The composition root: the only place that puts ports and edges together.

`async with running(settings) as app` is a whole bot; `app.asgi` is what a server serves. The sandbox uses the same,
with settings of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from bot.alibaba.budget import Budget
from bot.alibaba.client import open_http
from bot.alibaba.cloud import Cloud
from bot.alibaba.key_settings import key_problems, keys_from
from bot.alibaba.key_sources import kept_fresh
from bot.charts import draw
from bot.discovery import Discovery, Rhythm, Tools
from bot.errors import ConfigurationError, PolicyInvalid
from bot.health import Health
from bot.logs import get_log
from bot.model import Instance
from bot.ops import KNOWN
from bot.policy.folder import read_folder
from bot.policy.load import Policy, load
from bot.ports import Slots
from bot.ports.telemetry import Telemetry
from bot.settings import Settings, read_settings
from bot.slack.attachments import Attachments
from bot.slack.curves import Draw
from bot.slack.doors import HttpDoor, SocketDoor
from bot.slack.gate import Gate
from bot.slack.listeners import Listeners, create_bolt
from bot.slack.notifier import SlackNotifier
from bot.slack.people import SlackPeople
from bot.starting import SLACK_SECONDS, check_app_token, migrated, web_client, who_we_are
from bot.storage.census import DatabaseWatch
from bot.storage.database import Database, open_database
from bot.storage.found import SqlFound
from bot.storage.leases import new_owner
from bot.storage.observed import ObservedLeases, ObservedStore
from bot.storage.readings import SqlReadings
from bot.storage.retention import SqlRetention
from bot.storage.slots import SqlSlots
from bot.storage.tables import SCHEMA
from bot.telemetry import CanonicalLines, Everybody
from bot.terminal.people import TerminalPeople
from bot.workflow.means import Log, Means, Timings
from bot.workflow.road import Road
from bot.workflow.upkeep import Upkeep

if TYPE_CHECKING:
    from bot.metrics import Metrics

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
    metrics: Metrics | None = None

    async def is_socket_alive(self) -> bool:
        """True where there is none: Socket Mode is off."""
        return self.socket is None or await self.socket.is_alive()


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
    seconds: Callable[[], float] = time.monotonic,
    slots: Callable[[Database], Slots] = SqlSlots,
    rhythm: Rhythm | None = None,
    draw: Draw = draw,
) -> AsyncIterator[App]:
    """A whole bot. Raises `ConfigurationError` or `DependencyAbsent` if it cannot start.

    With a `rhythm`, it also goes round the instances in the background and learns what is there, and prunes what is
    old. `seconds` is the clock that the pace of posts goes by.
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
        watch = DatabaseWatch(database, owner=owner, schema=SCHEMA)
        stack.push_async_callback(watch.close)
        metrics = _metrics(settings, watch, policy, clock=clock)
        lines = CanonicalLines(log, clock=clock)
        telemetry = Everybody([lines] if metrics is None else [lines, metrics], log=log)
        store = ObservedStore(database, clock=clock, owner=owner, telemetry=telemetry)
        leases = ObservedLeases(database, owner=owner, telemetry=telemetry)
        found, readings = SqlFound(database), SqlReadings(database, clock=clock)
        instances = policy.instances if policy is not None else {}
        cloud = await stack.enter_async_context(
            open_cloud(settings.environ, instances, slots=slots(database), clock=clock, log=log, telemetry=telemetry)
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
            moved=lambda proposal_id: road.offer_again(proposal_id),
            sleep=sleep,
            seconds=seconds,
        )
        in_slack = SlackPeople(
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
            people=TerminalPeople(clock=clock, others=in_slack),
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
        discovery: Discovery | None = None
        if rhythm is not None:
            tools = Tools(cloud, found, readings, lambda: instances, clock, asyncio.sleep, log, rhythm)
            discovery = await stack.enter_async_context(Discovery(tools))
            retention = SqlRetention(database, clock=clock)
            await stack.enter_async_context(Upkeep(retention, leases, log))
        await stack.enter_async_context(notifier)
        await stack.enter_async_context(road)
        bolt = create_bolt(client, identity)
        listeners = Listeners(
            receive=road.receive, operations=OPERATIONS, clock=clock, new_id=new_id, tell=notifier.tell
        )
        listeners.register(bolt)
        gate = Gate(identity, signing_secret=settings.slack_signing_secret)
        health = Health(
            watch,
            clock=clock,
            has_policy=lambda: app.policy is not None,
            policy_refused=lambda: bool(app.complaints),
            is_draining=lambda: app.is_draining,
            is_socket_alive=lambda: app.is_socket_alive(),
            keys_missing=cloud.without_key,
            discovery_behind=lambda: discovery.behind if discovery is not None else (),
        )
        app = App(settings, database, road, notifier, policy, complaints, metrics=metrics)
        if settings.slack_app_token is not None:
            socket_client = web_client(settings.slack_app_token, settings, session)
            await check_app_token(socket_client)
            door = SocketDoor(bolt, gate, app_token=settings.slack_app_token, client=socket_client, telemetry=telemetry)
            app.socket = await stack.enter_async_context(door)
        app.asgi = _asgi(health, HttpDoor(bolt, gate, telemetry=telemetry, now=lambda: clock().timestamp()))
        try:
            yield app
        finally:
            app.is_draining = True


@asynccontextmanager
async def open_cloud(
    environ: Mapping[str, str],
    instances: Mapping[str, Instance],
    *,
    slots: Slots,
    clock: Callable[[], datetime],
    log: Log,
    telemetry: Telemetry | None = None,
    without_key: Collection[str] = (),
) -> AsyncIterator[Cloud]:
    """The signed calls on every instance: with their keys, kept fresh, and the budget that all processes share.

    Raises `ConfigurationError` about the keys of all but those named in `without_key`.
    """

    def on_trouble(why: str) -> None:
        log.error("key not fetched", why=why)

    keyed = {name: instance for name, instance in instances.items() if name not in without_key}
    keys = keys_from(environ, keyed, now=clock, on_trouble=on_trouble)
    async with open_http() as http, kept_fresh(keys.values(), first_seconds=KEY_SECONDS), Budget(slots) as budget:
        yield Cloud(
            instances=instances,
            keys=keys,
            http=http,
            budget=budget,
            now=clock,
            new_nonce=new_id,
            telemetry=telemetry,
        )


def _policy_or_complaints(settings: Settings, log: Log) -> tuple[Policy | None, tuple[str, ...]]:
    try:
        return load_policy(settings.policies), ()
    except PolicyInvalid as error:
        for complaint in error.complaints:
            log.error("policy refused", complaint=complaint)
        return None, error.complaints


def _metrics(
    settings: Settings, watch: DatabaseWatch, policy: Policy | None, *, clock: Callable[[], datetime]
) -> Metrics | None:
    """What is served on the metrics port, if there is one. (Importing its library takes a tenth of the start.)"""
    if settings.metrics_port is None:
        return None
    from bot.metrics import Metrics, version

    digest = policy.digest[:12] if policy is not None else "none"
    return Metrics(watch, clock=clock, build={"version": version(), "schema": SCHEMA, "policy": digest})


def _asgi(health: Health, door: HttpDoor) -> ASGIApp:
    rest = Starlette(routes=health.routes())

    async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
        """Slack's deliveries go straight to their door: routing costs as much as verifying them."""
        is_slacks = scope["type"] == "http" and scope["path"] == "/slack/events" and scope["method"] == "POST"
        await (door if is_slacks else rest)(scope, receive, send)

    return asgi

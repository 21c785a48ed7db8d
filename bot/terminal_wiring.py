"""The composition root of a process at a terminal: the road, the keys and the call budget of `wiring`, without Slack.

Nothing of Slack's is needed, asked or waited for: its settings may be missing or wrong. This process works on nothing
but what is asked for in it; the rest is left to `otabrake serve`, which may run beside it. What it does not do: make a
database, or migrate one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from sqlalchemy import make_url

from bot.alibaba.key_settings import key_problems
from bot.errors import ConfigurationError, DependencyAbsent, StoreUnavailable
from bot.policy.load import Policy
from bot.ports import Slots
from bot.settings import Settings, read_settings
from bot.storage.database import Database, open_database
from bot.storage.found import SqlFound
from bot.storage.leases import SqlLeases, new_owner
from bot.storage.migrations import missing
from bot.storage.own import SqlOwnWork
from bot.storage.readings import SqlReadings
from bot.storage.slots import SqlSlots
from bot.terminal.conversation import Bell, Terminal
from bot.terminal.people import TerminalPeople
from bot.wiring import OPERATIONS, load_policy, new_id, now, open_cloud
from bot.workflow.means import Log, Means, Timings
from bot.workflow.road import Road

LOOK_SECONDS = 10
"""How long a database may take to answer at the start: there is no time to wait for one that is away."""

CALL_SECONDS = 5
"""So long a call that is under way is waited for by a person who interrupts it: else its answer would be lost."""

_NOT_NEEDED = ("HOST", "PORT", "METRICS_PORT")
_STAND_INS = {"SLACK_BOT_TOKEN": "xoxb-", "SLACK_SIGNING_SECRET": "-"}


def read_terminal_settings(environ: Mapping[str, str]) -> Settings:
    """The settings that a terminal needs. Raises `ConfigurationError`."""
    is_needed = {name: name not in _NOT_NEEDED and not name.startswith("SLACK_") for name in environ}
    needed = {name: value for name, value in environ.items() if is_needed[name]}
    settings = read_settings(needed | _STAND_INS)
    return replace(settings, slack_bot_token="", slack_signing_secret=None, environ=needed)


@asynccontextmanager
async def at_terminal(
    settings: Settings,
    actor: str,
    *,
    log: Log,
    clock: Callable[[], datetime] = now,
    timings: Timings | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    slots: Callable[[Database], Slots] = SqlSlots,
) -> AsyncIterator[Terminal]:
    """Everything that a conversation with `actor` needs.

    Raises `PolicyInvalid`, `ConfigurationError` if there is no key at all, `DependencyAbsent` without a database.
    """
    policy = load_policy(settings.policies)
    without_key = _without_key(settings.environ, policy)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(_opened(settings.database_url))
        owner, bell = new_owner(), Bell()
        own = SqlOwnWork(database, clock=clock, owner=owner)
        calls = open_cloud(
            settings.environ,
            policy.instances,
            slots=slots(database),
            clock=clock,
            log=log,
            without_key=without_key,
        )
        cloud = await stack.enter_async_context(calls)
        means = Means(
            store=own,
            leases=SqlLeases(database, owner=owner),
            readings=SqlReadings(database, clock=clock),
            found=SqlFound(database),
            reads=cloud,
            changes=cloud,
            words=cloud,
            people=TerminalPeople(clock=clock),
            notifier=bell,
            operations=OPERATIONS,
            policy=lambda: policy,
            clock=clock,
            new_id=new_id,
            sleep=sleep,
            log=log,
            timings=timings or Timings(),
        )
        road = await stack.enter_async_context(Road(means))
        try:
            yield Terminal(actor, means, own, road, bell)
        finally:
            road.stop_taking_work()
            await road.finish(CALL_SECONDS)


def _without_key(environ: Mapping[str, str], policy: Policy) -> list[str]:
    """The instances that cannot be called from here. One with a key is enough to pull the brake there."""
    problems = {name: key_problems(environ, {name: each}) for name, each in policy.instances.items()}
    if problems and all(problems.values()):
        raise ConfigurationError(list(dict.fromkeys(each for some in problems.values() for each in some)))
    return [name for name, some in problems.items() if some]


def _there(url: str) -> str:
    """SQLite would make a file that is not there, and nobody would work on what is written into it."""
    path = Path(make_url(url).database or "")
    if url.startswith("sqlite") and not path.name.startswith("file:") and not path.is_file():
        raise DependencyAbsent(
            f"There is no database {path}, and a terminal makes none. Set OTABRAKE_DATABASE_URL to the one that "
            "`otabrake serve` uses; `otabrake db upgrade` makes a new one."
        )
    return url


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[Database]:
    """A database that answers and has the schema of this version. Raises `DependencyAbsent`."""
    database = open_database(_there(url))
    try:
        await _check(database)
        yield database
    finally:
        await database.close()


async def _check(database: Database) -> None:
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            lacking = await missing(database)
    except TimeoutError as error:
        raise DependencyAbsent(f"The database did not answer within {LOOK_SECONDS} s.") from error
    except StoreUnavailable as error:
        raise DependencyAbsent(f"{str(error)[:1].upper()}{str(error)[1:]}. Check OTABRAKE_DATABASE_URL.") from error
    if lacking is not None:
        raise DependencyAbsent(f"{lacking[:1].upper()}{lacking[1:]}. (`otabrake serve` does so at its start.)")
    database.expect_short_units()

"""Several processes that migrate one database at once, and processes that are killed while they migrate it."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from bot.storage.database import open_database
from bot.storage.migrations import revision
from bot.storage.tables import SCHEMA
from tests.old_rows import put_back, recorded

pytestmark = pytest.mark.timeout(120)

ROOT = Path(__file__).parents[1]
LEFT = ("0001", "cancel: waiting")

STARTING = """
import asyncio, sys, time
from sqlalchemy import Engine, event
from bot.settings import Settings
from bot.starting import migrated
from bot.storage.database import open_database
import alembic.command

url, slow_seconds = sys.argv[1], float(sys.argv[2])
made = []

@event.listens_for(Engine, "before_cursor_execute")
def see(connection, cursor, statement, parameters, context, many):
    if statement.lstrip().startswith("CREATE TABLE leases"):
        made.append(statement)
        time.sleep(slow_seconds)

class Log:
    def info(self, *said, **facts): pass
    error = info

async def start():
    database = open_database(url)
    await migrated(database, Settings(slack_bot_token="xoxb-1", database_url=url), Log())
    await database.close()

print("ready", flush=True)
sys.stdin.readline()
asyncio.run(start())
print(len(made), flush=True)
"""


async def start_at_once(url: str, *, processes: int, slow_seconds: float = 0.0) -> list[int]:
    """How often each of these processes, all started at the same moment, made the newest table."""
    pipe = asyncio.subprocess.PIPE
    command = (sys.executable, "-c", STARTING, url, str(slow_seconds))
    children = [
        await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=pipe, stdout=pipe) for _ in range(processes)
    ]
    async with asyncio.timeout(110):
        for child in children:
            assert child.stdout is not None
            assert await child.stdout.readline() == b"ready\n"
        printed = await asyncio.gather(*(child.communicate(b"go\n") for child in children))
    assert [child.returncode for child in children] == [0] * processes
    return [int(out) for out, _ in printed]


async def make_old(url: str) -> None:
    database = open_database(url)
    await database.run(lambda connection: put_back(connection, *LEFT))
    await database.close()


async def counted(url: str, *tables: str) -> dict[str, int]:
    def unit(connection: Any) -> dict[str, int]:
        return {table: connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one() for table in tables}

    database = open_database(url)
    found = await database.read(unit)
    assert await database.read(revision) == SCHEMA
    await database.close()
    return found


@pytest.mark.parametrize("is_old", [True, False], ids=["with rows", "from nothing"])
async def test_of_three_replicas_that_start_at_once_one_migrates(empty_database_url: str, is_old: bool) -> None:
    if is_old:
        await make_old(empty_database_url)
    made = await start_at_once(empty_database_url, processes=3)
    assert sorted(made) == [0, 0, 1]
    there = {"proposals": 2, "touched_jobs": 2, "leases": 0} if is_old else {"proposals": 0, "leases": 0}
    assert await counted(empty_database_url, *there) == there


async def test_a_long_migration_is_waited_for(empty_database_url: str) -> None:
    """For longer than a statement may take, or a file may be locked, in ordinary times (5 s)."""
    await make_old(empty_database_url)
    assert sorted(await start_at_once(empty_database_url, processes=2, slow_seconds=5.5)) == [0, 1]


KILLED = """
import asyncio, json, os, signal, sys
from alembic import command
from sqlalchemy import Engine, create_engine, event, inspect
from bot.storage.database import open_database
from bot.storage.migrations import revision, upgrade

url = sys.argv[1]

def upgrade_until(most):
    done = 0

    @event.listens_for(Engine, "after_cursor_execute")
    def kill(connection, cursor, statement, parameters, context, many):
        nonlocal done
        done += 1
        if done == most:
            os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(upgrade(open_database(url)))
    os._exit(0)

def state():
    engine = create_engine(url)
    with engine.connect() as connection:
        look = inspect(connection)
        shape = {
            table: [sorted(each["name"] for each in get(table)) for get in (look.get_columns, look.get_indexes)]
            for table in sorted(look.get_table_names())
        }
        rows = {table: sorted(map(str, connection.exec_driver_sql(f"SELECT * FROM {table}"))) for table in shape}
        found = revision(connection)
    engine.dispose()
    return [found, shape, rows]

before, at, told = state(), 1, []
while True:
    child = os.fork()
    if child == 0:
        upgrade_until(at)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
    at += 2
    after = state()
    told.append([after[0], after == before])
print(json.dumps({"kills": told, "last": state()[0], "exit": os.WEXITSTATUS(status)}))
"""


async def test_a_migration_that_is_killed_at_any_point_has_changed_nothing(empty_database_url: str) -> None:
    await make_old(empty_database_url)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, empty_database_url, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(110):
        printed, _ = await child.communicate()
    told = json.loads(printed)
    assert len(told["kills"]) > 15
    assert {tuple(after) for after in told["kills"]} == {("0001", True)}
    assert (told["last"], told["exit"]) == (SCHEMA, 0)
    proposals = sum(table == "proposals" for table, _ in recorded(LEFT[0])[LEFT[1]])
    assert await counted(empty_database_url, "proposals") == {"proposals": proposals}

"""Moving everything from one database to another: all of it exactly, or nothing."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Connection, create_engine, insert, select, text

from bot.cli import main
from bot.exchange import PostKind
from bot.model import Firmware, Target, TaskState
from bot.ports import Lane, Reading, Surface, Watched
from bot.proposals import State
from bot.storage import holding
from bot.storage.database import Database, open_database
from bot.storage.holding import MoveRefused
from bot.storage.leases import SqlLeases
from bot.storage.migrations import revision, upgrade
from bot.storage.moving import MOVED, move
from bot.storage.slots import SqlSlots
from bot.storage.tables import SCHEMA, entries, inbox, leases, looks, metadata, outbox, slots
from tests.conftest import Clock
from tests.old_rows import migrate_to
from tests.values import counts, job
from tests.world import World, living_world

ROOT = Path(__file__).parents[1]
NOT_MOVED = (slots, looks, leases)
WAYS = [
    pytest.param(("sqlite", "postgres"), marks=pytest.mark.postgres, id="sqlite-postgres"),
    pytest.param(("postgres", "sqlite"), marks=pytest.mark.postgres, id="postgres-sqlite"),
]
SAME_KIND = pytest.param(("sqlite", "other_sqlite"), id="sqlite-sqlite")
ODD = "ünï\u202ecødé \U0001f525 'quoted' \"double\" back\\slash\nnew line \x7f"

SECOND = "another"

Tables = dict[str, list[tuple[Any, ...]]]
Way = tuple[str, str]


@pytest.fixture
def other_sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'other.db'}"


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Way:
    """The URLs of a migrated database without rows, and of one to move to."""
    source, target = request.param
    return request.getfixturevalue(f"{source}_url"), request.getfixturevalue(f"{target}_url")


@pytest.fixture
async def lived_in(way: Way, clock: Clock) -> Way:
    """The source has rows in every table, and nobody works on it."""
    await live(way[0], clock)
    return way


async def live(url: str, clock: Clock) -> None:
    """Flows in several states, as the road writes them, and everything that is written beside it."""
    async with living_world(clock, url) as world:
        await world.ask()
        assert (await world.click()).state is State.FINISHED
        await world.means.found.save_found(
            "prod-shanghai", [Firmware("fw-421", created_at=clock())], [job()], seen_at=clock()
        )
        reading = Reading(counts(QUEUED=3), clock())
        await world.means.readings.save_reading(Watched(Target("prod", "J1")), reading, pause_seconds=1)
        await SqlSlots(world.database).claim(Lane("a", "b", 5), foreground=1, background=0, hold_seconds=1)
        ended = await world.last()
        assert ended is not None
        assert await world.store.save_surface(ended.proposal_id, Surface("C0INCIDENT", "1.2"), was=Surface())
        clock.pass_by(1)
        set_the_stage(world)
        offered = await world.ask(job=SECOND)
        assert offered is not None
        assert offered.state is State.OFFERED
        await world.database.run(odd_rows)


def set_the_stage(world: World) -> None:
    """A second rollout, with something left to stop."""
    world.cloud.others[SECOND] = job(job_id=SECOND), dict.fromkeys(TaskState, 0) | {TaskState.QUEUED: 5}


def odd_rows(connection: Connection) -> None:
    """What is easily bent: signs, bytes, microseconds, absent values, long texts."""
    at = datetime(2026, 3, 1, 23, 59, 59, 999_999, tzinfo=UTC)
    connection.execute(insert(entries).values(at=at, name="n", actor=ODD, proposal_id=None, body=bytes(range(256))))
    connection.execute(insert(inbox).values(delivery_id="d", key=ODD, received_at=at, handled_at=None, body=ODD * 5000))
    connection.execute(
        insert(outbox).values(lane="l", created_at=at, settled_at=at, attempts=2**31 - 1, failure=ODD, body="")
    )


def rows_of(url: str) -> Tables:
    engine = create_engine(url)
    with engine.connect() as connection:
        found = {
            table.name: sorted(map(tuple, connection.execute(select(table))), key=repr)
            for table in metadata.sorted_tables
            if connection.dialect.has_table(connection, table.name)
        }
    engine.dispose()
    return found


def is_there(url: str) -> bool:
    return not url.startswith("sqlite") or Path(url.removeprefix("sqlite:///")).exists()


async def child(script: str, *arguments: str) -> tuple[int, str]:
    """A process of its own: its exit code, and what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, *arguments, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(55):
        printed, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, printed.decode()


@pytest.mark.parametrize("way", [*WAYS, SAME_KIND], indirect=True)
async def test_everything_stands_in_the_other_database_as_it_stood(lived_in: Way) -> None:
    source, target = lived_in
    before = rows_of(source)
    assert [name for name, rows in before.items() if not rows and name != leases.name] == []
    moved = await move(source, target)
    after = rows_of(target)
    for table in MOVED:
        assert after[table.name] == before[table.name], table.name
        assert moved.rows[table.name] == len(before[table.name])
    assert rows_of(source) == before


async def test_what_means_nothing_elsewhere_is_left(lived_in: Way) -> None:
    source, target = lived_in
    await move(source, target)
    there = rows_of(target)
    assert [there[table.name] for table in NOT_MOVED] == [[], [], []]


def test_every_table_is_moved_or_left_for_a_reason() -> None:
    assert {*MOVED, *NOT_MOVED} == set(metadata.tables.values())


async def test_what_was_pending_goes_on_at_the_other_database(lived_in: Way, clock: Clock) -> None:
    source, target = lived_in
    await move(source, target)
    highest = [max(row[0] for row in rows_of(target)[table.name]) for table in (entries, outbox)]
    async with living_world(clock, target) as world:
        world.ids = 100
        set_the_stage(world)
        assert (await world.click()).state is State.FINISHED
        assert [step.step.target.job for step in world.cloud.sent] == [SECOND]
        assert await world.said(PostKind.BROADCAST)
    new = {table.name: [row[0] for row in rows_of(target)[table.name]] for table in (entries, outbox)}
    assert [sum(each > old for each in ids) > 0 for ids, old in zip(new.values(), highest, strict=True)] == [True, True]
    assert [len(set(ids)) == len(ids) for ids in new.values()] == [True, True]


async def test_an_empty_database_is_moved_and_can_be_used(way: Way, clock: Clock) -> None:
    source, target = way
    assert sum((await move(source, target)).rows.values()) == 0
    async with living_world(clock, target) as world:
        await world.ask()
    assert min(row[0] for row in rows_of(target)["entries"]) == 1


# What is refused, and that nothing was moved then.


async def refused(source: str, target: str) -> str:
    with pytest.raises(MoveRefused) as caught:
        await move(source, target)
    return str(caught.value)


async def test_a_target_with_rows_is_refused(lived_in: Way) -> None:
    source, target = lived_in
    await move(source, target)
    there = rows_of(target)
    assert "the target has rows already (in entries)" in await refused(source, target)
    assert rows_of(target) == there


@pytest.mark.parametrize("table", ["slots", "leases"])
async def test_a_target_that_a_bot_has_used_is_refused(way: Way, table: str) -> None:
    source, target = way
    database = open_database(target)
    await upgrade(database)
    if table == "slots":
        await SqlSlots(database).claim(Lane("a", "b", 5), foreground=1, background=0, hold_seconds=1)
    else:
        await SqlLeases(database, owner="o").claim(["lane:x"])
    await database.close()
    assert f"rows already (in {table})" in await refused(source, target)


async def test_a_target_that_is_somebody_elses_is_refused(sqlite_url: str, empty_database_url: str) -> None:
    database = open_database(empty_database_url)
    await database.run(lambda connection: connection.execute(text("CREATE TABLE calls (x INTEGER)")) and None)
    await database.close()
    assert "tables that otabrake did not make (calls)" in await refused(sqlite_url, empty_database_url)


async def test_a_target_of_a_newer_version_is_refused(sqlite_url: str, empty_database_url: str) -> None:
    await set_revision(empty_database_url, "9999")
    assert "knows none after" in await refused(sqlite_url, empty_database_url)


async def test_a_target_of_an_older_version_without_rows_is_brought_up_to_date(
    sqlite_url: str, empty_database_url: str
) -> None:
    database = open_database(empty_database_url)
    await database.run(lambda connection: migrate_to(connection, "0003"))
    await database.close()
    await move(sqlite_url, empty_database_url)
    database = open_database(empty_database_url)
    assert await database.read(revision) == SCHEMA
    await database.close()


async def set_revision(url: str, to: str) -> None:
    def unit(connection: Connection) -> None:
        connection.execute(text("UPDATE alembic_version SET version_num = :to"), {"to": to})

    database = open_database(url)
    await upgrade(database)
    await database.run(unit)
    await database.close()


async def test_a_source_that_is_not_up_to_date_is_refused(empty_database_url: str, other_sqlite_url: str) -> None:
    await set_revision(empty_database_url, "0003")
    said = await refused(empty_database_url, other_sqlite_url)
    assert "cannot be moved yet" in said
    assert "otabrake db upgrade" in said
    assert not is_there(other_sqlite_url)


async def test_a_source_with_nothing_in_it_is_refused(empty_database_url: str, other_sqlite_url: str) -> None:
    assert "the source is empty" in await refused(empty_database_url, other_sqlite_url)


async def test_a_database_is_not_moved_to_itself(any_database_url: str) -> None:
    again = any_database_url.replace("sqlite:////", "sqlite:////./")
    assert "the same database" in await refused(any_database_url, again)


async def test_a_source_on_which_somebody_works_is_refused(lived_in: Way) -> None:
    source, target = lived_in
    database = open_database(source)
    await SqlLeases(database, owner="a process").claim(["proposal:p1"])
    await database.close()
    assert "1 piece(s) of work on the source are being done" in await refused(source, target)
    assert_untouched(target)


async def test_a_lease_that_lapsed_just_now_may_be_of_somebody_slow(
    lived_in: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = lived_in
    database = open_database(source)
    await SqlLeases(database, owner="a process").claim(["proposal:p1"])
    await set_until(database, seconds_ago=20)
    await database.close()
    assert "a moment ago" in await refused(source, target)
    database = open_database(source)
    await set_until(database, seconds_ago=holding.RECENT_SECONDS + 5)
    await database.close()
    assert (await move(source, target)).rows["proposals"] == 2


async def set_until(database: Database, *, seconds_ago: float) -> None:
    from bot.storage.statements import DatabaseNow

    until = leases.update().values(until=DatabaseNow() - seconds_ago)
    await database.run(lambda connection: connection.execute(until) and None)


async def test_a_source_that_somebody_has_open_is_refused(lived_in: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bot with nothing to do holds no lease; it is connected all the same."""
    monkeypatch.setattr(holding, "ALONE_SECONDS", 0.2)
    monkeypatch.setattr(holding, "LOOK_SECONDS", 0.2)
    source, target = lived_in
    database = open_database(source)
    await database.read(revision)
    assert "stop otabrake wherever it runs" in await refused(source, target)
    await database.close()
    assert_untouched(target)
    assert (await move(source, target)).rows["proposals"] == 2


async def test_nobody_can_write_to_the_source_while_it_is_moved(lived_in: Way) -> None:
    source, target = lived_in
    tried = []

    def told(line: str) -> None:
        if not tried:
            engine = create_engine(source, connect_args=impatient(source))
            with engine.connect() as connection, pytest.raises(Exception, match=r"lock") as caught:
                connection.execute(text("UPDATE proposals SET version = version + 1"))
            engine.dispose()
            tried.append(caught.value)

    await move(source, target, told=told)
    assert len(tried) == 1


def impatient(url: str) -> dict[str, Any]:
    return {"timeout": 0.1} if url.startswith("sqlite") else {"options": "-c lock_timeout=100ms"}


def assert_untouched(target: str) -> None:
    """Not there, or a schema without rows."""
    if is_there(target):
        assert [name for name, rows in rows_of(target).items() if rows] == []


# What goes wrong on the way.


async def test_a_row_that_comes_out_different_is_noticed(lived_in: Way) -> None:
    source, target = lived_in
    database = open_database(target)
    await upgrade(database)
    bend = "UPDATE entries SET actor = 'somebody else' WHERE entry_id = 2"
    if target.startswith("sqlite"):
        bent = [f"CREATE TRIGGER bend AFTER INSERT ON entries WHEN NEW.entry_id = 2 BEGIN {bend}; END"]
    else:
        bent = [
            f"CREATE FUNCTION bend() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {bend}; RETURN NULL; END $$",
            "CREATE TRIGGER bend AFTER INSERT ON entries FOR EACH STATEMENT EXECUTE FUNCTION bend()",
        ]
    for statement in bent:
        await database.run(lambda connection, of=statement: connection.execute(text(of)) and None)
    await database.close()
    assert "entries came out different" in await refused(source, target)
    assert_untouched(target)
    if not target.startswith("sqlite"):
        engine = create_engine(target)
        with engine.begin() as connection:
            connection.execute(text("DROP FUNCTION bend CASCADE"))
        engine.dispose()


@pytest.mark.postgres
async def test_a_row_that_the_target_does_not_take_is_named(sqlite_url: str, postgres_url: str, clock: Clock) -> None:
    await live(sqlite_url, clock)
    database = open_database(sqlite_url)
    nul = text("UPDATE outbox SET body = 'a' || char(0) || 'b' WHERE post_id = 1")
    await database.run(lambda connection: connection.execute(nul) and None)
    await database.close()
    assert "the target does not take the rows of outbox" in await refused(sqlite_url, postgres_url)
    assert_untouched(postgres_url)


async def test_a_move_that_is_given_up_has_moved_nothing(lived_in: Way) -> None:
    source, target = lived_in
    going: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    loop = asyncio.get_running_loop()
    may_go_on = threading.Event()

    def told(line: str) -> None:
        loop.call_soon_threadsafe(lambda: going.done() or going.set_result(None))
        may_go_on.wait(10)

    moving = asyncio.create_task(move(source, target, told=told))
    await going
    moving.cancel()
    loop.call_later(0.1, may_go_on.set)
    with pytest.raises(asyncio.CancelledError):
        await moving
    assert_untouched(target)
    assert (await move(source, target)).rows["proposals"] == 2


KILLED = """
import asyncio, os, signal, sys
from sqlalchemy import Engine, event
from bot.storage.moving import move

source, target, most = sys.argv[1], sys.argv[2], int(sys.argv[3])
done = 0

@event.listens_for(Engine, "after_cursor_execute")
def count(connection, cursor, statement, parameters, context, many):
    global done
    done += statement.startswith(("INSERT INTO", "SELECT setval"))
    if done == most:
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(move(source, target))
"""


@pytest.mark.parametrize("way", [*WAYS, SAME_KIND], indirect=True)
@pytest.mark.parametrize("after", [1, 11])
async def test_a_move_that_is_killed_has_moved_nothing_and_can_be_made_again(lived_in: Way, after: int) -> None:
    source, target = lived_in
    before = rows_of(source)
    assert (await child(KILLED, source, target, str(after)))[0] == -signal.SIGKILL
    assert_untouched(target)
    assert rows_of(source) == before
    await move(source, target)
    assert rows_of(target)["entries"] == before["entries"]


MEASURED = """
import asyncio, pathlib, sys
from bot.storage import moving

def most_kilobytes():
    [line] = [line for line in pathlib.Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1])

before = most_kilobytes()
moved = asyncio.run(moving.move(sys.argv[1], sys.argv[2]))
print(moved.rows["entries"], (most_kilobytes() - before) // 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells how much memory a process took")
async def test_a_hundred_thousand_entries_are_moved_a_page_at_a_time(way: Way) -> None:
    """64 MB of them; what a process needs for it is what a few pages take, and the drivers."""
    source, target = way
    database = open_database(source)
    row = {"at": datetime(2026, 3, 1, tzinfo=UTC), "name": "n", "actor": "a", "proposal_id": "p", "body": b"x" * 640}
    for _ in range(100):
        await database.run(lambda connection: connection.execute(insert(entries), [row] * 1000) and None)
    await database.close()
    code, printed = await child(MEASURED, source, target)
    assert code == 0
    rows, megabytes = map(int, printed.split())
    assert rows == 100_000
    assert megabytes < 40


# The command.


def run(source: str, *arguments: str) -> Result:
    env = {"OTABRAKE_DATABASE_URL": source.replace("+psycopg", "")}
    return CliRunner().invoke(main, ["db", "move", *arguments], env=env)


def test_the_command_moves_and_says_what_to_do_next(way: Way, clock: Clock) -> None:
    source, target = way
    asyncio.run(live(source, clock))
    result = run(source, "--to", target.replace("+psycopg", ""))
    assert result.exit_code == 0
    assert f"Moved {sum(len(rows_of(source)[table.name]) for table in MOVED)} rows to" in result.output
    assert "set OTABRAKE_DATABASE_URL to it" in result.output
    assert "never start otabrake on it again" in result.output
    again = run(source, "--to", target.replace("+psycopg", ""))
    assert (again.exit_code, "the target has rows already" in again.output) == (1, True)


@pytest.mark.parametrize(
    ("to", "code", "said"),
    [
        ("mysql://x", 2, "--to must begin with"),
        ("", 2, "--to is empty"),
        ("postgresql://bot:s3cret@127.0.0.1:1/none", 3, "the target: the database cannot be used now"),
        ("sqlite:////nowhere/at/all.db", 3, "the target: the database cannot be used now"),
    ],
)
def test_a_target_that_cannot_be_used_is_said(sqlite_url: str, to: str, code: int, said: str) -> None:
    result = run(sqlite_url, "--to", to)
    assert (result.exit_code, said in result.output, "s3cret" in result.output) == (code, True, False)


def test_a_source_that_is_away_is_said(sqlite_url: str) -> None:
    result = run("postgresql://postgres@127.0.0.1:1/none", "--to", sqlite_url)
    assert (result.exit_code, "the source: the database cannot be used now" in result.output) == (3, True)


def test_a_move_needs_a_target(sqlite_url: str) -> None:
    assert run(sqlite_url).exit_code == 2

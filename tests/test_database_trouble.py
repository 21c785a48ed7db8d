"""Units of work while their database breaks: what is known of each, and that the next ones work by themselves.

PostgreSQL is a server of the tests' own, which they restart, kill and silence; SQLite's disk is full, or not there.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from sqlalchemy import Connection, text

from bot.errors import StoreUnavailable
from bot.storage.database import Database, open_database
from bot.storage.postgres import SILENT_SECONDS
from bot.storage.sqlite import _may_be_on_disk
from tests.own_postgres import OwnPostgres, own_postgres


@pytest.fixture(scope="module")
def server() -> Iterator[OwnPostgres]:
    with own_postgres() as running:
        yield running


@pytest.fixture
async def database(server: OwnPostgres) -> AsyncIterator[Database]:
    opened = open_database(server.new_database())
    await opened.run(lambda connection: connection.execute(text("CREATE TABLE kept (word TEXT PRIMARY KEY)")) and None)
    opened.expect_short_units()
    try:
        yield opened
    finally:
        server.go_on()
        await opened.close()


def keep(word: str) -> Callable[[Connection], None]:
    return lambda connection: connection.execute(text("INSERT INTO kept VALUES (:word)"), {"word": word}) and None


async def kept(database: Database) -> set[str]:
    return set(await database.read(lambda connection: connection.scalars(text("SELECT word FROM kept")).all()))


async def until_written(database: Database, word: str) -> float:
    """How many seconds it takes until this can be written."""
    began = time.monotonic()
    while True:
        try:
            await database.run(keep(word))
        except StoreUnavailable:
            await asyncio.sleep(0.02)
        else:
            return time.monotonic() - began


async def test_a_server_that_was_restarted_is_used_again_at_once(server: OwnPostgres, database: Database) -> None:
    await asyncio.gather(*(database.run(keep(f"before {number}")) for number in range(20)))
    server.restart()
    assert await until_written(database, "after") < 1
    assert {"before 0", "before 19", "after"} <= await kept(database)


@pytest.mark.parametrize("how", ["kill_backends", "terminate_backends"])
async def test_a_transaction_whose_server_dies_leaves_nothing(
    server: OwnPostgres, database: Database, how: str
) -> None:
    url = str(database.engine.url.render_as_string())

    def interrupted(connection: Connection) -> None:
        keep("half")(connection)
        getattr(server, how)(url)
        keep("other half")(connection)

    with pytest.raises(StoreUnavailable) as raised:
        await database.run(interrupted)
    assert not raised.value.may_have_written
    assert await until_written(database, "after") < 5
    assert await kept(database) == {"after"}


_SLOW_COMMIT = """
CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {what}; RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER dawdle AFTER INSERT ON kept DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION dawdle()
"""


async def test_a_commit_that_is_not_confirmed_may_have_been_written(server: OwnPostgres, database: Database) -> None:
    slow = _SLOW_COMMIT.format(what="PERFORM pg_sleep(2)")
    await database.run(lambda connection: connection.exec_driver_sql(slow) and None)
    writing = asyncio.create_task(database.run(keep("perhaps")))
    await asyncio.sleep(0.5)
    server.terminate_backends(str(database.engine.url.render_as_string()))
    with pytest.raises(StoreUnavailable, match="did not confirm a commit") as raised:
        await writing
    assert raised.value.may_have_written


async def test_a_commit_that_is_refused_was_not_written(database: Database) -> None:
    refusing = _SLOW_COMMIT.format(what="RAISE EXCEPTION 'no room'")
    await database.run(lambda connection: connection.exec_driver_sql(refusing) and None)
    with pytest.raises(StoreUnavailable, match="no room") as raised:
        await database.run(keep("no"))
    assert not raised.value.may_have_written
    assert await kept(database) == set()


async def test_who_cannot_wait_is_told_in_time_that_a_silent_server_has_written_nothing(
    server: OwnPostgres, database: Database
) -> None:
    await asyncio.gather(*(database.run(keep(f"before {number}")) for number in range(20)))
    server.silence()
    stuck = [asyncio.create_task(database.run(keep(f"stuck {number}"))) for number in range(12)]
    await asyncio.sleep(0.1)
    began = time.monotonic()
    hasty = [database.run(keep(f"hasty {number}"), within_seconds=1) for number in range(4)]
    outcomes = await asyncio.gather(*hasty, return_exceptions=True)
    assert time.monotonic() - began < 1.3
    assert [(type(each), getattr(each, "may_have_written", None)) for each in outcomes] == [
        (StoreUnavailable, False)
    ] * 4
    server.go_on()
    await asyncio.gather(*stuck)
    assert not {word for word in await kept(database) if word.startswith("hasty")}


async def test_threads_that_wait_for_a_silent_server_are_freed(server: OwnPostgres, database: Database) -> None:
    """As when its address has moved to another machine: what hangs in the old one must not keep the pool."""
    await asyncio.gather(*(database.run(keep(f"before {number}")) for number in range(40)))
    server.silence([pid for pid in server.processes() if pid != server.pid])
    began = time.monotonic()
    outcomes = await asyncio.gather(
        *(database.run(keep(f"stuck {number}")) for number in range(8)), return_exceptions=True
    )
    assert {type(each) for each in outcomes} == {StoreUnavailable}
    assert time.monotonic() - began < SILENT_SECONDS + 1.5
    assert await until_written(database, "after") < 1
    server.go_on()
    assert not {word for word in await kept(database) if word.startswith("stuck")}


async def test_what_is_cancelled_before_its_commit_is_not_written(server: OwnPostgres, database: Database) -> None:
    await database.run(keep("before"))
    server.silence()
    writing = asyncio.create_task(database.run(keep("never")))
    await asyncio.sleep(0.2)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    server.go_on()
    assert await until_written(database, "after") < 1
    assert await kept(database) == {"before", "after"}


async def test_a_silent_server_does_not_keep_a_database_from_being_closed(server: OwnPostgres) -> None:
    opened = open_database(server.new_database())
    await opened.run(lambda connection: connection.execute(text("CREATE TABLE kept (word TEXT)")) and None)
    server.silence()
    stuck = [asyncio.create_task(opened.run(keep(f"stuck {number}"))) for number in range(30)]
    await asyncio.sleep(0.1)
    began = time.monotonic()
    await opened.close()
    assert time.monotonic() - began < 5
    server.go_on()
    assert {type(each) for each in await asyncio.gather(*stuck, return_exceptions=True)} == {StoreUnavailable}


@pytest.fixture
async def file(empty_sqlite_url: str) -> AsyncIterator[Database]:
    opened = open_database(empty_sqlite_url)
    await opened.run(lambda connection: connection.execute(text("CREATE TABLE kept (word TEXT PRIMARY KEY)")) and None)
    yield opened
    await opened.close()


def locked(url: str) -> sqlite3.Connection:
    """As another process that writes would have it."""
    other = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other


async def test_who_cannot_wait_for_a_locked_file_is_told_that_nothing_was_written(
    file: Database, empty_sqlite_url: str
) -> None:
    with contextlib.closing(locked(empty_sqlite_url)) as other:
        patient = asyncio.create_task(file.run(keep("patient")))
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="nothing was written") as raised:
            await file.run(keep("hasty"), within_seconds=0.5)
        assert (raised.value.may_have_written, time.monotonic() - began < 1) == (False, True)
        other.execute("ROLLBACK")
        await patient
    assert await until_written(file, "after") < 1
    assert await kept(file) == {"patient", "after"}


async def test_what_is_cancelled_while_it_waits_for_a_locked_file_is_not_written(
    file: Database, empty_sqlite_url: str
) -> None:
    with contextlib.closing(locked(empty_sqlite_url)) as other:
        writing = asyncio.create_task(file.run(keep("never")))
        await asyncio.sleep(0.1)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        other.execute("ROLLBACK")
    assert await until_written(file, "after") < 1
    assert await kept(file) == {"after"}


def most_pages(pages: int) -> Callable[[Connection], None]:
    """A disk that is full for this connection: SQLite refuses to make the file larger, as it does for a real one."""
    return lambda connection: connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}") and None


async def test_a_full_disk_undoes_all_that_would_have_shared_a_commit_and_says_why(file: Database) -> None:
    await file.run(most_pages(1))
    long = [keep(f"{number} {'x' * 100_000}") for number in range(4)]
    outcomes = await asyncio.gather(*(file.run(unit) for unit in (keep("short"), *long)), return_exceptions=True)
    assert [type(each) for each in outcomes[1:]] == [StoreUnavailable] * 4
    assert {str(each) for each in outcomes[1:]} == {"the database cannot be used now (database or disk is full)"}
    assert not any(getattr(each, "may_have_written", False) for each in outcomes)
    expected = {"short"} if outcomes[0] is None else set()
    assert await kept(file) == expected
    assert await until_written(file, "after") < 1


async def test_a_file_that_is_put_back_is_read_and_written_anew(file: Database, empty_sqlite_url: str) -> None:
    """After trouble neither writer nor reader goes on with a connection that may hold on to what is gone."""
    path = empty_sqlite_url.removeprefix("sqlite:///")
    await file.run(keep("before"))
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("ALTER TABLE kept RENAME TO gone")
    with pytest.raises(StoreUnavailable, match="no such table"):
        await file.run(keep("lost"))
    with pytest.raises(StoreUnavailable, match="no such table"):
        await kept(file)
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("ALTER TABLE gone RENAME TO kept")
    assert await until_written(file, "after") < 1
    assert await kept(file) == {"before", "after"}


@pytest.mark.parametrize(
    ("code", "may_have_written"),
    [
        (sqlite3.SQLITE_FULL, False),
        (sqlite3.SQLITE_IOERR_WRITE, False),
        (sqlite3.SQLITE_IOERR_FSYNC, True),
        (sqlite3.SQLITE_BUSY, False),
    ],
)
def test_only_a_log_that_may_be_on_the_disk_leaves_a_commit_in_doubt(code: int, *, may_have_written: bool) -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = code
    assert _may_be_on_disk(error) is may_have_written

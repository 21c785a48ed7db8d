"""The database that a move is from, held: nobody can write to it while it is read, and nobody was at work on it.

SQLite is asked to let nobody else have the file open, not even idly; PostgreSQL to let nobody write, and who else is
connected. A lease that has not lapsed, or only just, says that a process may still be at work. What it does not do:
move anything, or write.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, func, select, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from bot.errors import OtabrakeError, StoreUnavailable
from bot.storage.checking import LOOK_SECONDS, file_of
from bot.storage.migrations import lacking, revision
from bot.storage.statements import DatabaseNow
from bot.storage.tables import leases, metadata
from bot.storage.units import translated

RECENT_SECONDS = 30.0
"""A lease that lapsed so lately may be of a process that is only slow."""

AHEAD_SECONDS = 10.0
"""No lease ends further ahead: one that seems to was written before a clock was set back."""

ALONE_SECONDS = 2.0
LOOKS_AT_OTHERS = 10
"""A connection that was closed a moment ago is still seen for a while."""

_LOCK_NOT_AVAILABLE = "55P03"
_STOP_IT = "stop otabrake wherever it runs"
_HOLD_SERVER = (
    # Before the first read, so that the snapshot is of what is held. A timeout here means that somebody is writing.
    f"SET LOCAL lock_timeout = '{LOOK_SECONDS}s'",
    f"LOCK TABLE {', '.join(metadata.tables)} IN SHARE MODE",
    "SET LOCAL statement_timeout = 0",
)
_OTHERS = text("""
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
AND application_name IN ('', 'otabrake')
""")


class MoveRefused(OtabrakeError):
    """Nothing was moved; the text says why, and what to do."""


@contextmanager
def held(url: str) -> Iterator[Connection]:
    """The source, for reading, while nobody can write to it. Raises `MoveRefused` if somebody may be at work on it."""
    path = file_of(url)
    if path is not None and not path.exists():
        raise MoveRefused(f"the source is empty: there is no file {path}. Look at OTABRAKE_DATABASE_URL.")
    engine = _holder(url)
    try:
        with named("source"):
            connection = engine.connect()
        with connection:
            with named("source"):
                _hold(connection)
            yield connection
    finally:
        engine.dispose()


@contextmanager
def named(which: str) -> Iterator[None]:
    """Says which of the two it was that could not be used."""
    try:
        with translated():
            yield
    except StoreUnavailable as error:
        raise StoreUnavailable(f"the {which}: {error}") from error


def _holder(url: str) -> Engine:
    if url.startswith("sqlite"):
        settings: dict[str, Any] = {"timeout": LOOK_SECONDS, "check_same_thread": False}
        return create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args=settings)
    settings = {"connect_timeout": LOOK_SECONDS, "options": f"-c statement_timeout={LOOK_SECONDS * 2000}"}
    return create_engine(url, poolclass=NullPool, isolation_level="REPEATABLE READ", connect_args=settings)


def _hold(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        _hold_file(connection)
        _refuse_old(connection)
    else:
        _refuse_old(connection)
        connection.rollback()  # what was seen is of a snapshot before the hold
        _hold_server(connection)
    _refuse_work(connection)


def _hold_file(connection: Connection) -> None:
    """In this mode SQLite lets nobody else have the file open, not even idly, until this connection is closed."""
    try:
        connection.exec_driver_sql("PRAGMA locking_mode = EXCLUSIVE")
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    except SQLAlchemyError as error:
        if "locked" not in str(error):
            raise
        raise MoveRefused(f"another process has the source open: {_STOP_IT}, then try again.") from error


def _hold_server(connection: Connection) -> None:
    try:
        for statement in _HOLD_SERVER:
            connection.execute(text(statement))
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
            raise
        raise MoveRefused(f"something writes to the source: {_STOP_IT}, then try again.") from error
    for _ in range(LOOKS_AT_OTHERS):
        others = connection.execute(_OTHERS).scalar_one()
        if not others:
            return
        time.sleep(ALONE_SECONDS / LOOKS_AT_OTHERS)
        connection.execute(text("SELECT pg_stat_clear_snapshot()"))
    raise MoveRefused(
        f"{others} other connection(s) to the source are open that may be otabrake's: {_STOP_IT}, and any pooler that "
        "keeps connections, then try again."
    )


def _refuse_old(connection: Connection) -> None:
    found = revision(connection)
    if found is None:
        raise MoveRefused("the source is empty: look at OTABRAKE_DATABASE_URL.")
    if sentence := lacking(found):
        raise MoveRefused(f"the source cannot be moved yet: {sentence}.")


def _refuse_work(connection: Connection) -> None:
    now = DatabaseNow()
    is_at_work = leases.c.until.between(now - RECENT_SECONDS, now + AHEAD_SECONDS)
    if held := connection.scalar(select(func.count()).select_from(leases).where(is_at_work)):
        raise MoveRefused(
            f"{held} piece(s) of work on the source are being done, or were a moment ago: {_STOP_IT}, wait "
            f"{RECENT_SECONDS:.0f} seconds, then try again."
        )

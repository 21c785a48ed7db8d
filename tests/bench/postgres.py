"""An empty PostgreSQL database for a measurement, where a server answers."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

POSTGRES = os.environ.get("OTABRAKE_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432/postgres")


@contextlib.contextmanager
def postgres_database(*, is_wanted: bool = True) -> Iterator[str | None]:
    """The URL of an empty database, dropped afterwards; None, with the reason printed, where there is no server."""
    if not is_wanted:
        yield None
        return
    try:
        import psycopg
    except ImportError:
        print("PostgreSQL is skipped: psycopg is not installed")
        yield None
        return
    name = f"otabrake_bench_{secrets.token_hex(4)}"
    try:
        connection = psycopg.connect(POSTGRES, autocommit=True, connect_timeout=2)
    except psycopg.OperationalError as error:
        print(f"PostgreSQL is skipped: nothing answers at {POSTGRES} ({str(error).splitlines()[0]})")
        yield None
        return
    with connection:
        connection.execute(f"CREATE DATABASE {name}")
    try:
        yield POSTGRES.rpartition("/")[0] + f"/{name}"
    finally:
        with psycopg.connect(POSTGRES, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def backends(database: str) -> list[int]:
    """The server's processes that serve this database, where they run on this machine and can be seen."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            said = path.read_bytes()
            if said.startswith(b"postgres:") and f" {database} ".encode() in said:
                found.append(int(path.parent.name))
    return found

"""What a database lacks, found by looking only: nothing is written, and no file is made.

A file of SQLite that nobody has open is read as if it could not change, so that no file appears beside it either.
Whether a database could be written is told by what the file system or the server says of it. What it does not do: mend
anything, or judge rows.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine, Index, Table, UniqueConstraint, create_engine, inspect, make_url, text
from sqlalchemy.engine.reflection import Inspector
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateIndex

from bot.errors import ConfigurationError, StoreUnavailable
from bot.storage.migrations import is_known, lacking, revision
from bot.storage.tables import SCHEMA, metadata
from bot.storage.units import translated

LOOK_SECONDS = 5
"""How long one question may take."""

_CAN_WRITE = text("SELECT pg_is_in_recovery() AS is_standby, current_setting('transaction_read_only') AS read_only")
_NOT_GRANTED = text("""
SELECT name, string_agg(right_, ', ') AS rights, current_user AS me
FROM unnest(CAST(:names AS text[])) AS name, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS right_
WHERE NOT has_table_privilege(quote_ident(name), right_) GROUP BY name ORDER BY name
""")
_NOT_OWNED = text("""
SELECT relname FROM pg_class WHERE relname = ANY(:names) AND relkind = 'r' AND pg_table_is_visible(oid)
AND NOT pg_has_role(relowner, 'USAGE') ORDER BY relname
""")
_SCHEMA = text("""
SELECT current_schema() AS name, current_user AS me,
       COALESCE(has_schema_privilege(current_schema(), 'CREATE'), false) AS is_granted
""")


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found. `missing` are parts of the newest schema by name, `problems` sentences that say what to do."""

    revision: str | None
    missing: tuple[str, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of the schema; an index can be made by hand."""

    name: str
    index: Index | None = None


def check(url: str) -> Checked:
    """Looks at a database by URL. Raises `StoreUnavailable` (cannot be read) or `ConfigurationError` (is none)."""
    path = file_of(url)
    if path is None:
        return _check_server(url)
    if path.is_dir():
        raise ConfigurationError([f"{path} is a folder: name a file in it, as in sqlite:///{path}/otabrake.db."])
    if not path.exists():
        return Checked(None, (), (f"{lacking(None)} (there is no file {path} yet)", *_file_problems(path)))
    try:
        with translated(), looking(url) as connection:
            return _checked(connection, _file_problems(path))
    except StoreUnavailable as error:
        if "not a database" in str(error):
            raise ConfigurationError([f"{path} is a file, but not one of SQLite: name another, or move it."]) from error
        raise


def _check_server(url: str) -> Checked:
    with translated(), looking(url) as connection:
        problems = tuple(_server_problems(connection))
        connection.execute(text("SET TRANSACTION READ ONLY"))
        return _checked(connection, problems)


def file_of(url: str) -> Path | None:
    """The file that a URL of SQLite names; None for a server."""
    if not url.startswith("sqlite"):
        return None
    return Path((make_url(url).database or "").removeprefix("file:").partition("?")[0])


@contextmanager
def looking(url: str) -> Iterator[Connection]:
    """A connection to read from."""
    engine = _reader(url)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def _reader(url: str) -> Engine:
    path = file_of(url)
    if path is None:
        settings = {"connect_timeout": LOOK_SECONDS, "options": f"-c statement_timeout={LOOK_SECONDS * 1000}"}
        return create_engine(url, poolclass=NullPool, connect_args=settings)
    is_open = any(Path(f"{path}{beside}").exists() for beside in ("-wal", "-journal"))
    address = f"{path.absolute().as_uri()}?mode=ro{'' if is_open else '&immutable=1'}"
    return create_engine(
        "sqlite://", poolclass=NullPool, creator=lambda: sqlite3.connect(address, uri=True, timeout=LOOK_SECONDS)
    )


def _checked(connection: Connection, problems: tuple[str, ...]) -> Checked:
    """With what is wrong with the schema; `problems` are those with writing."""
    found, inspector = revision(connection), inspect(connection)
    ours = sorted(set(inspector.get_table_names()) & set(metadata.tables))
    if connection.dialect.name == "postgresql":
        problems += tuple(_rights_missing(connection, ours, found))
    if found is None and ours:
        strange = (
            f"there are tables ({', '.join(ours)}) but no revision: another program made them, or the table "
            "alembic_version was lost. Name another database, or put a backup back"
        )
        return Checked(found, (), (strange, *problems))
    missing = tuple(_missing(inspector)) if found is not None and is_known(found) else ()
    old = lacking(found)
    schema = (old,) if old else tuple(_removed(connection, part) for part in missing)
    return Checked(found, tuple(part.name for part in missing), (*schema, *problems))


def _removed(connection: Connection, part: _Part) -> str:
    said = f"the {part.name} is missing, though the revision is {SCHEMA}: it was removed by hand."
    if part.index is None:
        return f"{said} Put a backup back"
    command = " ".join(str(CreateIndex(part.index).compile(dialect=connection.dialect)).split())
    return f"{said} Make it again: {command}"


def _missing(inspector: Inspector) -> Iterator[_Part]:
    there = set(inspector.get_table_names())
    for table in metadata.sorted_tables:
        if table.name in there:
            yield from _missing_of(inspector, table)
        else:
            yield _Part(f"table {table.name}")


def _missing_of(inspector: Inspector, table: Table) -> Iterator[_Part]:
    columns = {column["name"] for column in inspector.get_columns(table.name)}
    yield from (_Part(f"column {table.name}.{column.name}") for column in table.columns if column.name not in columns)
    indices = {(index["name"], bool(index["unique"])) for index in inspector.get_indexes(table.name)}
    for index in sorted(table.indexes, key=lambda index: str(index.name)):
        if (index.name, bool(index.unique)) not in indices:
            yield _Part(f"index {index.name}", index)
    unique = {frozenset(each["column_names"]) for each in inspector.get_unique_constraints(table.name)}
    for constraint in table.constraints:
        if not isinstance(constraint, UniqueConstraint):
            continue
        names = frozenset(column.name for column in constraint.columns)
        if names not in unique:
            yield _Part(f"uniqueness of {table.name}.{', '.join(sorted(names))}")


def _file_problems(path: Path) -> tuple[str, ...]:
    """What keeps a file of SQLite from being written."""
    folder = path.absolute().parent
    if not folder.is_dir():
        return (f"the folder {folder}, where the database should be, does not exist: make it, or mount it",)
    if not os.access(folder, os.W_OK | os.X_OK):
        return (
            f"the folder {folder} cannot be written by this user, or its disk is read-only: SQLite makes files beside "
            "the database",
        )
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        return (f"the file {path} cannot be written by this user: give it the right to read and write it",)
    return ()


def _server_problems(connection: Connection) -> Iterator[str]:
    """What keeps the whole server, or this database, from being written."""
    can = connection.execute(_CAN_WRITE).one()
    if can.is_standby:
        yield "the server is a standby and takes no writes: name the primary in OTABRAKE_DATABASE_URL"
    elif can.read_only == "on":
        yield "transactions are read-only for this user or database: look at default_transaction_read_only"


def _rights_missing(connection: Connection, ours: list[str], found: str | None) -> Iterator[str]:
    for row in connection.execute(_NOT_GRANTED, {"names": ours}):
        yield f"the user {row.me} lacks {row.rights} on the table {row.name}: GRANT it, or use the user who made it"
    if found == SCHEMA:
        return
    schema = connection.execute(_SCHEMA).one()
    if not schema.is_granted:
        yield f"the user {schema.me} may not make tables in the schema {schema.name}: GRANT CREATE on it"
    if others := connection.scalars(_NOT_OWNED, {"names": ours}).all():
        yield f"the tables {', '.join(others)} belong to somebody else: upgrade as the user who made them"

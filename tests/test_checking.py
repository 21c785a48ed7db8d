"""What a database lacks is said without changing anything: `otabrake db check`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Connection, text

from bot.cli import main
from bot.errors import ConfigurationError, StoreUnavailable
from bot.storage.checking import check
from bot.storage.database import open_database
from bot.storage.migrations import upgrade
from bot.storage.tables import SCHEMA, metadata
from tests.old_rows import migrate_to


async def change(url: str, *statements: str) -> None:
    def unit(connection: Connection) -> None:
        for statement in statements:
            connection.execute(text(statement))

    database = open_database(url)
    await database.run(unit)
    await database.close()


def path_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


def test_a_migrated_database_lacks_nothing(any_database_url: str) -> None:
    checked = check(any_database_url)
    assert (checked.revision, checked.missing, checked.problems) == (SCHEMA, (), ())


def test_an_empty_database_is_said_to_be_empty(empty_database_url: str) -> None:
    checked = check(empty_database_url)
    assert checked.revision is None
    [problem] = checked.problems
    assert problem.startswith("the database is empty: run `otabrake db upgrade`")


async def test_a_database_of_an_earlier_revision_lacks_what_came_since(empty_database_url: str) -> None:
    database = open_database(empty_database_url)
    await database.run(lambda connection: migrate_to(connection, "0003"))
    await database.close()
    checked = check(empty_database_url)
    assert checked.revision == "0003"
    assert {"table leases", "index inbox_handled", "index offers_of_proposal"} <= set(checked.missing)
    assert [f"this version needs {SCHEMA}: run `otabrake db upgrade`" in problem for problem in checked.problems] == [
        True
    ]


async def test_a_database_of_a_newer_version_is_said_to_be_one(empty_database_url: str) -> None:
    database = open_database(empty_database_url)
    await upgrade(database)
    await database.close()
    await change(empty_database_url, "UPDATE alembic_version SET version_num = '0999'")
    checked = check(empty_database_url)
    assert (checked.revision, checked.missing) == ("0999", ())
    [problem] = checked.problems
    assert f"knows none after {SCHEMA}: a newer version" in problem


@pytest.mark.parametrize(
    ("by_hand", "name", "advice"),
    [
        ("DROP INDEX outbox_settled", "index outbox_settled", "CREATE INDEX outbox_settled ON outbox"),
        ("DROP INDEX one_pending", "index one_pending", "CREATE UNIQUE INDEX one_pending ON proposals"),
        ("DROP TABLE surfaces", "table surfaces", "Put a backup back"),
        ("ALTER TABLE surfaces DROP COLUMN progress", "column surfaces.progress", "Put a backup back"),
    ],
)
async def test_what_was_removed_by_hand_is_named_with_what_to_do(
    empty_database_url: str, by_hand: str, name: str, advice: str
) -> None:
    database = open_database(empty_database_url)
    await upgrade(database)
    await database.close()
    await change(empty_database_url, by_hand)
    checked = check(empty_database_url)
    assert checked.missing == (name,)
    [problem] = checked.problems
    assert f"the {name} is missing, though the revision is {SCHEMA}" in problem
    assert advice in problem
    if "CREATE" in advice:
        await change(empty_database_url, problem.partition("Make it again: ")[2])
        assert check(empty_database_url).problems == ()


async def test_an_index_that_no_longer_keeps_doubles_out_is_missing(empty_database_url: str) -> None:
    database = open_database(empty_database_url)
    await upgrade(database)
    await database.close()
    await change(empty_database_url, "DROP INDEX one_pending", "CREATE INDEX one_pending ON proposals (instance)")
    assert check(empty_database_url).missing == ("index one_pending",)


@pytest.mark.postgres
async def test_a_constraint_that_is_gone_is_named(empty_postgres_url: str) -> None:
    database = open_database(empty_postgres_url)
    await upgrade(database)
    await database.close()
    await change(empty_postgres_url, "ALTER TABLE inbox DROP CONSTRAINT inbox_key_key")
    assert check(empty_postgres_url).missing == ("uniqueness of inbox.key",)


async def test_tables_without_a_revision_are_somebody_elses(empty_database_url: str) -> None:
    await change(empty_database_url, "CREATE TABLE calls (x INTEGER)")
    [problem] = check(empty_database_url).problems
    assert "there are tables (calls) but no revision" in problem


# Nothing is changed by looking.


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    [problem] = check(f"sqlite:///{tmp_path / 'none.db'}").problems
    assert f"there is no file {tmp_path / 'none.db'} yet" in problem
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_looked_at_without_a_trace(sqlite_url: str) -> None:
    path = path_of(sqlite_url)
    before = path.read_bytes(), path.stat().st_mtime_ns, sorted(path.parent.iterdir())
    assert check(sqlite_url).problems == ()
    assert (path.read_bytes(), path.stat().st_mtime_ns, sorted(path.parent.iterdir())) == before


async def test_what_a_running_bot_has_written_is_seen(sqlite_url: str) -> None:
    """It stands in the log beside the file as yet."""
    database = open_database(sqlite_url)
    drop = text("DROP INDEX outbox_of_lane")
    await database.run(lambda connection: connection.execute(drop) and None)
    assert check(sqlite_url).missing == ("index outbox_of_lane",)
    await database.close()


@pytest.mark.postgres
def test_a_server_is_looked_at_in_a_transaction_that_cannot_write(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import bot.storage.checking as checking

    def write(connection: Connection) -> None:
        connection.execute(text("DELETE FROM alembic_version"))

    monkeypatch.setattr(checking, "revision", write)
    with pytest.raises(StoreUnavailable, match="read-only transaction"):
        check(postgres_url)


# Whether it can be written.


def deny(kind: Callable[[Path], bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system says no to writing."""
    allowed = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: not (kind(Path(path)) and mode & os.W_OK) and allowed(path, mode)
    )


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        pytest.param(Path.is_dir, "its disk is read-only", id="folder"),
        pytest.param(Path.is_file, "cannot be written by this user", id="file"),
    ],
)
def test_what_the_file_system_does_not_let_us_write_is_said(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, kind: Callable[[Path], bool], said: str
) -> None:
    deny(kind, monkeypatch)
    [problem] = check(sqlite_url).problems
    assert said in problem


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    problems = check(f"sqlite:///{tmp_path / 'no' / 'x.db'}").problems
    assert "does not exist: make it, or mount it" in problems[-1]


@pytest.mark.postgres
async def test_a_database_that_takes_no_writes_is_said(empty_postgres_url: str) -> None:
    database = open_database(empty_postgres_url)
    await upgrade(database)
    await database.close()
    name = empty_postgres_url.rpartition("/")[2]
    await change(empty_postgres_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    [problem] = check(empty_postgres_url).problems
    assert "transactions are read-only" in problem


@pytest.mark.postgres
async def test_a_user_without_the_rights_is_told_which(empty_postgres_url: str) -> None:
    database = open_database(empty_postgres_url)
    await database.run(lambda connection: migrate_to(connection, "0003"))
    await database.close()
    user = f"u_{empty_postgres_url.rpartition('_')[2]}"
    grants = [f"GRANT SELECT, INSERT, UPDATE ON {name} TO {user}" for name in metadata.tables if name != "leases"]
    revoke = f"REVOKE CREATE ON SCHEMA public FROM PUBLIC, {user}"
    await change(empty_postgres_url, f"CREATE ROLE {user} LOGIN", *grants, revoke)
    await change(empty_postgres_url, f"GRANT SELECT ON alembic_version TO {user}")
    url = empty_postgres_url.replace("//postgres@", f"//{user}@")
    try:
        problems = check(url).problems
    finally:
        await change(empty_postgres_url, f"DROP OWNED BY {user}", f"DROP ROLE {user}")
    assert f"the user {user} lacks DELETE on the table calls: GRANT it, or use the user who made it" in problems
    assert any("may not make tables in the schema public" in problem for problem in problems)
    assert any("belong to somebody else: upgrade as the user who made them" in problem for problem in problems)


# The command.


def run(url: str, *arguments: str) -> Result:
    env = {"OTABRAKE_DATABASE_URL": url.replace("+psycopg", "")}
    return CliRunner().invoke(main, ["db", "check", *arguments], env=env)


def test_the_command_says_yes(any_database_url: str) -> None:
    assert (run(any_database_url).exit_code, run(any_database_url).output) == (0, "up to date\n")
    told = json.loads(run(any_database_url, "--json").output)
    assert told == {"ok": True, "revision": SCHEMA, "newest": SCHEMA, "missing": [], "problems": []}


def test_the_command_says_no(empty_database_url: str) -> None:
    assert run(empty_database_url).exit_code == 1
    result = run(empty_database_url, "--json")
    told = json.loads(result.output)
    assert (result.exit_code, told["ok"], told["revision"]) == (1, False, None)
    assert "otabrake db upgrade" in told["problems"][0]


@pytest.mark.parametrize(
    ("url", "code", "said"),
    [
        ("mysql://x", 2, "must begin with"),
        ("postgresql://bot:s3cret@127.0.0.1:1/none", 3, "Connection refused"),
    ],
)
def test_the_command_says_why_it_cannot_look(url: str, code: int, said: str) -> None:
    for arguments in ((), ("--json",)):
        result = run(url, *arguments)
        assert (result.exit_code, said in result.output, "s3cret" in result.output) == (code, True, False)
    told = json.loads(run(url, "--json").output)
    assert (told["ok"], len(told["problems"])) == (False, 1)


def test_a_file_of_another_kind_is_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("this is a letter, and not a database, whatever its name says" * 100)
    assert run(f"sqlite:///{tmp_path / 'x.db'}").exit_code == 2
    assert run(f"sqlite:///{tmp_path}").exit_code == 2
    with pytest.raises(ConfigurationError, match="is a folder"):
        check(f"sqlite:///{tmp_path}")

"""Starting in a world that is not there yet, or never will be: what is waited for, what is said, how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from bot.errors import ConfigurationError, DependencyAbsent, OtabrakeError
from bot.sandbox.server import sandbox_settings
from bot.settings import Settings
from bot.starting import Patience, migrated
from bot.storage.database import open_database
from bot.storage.tables import SCHEMA
from tests.crash.world import world
from tests.own_postgres import own_postgres
from tests.serving import Start, eventually, processes

NOBODY = "postgresql+psycopg://postgres@127.0.0.1:1/none"
VICTIM = ("-m", "tests.broken_victim")
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, PR_CAPBSET_DROP = 1, 2, 24


class Log:
    """Keeps what was logged."""

    def __init__(self) -> None:
        self.errors: list[tuple[str, dict[str, object]]] = []

    def info(self, event: str, **facts: object) -> None: ...

    def error(self, event: str, **facts: object) -> None:
        self.errors.append((event, facts))


class Watch:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += seconds


async def start_on(url: str, *, folder: Path, log: Log | None = None, patience: Patience | None = None) -> None:
    settings: Settings = replace(_settings(folder), database_url=url)
    database = open_database(url)
    try:
        await migrated(database, settings, log or Log(), patience)
    finally:
        await database.close()


def _settings(folder: Path) -> Settings:
    return sandbox_settings(folder, iot_url="http://127.0.0.1:1", slack_url="http://127.0.0.1:1")


async def trouble_with(path: Path, *, folder: Path) -> OtabrakeError:
    with pytest.raises((ConfigurationError, DependencyAbsent)) as raised:
        await start_on(f"sqlite:///{path}", folder=folder)
    return raised.value


async def test_a_server_that_is_away_is_waited_for_a_minute_and_spoken_of_ever_less(tmp_path: Path) -> None:
    log, watch = Log(), Watch()
    patience = Patience(monotonic=watch, sleep=watch.sleep)
    with pytest.raises(DependencyAbsent, match=r"did not answer for 60 s .*refused.*Check OTABRAKE_DATABASE_URL"):
        await start_on(NOBODY, folder=tmp_path, log=log, patience=patience)
    assert watch.at == 160
    assert {event for event, _ in log.errors} == {"waiting for the database"}
    assert [facts["waited_seconds"] for _, facts in log.errors] == [0, 1, 2, 4, 8, 16, 32]
    assert [facts["gives_up_in"] for _, facts in log.errors][:2] == [60, 59]
    assert "refused" in str(log.errors[0][1]["why"])


async def test_a_password_is_in_no_line_about_the_database(tmp_path: Path) -> None:
    log, watch = Log(), Watch()
    url = "postgresql+psycopg://postgres:hunter2@127.0.0.1:1/none"
    with pytest.raises(DependencyAbsent) as raised:
        await start_on(url, folder=tmp_path, log=log, patience=Patience(monotonic=watch, sleep=watch.sleep))
    assert "hunter2" not in f"{raised.value} {log.errors}"


async def test_the_folder_of_the_file_must_exist(tmp_path: Path) -> None:
    trouble = await trouble_with(tmp_path / "none" / "otabrake.db", folder=tmp_path)
    assert isinstance(trouble, DependencyAbsent)
    assert f"The folder {tmp_path / 'none'}" in str(trouble)
    assert "make it, or mount it" in str(trouble)


async def test_a_folder_is_no_file(tmp_path: Path) -> None:
    trouble = await trouble_with(tmp_path, folder=tmp_path)
    assert isinstance(trouble, ConfigurationError)
    assert f"{tmp_path} is a folder: name a file in it" in str(trouble)


async def test_another_programs_file_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "letter.db"
    path.write_text("Dear reader, " * 1000)
    trouble = await trouble_with(path, folder=tmp_path)
    assert isinstance(trouble, ConfigurationError)
    assert "not one of SQLite" in str(trouble)
    assert path.read_text() == "Dear reader, " * 1000


async def test_a_damaged_file_is_said_to_be_damaged(tmp_path: Path, migrated_file: Path) -> None:
    path = tmp_path / "damaged.db"
    with sqlite3.connect(migrated_file) as whole:
        whole.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole.close()
    shutil.copyfile(migrated_file, path)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))
    trouble = await trouble_with(path, folder=tmp_path)
    assert isinstance(trouble, ConfigurationError)
    assert "is damaged" in str(trouble)


@pytest.mark.parametrize("found", ["0099", "8f3a2b1c9d0e", "00010e242f99"])
async def test_a_database_of_another_version_is_not_touched(tmp_path: Path, sqlite_url: str, found: str) -> None:
    engine = create_engine(sqlite_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :found"), {"found": found})
    with pytest.raises(ConfigurationError, match=f"at revision {found}.*none after {SCHEMA}"):
        await start_on(sqlite_url, folder=tmp_path)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == found
    engine.dispose()


async def test_a_file_that_is_locked_for_a_while_is_waited_for(tmp_path: Path, sqlite_url: str) -> None:
    locking = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    locking.execute("BEGIN IMMEDIATE")
    log = Log()

    async def unlock() -> None:
        await eventually(lambda: log.errors)
        locking.execute("COMMIT")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(unlock())
        tasks.create_task(start_on(sqlite_url, folder=tmp_path, log=log))
    locking.close()
    assert {event for event, _ in log.errors} == {"waiting for the database"}


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that its owner's rights protect from nobody on the way there."""
    folder = Path(tempfile.mkdtemp(prefix="otabrake-rights-"))
    yield folder
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755)
    shutil.rmtree(folder)


def without_privileges() -> None:
    """In the child: root without the right to ignore what files allow, so that it is like anybody."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None)
        for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
            libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    async with processes() as made:
        yield made


def protect_file(folder: Path) -> None:
    (folder / "otabrake.db").chmod(0o444)


def protect_folder(folder: Path) -> None:
    folder.chmod(0o555)


@pytest.mark.parametrize(
    ("protect", "said"),
    [(protect_file, "The file {} cannot be written"), (protect_folder, "The folder {} cannot be written")],
)
async def test_what_may_only_be_read_is_named(
    tmp_path: Path,
    open_folder: Path,
    migrated_file: Path,
    start: Start,
    protect: Callable[[Path], None],
    said: str,
) -> None:
    path = Path(shutil.copyfile(migrated_file, open_folder / "otabrake.db"))
    protect(open_folder)
    environ = dict(_settings(tmp_path).environ) | {"OTABRAKE_DATABASE_URL": f"sqlite:///{path}"}
    process = await start(environ, preparing=without_privileges)
    ending = await process.ended()
    assert ending.code == 3
    assert said.format(path if protect is protect_file else open_folder) in "\n".join(process.lines)


async def test_a_database_that_stays_away_ends_the_process_with_3(tmp_path: Path, start: Start) -> None:
    environ = dict(_settings(tmp_path).environ) | {"OTABRAKE_DATABASE_URL": "postgresql://postgres@127.0.0.1:1/none"}
    process = await start(environ, arguments=(*VICTIM, json.dumps({"wait_seconds": 1.5})))
    ending = await process.ended()
    assert (ending.code, ending.seconds < 6) == (3, True)
    assert [line["waited_seconds"] for line in process.logged("waiting for the database")] == [0, 1]
    assert "otabrake cannot start. What is missing:" in process.lines


async def test_another_versions_database_ends_the_process_with_2(tmp_path: Path, sqlite_url: str, start: Start) -> None:
    engine = create_engine(sqlite_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0099'"))
    engine.dispose()
    process = await start(dict(_settings(tmp_path).environ) | {"OTABRAKE_DATABASE_URL": sqlite_url})
    assert (await process.ended()).code == 2
    assert "otabrake cannot start. What to mend:" in process.lines
    assert not [line for line in process.lines if "Traceback" in line]


@pytest.mark.parametrize("is_silent", [False, True], ids=["down", "silent"])
async def test_a_database_that_comes_up_in_time_is_started_on(tmp_path: Path, start: Start, *, is_silent: bool) -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(own_postgres())
        async with world(tmp_path, server.new_database(), jobs=[]) as at:
            (server.silence if is_silent else server.stop)()
            process = await start(at.settings)
            await eventually(lambda: process.logged("waiting for the database"))
            (server.go_on if is_silent else server.start)()
            await process.serving()
            assert process.logged("migrated")

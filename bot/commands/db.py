"""`otabrake db …`: the database, brought up to date, looked at, and moved.

Arguments in, one function elsewhere, an exit code out: 0 yes · 1 no (it lacks something, it was not moved) · 2 wrong
usage or configuration · 3 a database is absent. What it does not do: know a table.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Coroutine, Sequence
from typing import Any, NoReturn, TypeVar

import click

from bot.errors import ConfigurationError, StoreUnavailable

T = TypeVar("T")

NO, WRONG, ABSENT = 1, 2, 3
UNUSABLE = "The database cannot be used. Check OTABRAKE_DATABASE_URL:"
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def db() -> None:
    """Look after the database (OTABRAKE_DATABASE_URL)."""


@db.command()
def upgrade() -> None:
    """Bring the database to the newest schema. `otabrake serve` does so by itself."""
    from bot.storage.database import open_database
    from bot.storage.migrations import upgrade as bring_up_to_date

    async def carry_out() -> bool:
        database = open_database(url)
        try:
            return await bring_up_to_date(database)
        finally:
            await database.close()

    url = _url()
    click.echo("upgraded" if _run(carry_out()) else "already up to date")


@db.command()
@_JSON
def check(as_json: bool) -> None:
    """Say what the database lacks, without changing anything. Exit code 1: it lacks something."""
    from bot.storage.checking import check as look_at
    from bot.storage.tables import SCHEMA

    try:
        checked = look_at(_url(as_json=as_json))
    except ConfigurationError as error:
        _fail(WRONG, UNUSABLE, error.problems, as_json=as_json)
    except StoreUnavailable as error:
        _fail(ABSENT, UNUSABLE, [str(error)], as_json=as_json)
    if as_json:
        click.echo(
            json.dumps(
                {
                    "ok": not checked.problems,
                    "revision": checked.revision,
                    "newest": SCHEMA,
                    "missing": checked.missing,
                    "problems": checked.problems,
                }
            )
        )
    else:
        click.echo("\n".join(checked.problems) or "up to date")
    sys.exit(NO if checked.problems else 0)


@db.command()
@click.option("--to", "to_url", metavar="URL", required=True, help="Where to: postgresql://… or sqlite:///…")
def move(to_url: str) -> None:
    """Move everything to another database, SQLite or PostgreSQL.

    Stop otabrake first, wherever it runs. The other database must be there and empty (a file of SQLite is made).
    Nothing is moved unless everything is, and the database that is moved from is left as it is.

    A password need not stand in the URL: PGPASSWORD and ~/.pgpass are read.
    """
    from sqlalchemy import make_url

    from bot.storage.holding import MoveRefused
    from bot.storage.moving import move as carry_over

    source, target = _url(), _url(to_url.strip())
    try:
        moved = _run(carry_over(source, target, told=click.echo), headline="Nothing was moved:")
    except MoveRefused as error:
        _fail(NO, "Nothing was moved:", [str(error)])
    place = make_url(target).set(drivername=target.partition("://")[0].partition("+")[0])
    click.echo(f"Moved {sum(moved.rows.values()):,} rows to {place.render_as_string(hide_password=True)}.")
    click.echo(
        "Now set OTABRAKE_DATABASE_URL to it, and start otabrake. Keep the old database as a backup, but never start "
        "otabrake on it again: what is pending stands in both, and would be done twice."
    )


def _url(to_url: str | None = None, *, as_json: bool = False) -> str:
    """The database's URL as SQLAlchemy takes it: that of the settings, or `to_url`."""
    from bot.settings import database_problems, database_url

    given = os.environ if to_url is None else {"OTABRAKE_DATABASE_URL": to_url}
    problems = database_problems(given) if to_url != "" else ["--to is empty: name the database to move to."]
    if problems:
        if to_url is not None:
            problems = [problem.replace("OTABRAKE_DATABASE_URL", "--to") for problem in problems]
        _fail(WRONG, "The database cannot be used. What to mend:", problems, as_json=as_json)
    return database_url(given)


def _run(work: Coroutine[Any, Any, T], *, headline: str = UNUSABLE) -> T:
    try:
        return asyncio.run(work)
    except ConfigurationError as error:
        _fail(WRONG, headline, error.problems)
    except StoreUnavailable as error:
        _fail(ABSENT, headline, [str(error)])


def _fail(code: int, headline: str, problems: Sequence[str], *, as_json: bool = False) -> NoReturn:
    if as_json:
        click.echo(json.dumps({"ok": False, "problems": problems}))
        sys.exit(code)
    click.echo(headline, err=True)
    for problem in problems:
        click.echo(f"  - {problem}", err=True)
    sys.exit(code)

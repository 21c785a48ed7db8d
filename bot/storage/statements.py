"""Statements that are carried out so often that building them would cost the most: written out, for both databases.

A template is SQL with `:name` parameters; `{now}` in it is the database's clock in seconds since 1970, so that
processes on machines whose clocks differ agree, and `{skip_locked}` locks the rows that nobody else has locked (SQLite
has one writer at a time, and nothing to lock).
"""

from __future__ import annotations

import functools
import re
from typing import Any

from sqlalchemy import Double
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import ColumnElement

_NOW = {
    "sqlite": "((julianday('now') - 2440587.5) * 86400.0)",
    "postgresql": "CAST(extract(epoch FROM clock_timestamp()) AS double precision)",
}
_SKIP_LOCKED = {"sqlite": "", "postgresql": "FOR UPDATE SKIP LOCKED"}


@functools.cache
def spelt(template: str, dialect: str) -> str:
    """A statement as the driver takes it."""
    statement = template.format(now=_NOW[dialect], skip_locked=_SKIP_LOCKED[dialect])
    return statement if dialect == "sqlite" else re.sub(r"(?<!:):(\w+)", r"%(\1)s", statement)


class DatabaseNow(ColumnElement[float]):
    """The same clock in statements that are built."""

    inherit_cache = True
    type = Double()


@compiles(DatabaseNow)
def _compile_now(element: DatabaseNow, compiler: Any, **options: Any) -> str:
    return _NOW[compiler.dialect.name]

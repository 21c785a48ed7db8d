"""The `Leases` port on the database: a row for each piece of work that somebody does.

A lease is claimed by one statement, which fails while somebody else's has not lapsed. A lease further ahead than it may
be was written before the clock was set back, and is anybody's. The functions of a connection are parts of other
transactions: they check that a lease is still held in the transaction that it covers (a fencing token), so that a
process which was paused cannot write on a lease that it has lost. What it does not do: know what the work is.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Collection, Sequence

from sqlalchemy import ColumnElement, Connection, and_, bindparam, exists, literal, or_, select

from bot.ports import LEASE_SECONDS, Lease, Renewal
from bot.storage.database import Database
from bot.storage.statements import DatabaseNow, spelt
from bot.storage.tables import leases

_LONGEST_SECONDS = LEASE_SECONDS + 1.0
HOPELESS_ATTEMPTS = 20
"""Work that failed so often, the attempts to end it among them, is not found any more."""

_INSERT = """
INSERT INTO leases (name, owner, token, until, attempts) VALUES (:name, :owner, 1, {now} + :seconds, 0)
ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, token = leases.token + 1, until = excluded.until
"""
_CLAIM = (
    _INSERT
    + """, attempts = leases.attempts + CASE WHEN leases.until > 0 THEN 1 ELSE 0 END
WHERE leases.until <= {now} OR leases.until > {now} + :longest
RETURNING token, attempts
"""
)
_TAKE = _INSERT + ", attempts = 0 RETURNING token, attempts"
_HOLD = """
UPDATE leases SET until = {now} + :seconds, attempts = 0 WHERE name = :name AND owner = :owner AND token = :token
"""
_RENEW = "UPDATE leases SET until = {now} + :seconds WHERE name = :name AND owner = :owner AND token = :token"
_RELEASE = "DELETE FROM leases WHERE name = :name AND owner = :owner AND token = :token"
_FAIL = """
UPDATE leases SET until = 0, attempts = attempts + 1 WHERE name = :name AND owner = :owner AND token = :token
"""
_DROP = "DELETE FROM leases WHERE name = :name"
_NAMES = select(leases.c.name).where(leases.c.name.in_(bindparam("names", expanding=True)))


def is_free(prefix: str, key: ColumnElement[str], *, for_ever: bool = False) -> ColumnElement[bool]:
    """For queries that look for work: nobody holds the lease of what `key` names, and it has not failed too often.

    What is found `for_ever` counts its failures itself.
    """
    now = DatabaseNow()
    is_held = and_(leases.c.until > now, leases.c.until <= now + _LONGEST_SECONDS)
    is_this = leases.c.name == literal(prefix) + key
    is_not = is_held if for_ever else or_(is_held, leases.c.attempts > HOPELESS_ATTEMPTS)
    return ~exists().where(is_this, is_not)


def new_owner() -> str:
    """A name for this process that no other has or will have, and that tells people which one it is."""
    return f"{socket.gethostname()[:32]}:{os.getpid()}:{secrets.token_hex(4)}"


class SqlLeases:
    """`Leases` for one process, `owner`, among all on `database`."""

    def __init__(self, database: Database, *, owner: str) -> None:
        self._database = database
        self._owner = owner

    async def claim(self, names: Collection[str]) -> tuple[Lease, ...]:
        return await self._database.run(lambda connection: claim(connection, names, self._owner))

    async def renew(self, leases: Collection[Lease]) -> Renewal:
        return await self._database.run(lambda connection: _renew(connection, leases))

    async def release(self, leases: Sequence[Lease]) -> None:
        def unit(connection: Connection) -> None:
            for lease in _ordered(leases):
                release(connection, lease)

        if leases:
            await self._database.run(unit)

    async def fail(self, lease: Lease) -> None:
        await self._database.run(lambda connection: _run(connection, _FAIL, lease) and None)


def claim(connection: Connection, names: Collection[str], owner: str) -> tuple[Lease, ...]:
    """Those of `names` that nobody holds, and that nobody is just about to claim or to write under."""
    known = set(connection.scalars(_NAMES, {"names": list(names)}))
    # Nobody waits for another in a circle: new names are claimed first, in one order for everybody, and who holds what
    # was free waits for nobody any more.
    claimed = [_upsert(connection, _CLAIM, name, owner) for name in sorted(names) if name not in known]
    free = connection.scalars(_NAMES.with_for_update(skip_locked=True), {"names": [*known]}).all()
    claimed += [_upsert(connection, _CLAIM, name, owner) for name in sorted(free)]
    return tuple(lease for lease in claimed if lease is not None)


def take(connection: Connection, name: str, owner: str) -> Lease:
    """The lease, from whoever holds it: a person's yes goes before whatever waits for none."""
    taken = _upsert(connection, _TAKE, name, owner)
    assert taken is not None  # noqa: S101 (it has no condition)
    return taken


def hold(connection: Connection, lease: Lease) -> bool:
    """Renews a lease in the transaction that it covers: the work has gone on. False: somebody else has it."""
    return _run(connection, _HOLD, lease) == 1


def release(connection: Connection, lease: Lease) -> bool:
    """False: somebody else has it."""
    return _run(connection, _RELEASE, lease) == 1


def drop(connection: Connection, name: str) -> None:
    """Nobody works on this any more, whoever did."""
    connection.exec_driver_sql(spelt(_DROP, connection.dialect.name), {"name": name})


def _renew(connection: Connection, held: Collection[Lease]) -> Renewal:
    lost = [lease for lease in _ordered(held) if _run(connection, _RENEW, lease) != 1]
    there = set(connection.scalars(_NAMES, {"names": [lease.name for lease in lost]})) if lost else set()
    return Renewal(
        taken=tuple(lease for lease in lost if lease.name in there),
        gone=tuple(lease for lease in lost if lease.name not in there),
    )


def _upsert(connection: Connection, statement: str, name: str, owner: str) -> Lease | None:
    values = {"name": name, "owner": owner, "seconds": LEASE_SECONDS, "longest": _LONGEST_SECONDS}
    row = connection.exec_driver_sql(spelt(statement, connection.dialect.name), values).first()
    return Lease(name, owner, row.token, row.attempts) if row is not None else None


def _run(connection: Connection, statement: str, lease: Lease) -> int:
    values = {"name": lease.name, "owner": lease.owner, "token": lease.token, "seconds": LEASE_SECONDS}
    return connection.exec_driver_sql(spelt(statement, connection.dialect.name), values).rowcount


def _ordered(leases: Collection[Lease]) -> list[Lease]:
    return sorted(leases, key=lambda lease: lease.name)

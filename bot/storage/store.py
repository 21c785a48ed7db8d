"""The store: what the road keeps, on SQLAlchemy Core.

Each method is one unit of work. A change of state is a compare-and-set on the proposal's version; its audit entries
and the posts that it owes are written in the same transaction, so that they exist exactly if the change does.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection, and_, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from bot.audit import Entry, canonical_bytes
from bot.exchange import Delivery, Post
from bot.model import Target
from bot.ports import Owed, Surface, Transition
from bot.proposals import PENDING, Call, Proposal, State
from bot.storage.codec import from_json, to_json
from bot.storage.database import Database
from bot.storage.tables import calls, entries, inbox, offers, outbox, proposals, surfaces

T = TypeVar("T")

ROWS = 500
"""The most rows that one unit reads, so that it stays short."""

_BEFORE_CALLS = (State.RECEIVED, State.OFFERED, State.APPROVED)
_AT_WORK = (State.RECEIVED, State.APPROVED, State.CALLING, State.UNKNOWN, State.FOLLOWING)


class SqlStore:
    """`ports.Store` on a `Database`; `clock` tells the time that is written."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    async def receive(self, delivery: Delivery) -> bool:
        return await self._database.run(lambda connection: _insert_new(connection, delivery))

    async def save(self, transition: Transition) -> bool:
        now = self._clock()
        try:
            return await self._database.run(lambda connection: _save(connection, transition, now))
        except IntegrityError:
            return False

    async def record(
        self, *, entries: Sequence[Entry] = (), posts: Sequence[Post] = (), handled: str | None = None
    ) -> None:
        now = self._clock()
        await self._database.run(lambda connection: _append(connection, entries, posts, handled, now))

    async def fetch_open_deliveries(self, *, but: Container[str] = ()) -> tuple[Delivery, ...]:
        statement = (
            select(inbox.c.delivery_id, inbox.c.body)
            .where(inbox.c.handled_at.is_(None))
            .order_by(inbox.c.received_at)
            .limit(ROWS)
        )
        rows = await self._database.read(lambda connection: connection.execute(statement).all())
        wanted = ((delivery_id, body) for delivery_id, body in rows if delivery_id not in but)
        return tuple(delivery for row_id, body in wanted if (delivery := _readable(Delivery, row_id, body)) is not None)

    async def fetch_proposal(self, proposal_id: str) -> Proposal | None:
        return await self._database.read(
            lambda connection: _proposal(connection, proposals.c.proposal_id == proposal_id)
        )

    async def fetch_proposal_of(self, offer_id: str) -> Proposal | None:
        owner = select(offers.c.proposal_id).where(offers.c.offer_id == offer_id).scalar_subquery()
        return await self._database.read(lambda connection: _proposal(connection, proposals.c.proposal_id == owner))

    async def fetch_pending(self, operation: str, target: Target, params: frozenset[str]) -> Proposal | None:
        matches = and_(
            proposals.c.state.in_([state.value for state in PENDING]),
            proposals.c.operation == operation,
            proposals.c.instance == target.instance,
            proposals.c.job == target.job,
            proposals.c.params == _spelt(params),
        )
        return await self._database.read(lambda connection: _proposal(connection, matches))

    async def fetch_work(self, now: datetime) -> tuple[str, ...]:
        statement = (
            select(proposals.c.proposal_id)
            .where(
                proposals.c.state != State.FINISHED.value,
                or_(
                    proposals.c.state.in_([state.value for state in _AT_WORK]),
                    and_(proposals.c.state == State.OFFERED.value, proposals.c.expires_at <= now),
                ),
            )
            .order_by(proposals.c.created_at)
            .limit(ROWS)
        )
        rows = await self._database.read(lambda connection: connection.scalars(statement).all())
        return tuple(rows)

    async def fetch_owed(self) -> tuple[Owed, ...]:
        statement = (
            select(outbox.c.post_id, outbox.c.body, outbox.c.attempts)
            .where(outbox.c.settled_at.is_(None))
            .order_by(outbox.c.post_id)
            .limit(ROWS)
        )
        rows = await self._database.read(lambda connection: connection.execute(statement).all())
        return tuple(
            Owed(post_id, post, attempts)
            for post_id, body, attempts in rows
            if (post := _readable(Post, post_id, body)) is not None
        )

    async def settle(self, post_ids: Sequence[int], *, failure: str | None = None) -> None:
        statement = (
            update(outbox).where(outbox.c.post_id.in_(post_ids)).values(settled_at=self._clock(), failure=failure)
        )
        await self._database.run(lambda connection: connection.execute(statement) and None)

    async def count_attempt(self, post_id: int) -> None:
        statement = update(outbox).where(outbox.c.post_id == post_id).values(attempts=outbox.c.attempts + 1)
        await self._database.run(lambda connection: connection.execute(statement) and None)

    async def fetch_surface(self, proposal_id: str) -> Surface:
        statement = select(surfaces.c.channel, surfaces.c.card, surfaces.c.buttons).where(
            surfaces.c.proposal_id == proposal_id
        )
        row = await self._database.read(lambda connection: connection.execute(statement).first())
        return Surface(*row) if row is not None else Surface()

    async def save_surface(self, proposal_id: str, surface: Surface) -> None:
        values = {"channel": surface.channel, "card": surface.card, "buttons": surface.buttons}
        await self._database.run(lambda connection: _upsert_surface(connection, proposal_id, values))


def _readable(kind: type[T], row_id: object, body: str) -> T | None:
    """A row of a newer version (after a step back) is left for it, and must not hide the others."""
    try:
        return from_json(kind, body)
    except ValueError as error:
        structlog.get_logger().error("row not readable", kind=kind.__name__, row=row_id, why=type(error).__name__)
        return None


_INSERT_NEW = (
    "INSERT INTO inbox (delivery_id, key, received_at, body) "
    "VALUES ({0}delivery_id{1}, {0}key{1}, {0}received_at{1}, {0}body{1}) ON CONFLICT (key) DO NOTHING"
)
_FOR_SQLITE = _INSERT_NEW.format(":", "")
_FOR_POSTGRES = _INSERT_NEW.format("%(", ")s")


def _insert_new(connection: Connection, delivery: Delivery) -> bool:
    """The one statement that a person waits for: written out, because building it costs more than carrying it out."""
    row: dict[str, object] = {"delivery_id": delivery.delivery_id, "key": delivery.key, "body": to_json(delivery)}
    if connection.dialect.name == "sqlite":
        row["received_at"] = delivery.received_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
        return connection.exec_driver_sql(_FOR_SQLITE, row).rowcount == 1
    row["received_at"] = delivery.received_at
    return connection.exec_driver_sql(_FOR_POSTGRES, row).rowcount == 1


def _save(connection: Connection, transition: Transition, now: datetime) -> bool:
    before, after = transition.before, transition.after
    values = _row(after)
    if before is None:
        connection.execute(insert(proposals).values(proposal_id=after.proposal_id, **values))
    else:
        same = and_(proposals.c.proposal_id == before.proposal_id, proposals.c.version == before.version)
        if connection.execute(update(proposals).where(same).values(values)).rowcount != 1:
            return False
    if after.offer is not None and (before is None or before.offer != after.offer):
        connection.execute(insert(offers).values(offer_id=after.offer.offer_id, proposal_id=after.proposal_id))
    _save_calls(connection, after, before.calls if before is not None else ())
    _append(connection, transition.entries, transition.posts, transition.handled, now)
    return True


def _row(proposal: Proposal) -> dict[str, Any]:
    return {
        "version": proposal.version,
        "state": proposal.state.value,
        "operation": proposal.operation,
        "instance": proposal.target.instance,
        "job": proposal.target.job,
        "params": _spelt(proposal.params),
        "expires_at": proposal.offer.expires_at if proposal.offer is not None else None,
        "created_at": proposal.created_at,
        "body": to_json(replace(proposal, calls=())),
    }


def _spelt(params: frozenset[str]) -> str:
    return ",".join(sorted(params))


def _save_calls(connection: Connection, proposal: Proposal, known: tuple[Call, ...]) -> None:
    for position, call in enumerate(proposal.calls):
        if position < len(known) and known[position] == call:
            continue
        key = {"proposal_id": proposal.proposal_id, "step": call.step, "attempt": call.attempt}
        answer = {"answer": call.answer, "request_id": call.request_id, "body": to_json(call)}
        if position < len(known):
            same = and_(*(calls.c[name] == value for name, value in key.items()))
            connection.execute(update(calls).where(same).values(answer))
        else:
            intent = {"nonce": call.intent.nonce, "deadline": call.intent.deadline}
            connection.execute(insert(calls).values(key | answer | intent))


def _append(
    connection: Connection,
    new_entries: Sequence[Entry],
    posts: Sequence[Post],
    handled: str | None,
    now: datetime,
) -> None:
    for entry in new_entries:
        connection.execute(
            insert(entries).values(
                at=entry.at,
                name=entry.name.value,
                actor=entry.actor,
                proposal_id=entry.proposal_id,
                body=canonical_bytes(entry),
            )
        )
    for post in posts:
        connection.execute(insert(outbox).values(lane=post.lane, created_at=now, body=to_json(post)))
    if handled is not None:
        connection.execute(update(inbox).where(inbox.c.delivery_id == handled).values(handled_at=now))


def _proposal(connection: Connection, matches: Any) -> Proposal | None:
    row = connection.execute(select(proposals.c.body).where(matches)).first()
    if row is None:
        return None
    proposal = from_json(Proposal, row.body)
    if proposal.state in _BEFORE_CALLS:
        return proposal
    statement = (
        select(calls.c.body).where(calls.c.proposal_id == proposal.proposal_id).order_by(calls.c.step, calls.c.attempt)
    )
    made = tuple(from_json(Call, body) for body in connection.scalars(statement))
    return replace(proposal, calls=made)


def _upsert_surface(connection: Connection, proposal_id: str, values: dict[str, str | None]) -> None:
    changed = connection.execute(update(surfaces).where(surfaces.c.proposal_id == proposal_id).values(values))
    if changed.rowcount == 0:
        connection.execute(insert(surfaces).values(proposal_id=proposal_id, **values))

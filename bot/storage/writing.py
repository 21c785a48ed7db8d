"""What the store writes, as functions of a connection: each is a part of one transaction, and none of them commits.

A change of state is a compare-and-set on the proposal's version; its calls, the batches that it names, its audit
entries and the posts that it owes are written with it, so that they exist exactly if the change does; so are the leases
of what is done next. What it does not do: read anything back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, and_, bindparam, insert, select, update

from bot.audit import Entry, canonical_bytes
from bot.exchange import Delivery, Post
from bot.ports import LEASE_SECONDS, Lease, Saved, Surface, Transition, of_delivery, of_proposal
from bot.proposals import Call, Proposal, State
from bot.storage.codec import to_json
from bot.storage.leases import drop, hold, release, take
from bot.storage.statements import spelt
from bot.storage.tables import calls, entries, inbox, offers, outbox, proposals, surfaces, touched_jobs
from bot.storage.upserts import insert_unless_there, upsert_where

_INSERT_NEW = """
INSERT INTO inbox (delivery_id, key, received_at, body) VALUES (:delivery_id, :key, :received_at, :body)
ON CONFLICT (key) DO NOTHING"""
_INSERT_LEASE = "INSERT INTO leases (name, owner, token, until, attempts) SELECT :name, :owner, 1, {now} + :seconds, 0"
_INSERT_BOTH = f"WITH new AS ({_INSERT_NEW} RETURNING 1) {_INSERT_LEASE} FROM new"
"""Of both, SQLite has no such statement, and no way to a server that would cost anything."""

REQUEST_ID_LENGTH = 255
WAITING = frozenset({State.OFFERED, State.FINISHED})
"""Nothing is to be done about a proposal in these states before somebody's click or its expiry."""

# Built once: building a statement costs several times what carrying it out does.
_NEW_PROPOSAL, _NEW_OFFER, _NEW_CALL = insert(proposals), insert(offers), insert(calls)
_NEW_ENTRY, _NEW_POST = insert(entries), insert(outbox)
_STEP = update(proposals).where(
    proposals.c.proposal_id == bindparam("of"), proposals.c.version == bindparam("known_version")
)
_LOCKED = (
    select(proposals.c.proposal_id)
    .where(proposals.c.proposal_id.in_(bindparam("ids", expanding=True)))
    .order_by(proposals.c.proposal_id)
    .with_for_update()
)
_ANSWERED = update(calls).where(
    calls.c.proposal_id == bindparam("of"),
    calls.c.step == bindparam("at_step"),
    calls.c.attempt == bindparam("at_attempt"),
)
_HANDLED = update(inbox).where(inbox.c.delivery_id == bindparam("handled"), inbox.c.handled_at.is_(None))


class Slower(Exception):
    """Somebody was faster: the whole unit is undone."""


def insert_new(connection: Connection, delivery: Delivery, owner: str) -> Lease | None:
    """The one thing that a person waits for: written out, because building it costs more than carrying it out."""
    lease = Lease(of_delivery(delivery.delivery_id), owner, 1)
    row: dict[str, object] = {"delivery_id": delivery.delivery_id, "key": delivery.key, "body": to_json(delivery)}
    its_lease: dict[str, object] = {"name": lease.name, "owner": owner, "seconds": LEASE_SECONDS}
    if connection.dialect.name == "sqlite":
        row["received_at"] = delivery.received_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
        is_new = connection.exec_driver_sql(spelt(_INSERT_NEW, "sqlite"), row).rowcount == 1
        if is_new:
            connection.exec_driver_sql(spelt(_INSERT_LEASE, "sqlite"), its_lease)
    else:
        row["received_at"] = delivery.received_at
        is_new = connection.exec_driver_sql(spelt(_INSERT_BOTH, "postgresql"), row | its_lease).rowcount == 1
    return lease if is_new else None


def write_transition(connection: Connection, transition: Transition, now: datetime, owner: str) -> Saved:
    """Raises `Slower` if the lease was lost, another version stands, or the delivery was answered.

    Everybody locks leases before proposals, and each in the order of ids, so that nobody waits in a circle.
    """
    every = sorted((transition, *transition.also), key=lambda each: each.after.proposal_id)
    _hold_lease(connection, transition)
    taken = [_lease_of_next(connection, each, owner) for each in every]
    if transition.also:
        connection.execute(_LOCKED, {"ids": [each.after.proposal_id for each in every]})
    for each in (transition, *transition.also):
        _write_step(connection, each, now)
    return Saved(next((lease for lease in taken if lease is not None), None))


def _hold_lease(connection: Connection, transition: Transition) -> None:
    """The lease under which this is written must still be held; it is given back with the last thing done under it."""
    lease = transition.lease
    if lease is None:
        return
    is_its_own = lease.name == of_proposal(transition.after.proposal_id)
    is_over = transition.after.state in WAITING if is_its_own else transition.handled is not None
    if not (release if is_over else hold)(connection, lease):
        raise Slower


def _lease_of_next(connection: Connection, transition: Transition, owner: str) -> Lease | None:
    """Who works on what comes next: a proposal that waits for a click has nobody, an answered one has us."""
    name, is_waiting = of_proposal(transition.after.proposal_id), transition.after.state in WAITING
    is_its_own = transition.lease is not None and transition.lease.name == name
    if is_waiting and not is_its_own:
        drop(connection, name)
    if transition.handled is not None and not is_waiting:
        return take(connection, name, owner)
    return None


def _write_step(connection: Connection, transition: Transition, now: datetime) -> None:
    before, after = transition.before, transition.after
    values = _row(after)
    if before is None:
        connection.execute(_NEW_PROPOSAL, {"proposal_id": after.proposal_id, **values})
    else:
        known = {"of": before.proposal_id, "known_version": before.version}
        if connection.execute(_STEP, known | values).rowcount != 1:
            raise Slower
    if after.offer is not None and (before is None or before.offer != after.offer):
        connection.execute(_NEW_OFFER, {"offer_id": after.offer.offer_id, "proposal_id": after.proposal_id})
    _write_touched_jobs(connection, before, after)
    _write_calls(connection, after, before.calls if before is not None else ())
    append(connection, transition.entries, transition.posts, transition.handled, now)


def _row(proposal: Proposal) -> dict[str, Any]:
    return {
        "version": proposal.version,
        "state": proposal.state.value,
        "operation": proposal.operation,
        "instance": proposal.target.instance,
        "target": proposal.target.key,
        "params": in_order(proposal.params),
        "expires_at": proposal.offer.expires_at if proposal.offer is not None else None,
        "created_at": proposal.created_at,
        "body": to_json(replace(proposal, calls=())),
    }


def in_order(params: frozenset[str]) -> str:
    return ",".join(sorted(params))


def _write_touched_jobs(connection: Connection, before: Proposal | None, after: Proposal) -> None:
    """A batch that was named once stays named: what an earlier offer showed may be what somebody still talks about."""
    new = _named_jobs(after) - (_named_jobs(before) if before is not None else set())
    if new:
        rows = [{"proposal_id": after.proposal_id, "job": job} for job in sorted(new)]
        insert_unless_there(connection, touched_jobs, rows)


def _named_jobs(proposal: Proposal) -> set[str]:
    """The batches of the offer, and those that joined them when the steps were fixed."""
    parts = proposal.offer.preview.parts if proposal.offer is not None else ()
    return {part.job.job_id for part in parts} | {step.target.job for step in proposal.steps if step.target.job}


def _write_calls(connection: Connection, proposal: Proposal, known: tuple[Call, ...]) -> None:
    for position, call in enumerate(proposal.calls):
        if position < len(known) and known[position] == call:
            continue
        request_id = call.request_id[:REQUEST_ID_LENGTH] if call.request_id else None
        answer = {"answer": call.answer, "request_id": request_id, "body": to_json(call)}
        if position < len(known):
            key = {"of": proposal.proposal_id, "at_step": call.step, "at_attempt": call.attempt}
            connection.execute(_ANSWERED, key | answer)
        else:
            key = {"proposal_id": proposal.proposal_id, "step": call.step, "attempt": call.attempt}
            intent = {"nonce": call.intent.nonce, "deadline": call.intent.deadline}
            connection.execute(_NEW_CALL, key | answer | intent)


def append(
    connection: Connection,
    new_entries: Sequence[Entry],
    posts: Sequence[Post],
    handled: str | None,
    now: datetime,
) -> None:
    """Audit entries, the posts that are owed, and the delivery that they answer. Raises `Slower` if it was answered."""
    if new_entries:
        connection.execute(_NEW_ENTRY, [_entry_row(entry) for entry in new_entries])
    if posts:
        connection.execute(_NEW_POST, [{"lane": post.lane, "created_at": now, "body": to_json(post)} for post in posts])
    if handled is not None and connection.execute(_HANDLED, {"handled": handled, "handled_at": now}).rowcount != 1:
        raise Slower


def _entry_row(entry: Entry) -> dict[str, object]:
    return {
        "at": entry.at,
        "name": entry.name.value,
        "actor": entry.actor,
        "proposal_id": entry.proposal_id,
        "body": canonical_bytes(entry),
    }


def write_surface(connection: Connection, proposal_id: str, surface: Surface, was: Surface) -> bool:
    """False: something else stands there than what `was`."""
    is_as_it_was = and_(*(surfaces.c[name].is_not_distinct_from(value) for name, value in asdict(was).items()))
    return upsert_where(connection, surfaces, {"proposal_id": proposal_id, **asdict(surface)}, where=is_as_it_was)

"""What the store writes, as functions of a connection: each is a part of one transaction, and none of them commits.

A change of state is a compare-and-set on the proposal's version; its calls, the batches that it names, its audit
entries and the posts that it owes are written with it, so that they exist exactly if the change does. What it does not
do: read anything back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, bindparam, insert, update

from bot.audit import Entry, canonical_bytes
from bot.exchange import Delivery, Post
from bot.ports import Surface, Transition
from bot.proposals import Call, Proposal
from bot.storage.codec import to_json
from bot.storage.tables import calls, entries, inbox, offers, outbox, proposals, surfaces, touched_jobs
from bot.storage.upserts import insert_unless_there, upsert

_INSERT_NEW = (
    "INSERT INTO inbox (delivery_id, key, received_at, body) "
    "VALUES ({0}delivery_id{1}, {0}key{1}, {0}received_at{1}, {0}body{1}) ON CONFLICT (key) DO NOTHING"
)
_FOR_SQLITE = _INSERT_NEW.format(":", "")
_FOR_POSTGRES = _INSERT_NEW.format("%(", ")s")

# Built once: building a statement costs several times what carrying it out does.
_NEW_PROPOSAL, _NEW_OFFER, _NEW_CALL = insert(proposals), insert(offers), insert(calls)
_NEW_ENTRY, _NEW_POST = insert(entries), insert(outbox)
_STEP = update(proposals).where(
    proposals.c.proposal_id == bindparam("of"), proposals.c.version == bindparam("known_version")
)
_ANSWERED = update(calls).where(
    calls.c.proposal_id == bindparam("of"),
    calls.c.step == bindparam("at_step"),
    calls.c.attempt == bindparam("at_attempt"),
)
_HANDLED = update(inbox).where(inbox.c.delivery_id == bindparam("handled"))


def insert_new(connection: Connection, delivery: Delivery) -> bool:
    """The one statement that a person waits for: written out, because building it costs more than carrying it out."""
    row: dict[str, object] = {"delivery_id": delivery.delivery_id, "key": delivery.key, "body": to_json(delivery)}
    if connection.dialect.name == "sqlite":
        row["received_at"] = delivery.received_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
        return connection.exec_driver_sql(_FOR_SQLITE, row).rowcount == 1
    row["received_at"] = delivery.received_at
    return connection.exec_driver_sql(_FOR_POSTGRES, row).rowcount == 1


def write_transition(connection: Connection, transition: Transition, now: datetime) -> bool:
    """False: another version stands, and nothing was written."""
    before, after = transition.before, transition.after
    values = _row(after)
    if before is None:
        connection.execute(_NEW_PROPOSAL, {"proposal_id": after.proposal_id, **values})
    else:
        known = {"of": before.proposal_id, "known_version": before.version}
        if connection.execute(_STEP, known | values).rowcount != 1:
            return False
    if after.offer is not None and (before is None or before.offer != after.offer):
        connection.execute(_NEW_OFFER, {"offer_id": after.offer.offer_id, "proposal_id": after.proposal_id})
    _write_touched_jobs(connection, before, after)
    _write_calls(connection, after, before.calls if before is not None else ())
    append(connection, transition.entries, transition.posts, transition.handled, now)
    return True


def _row(proposal: Proposal) -> dict[str, Any]:
    return {
        "version": proposal.version,
        "state": proposal.state.value,
        "operation": proposal.operation,
        "instance": proposal.target.instance,
        "target": proposal.target.key,
        "params": spelt(proposal.params),
        "expires_at": proposal.offer.expires_at if proposal.offer is not None else None,
        "created_at": proposal.created_at,
        "body": to_json(replace(proposal, calls=())),
    }


def spelt(params: frozenset[str]) -> str:
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
        answer = {"answer": call.answer, "request_id": call.request_id, "body": to_json(call)}
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
    """Audit entries, the posts that are owed, and the delivery that they answer."""
    if new_entries:
        connection.execute(_NEW_ENTRY, [_entry_row(entry) for entry in new_entries])
    if posts:
        connection.execute(_NEW_POST, [{"lane": post.lane, "created_at": now, "body": to_json(post)} for post in posts])
    if handled is not None:
        connection.execute(_HANDLED, {"handled": handled, "handled_at": now})


def _entry_row(entry: Entry) -> dict[str, object]:
    return {
        "at": entry.at,
        "name": entry.name.value,
        "actor": entry.actor,
        "proposal_id": entry.proposal_id,
        "body": canonical_bytes(entry),
    }


def write_surface(connection: Connection, proposal_id: str, surface: Surface) -> None:
    upsert(connection, surfaces, [{"proposal_id": proposal_id, **asdict(surface)}])

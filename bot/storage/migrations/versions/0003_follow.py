"""Following and discovery: looks and readings, what was found, which batches a proposal names, the progress message.

Bodies are rewritten from the shape of one batch a proposal to that of many. Calls and deliveries need not be: what they
lack has a default. The rewriting works on JSON, since a later version's values are not those of this revision.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_time = sa.DateTime(timezone=True)
_row_id = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_ROWS = 500

_proposals = sa.table("proposals", *map(sa.column, ("proposal_id", "target", "body")))
_calls = sa.table("calls", *map(sa.column, ("proposal_id", "step", "attempt", "body")))
_outbox = sa.table("outbox", *map(sa.column, ("post_id", "body")))
_touched_jobs = sa.table("touched_jobs", *map(sa.column, ("proposal_id", "job")))

Body = dict[str, Any]


def upgrade() -> None:
    op.execute("ALTER TABLE proposals RENAME COLUMN job TO target")
    op.add_column("surfaces", sa.Column("progress", sa.String(64)))
    _make_following()
    _make_found()
    op.create_table(
        "touched_jobs",
        sa.Column("proposal_id", sa.String(64), sa.ForeignKey("proposals.proposal_id"), primary_key=True),
        sa.Column("job", sa.String(255), primary_key=True),
    )
    op.create_index("proposals_of_job", "touched_jobs", ["job"])
    connection = op.get_bind()
    _rewrite_proposals(connection)
    _rewrite_posts(connection)


def _make_following() -> None:
    op.create_table(
        "looks",
        sa.Column("instance", sa.String(255), primary_key=True),
        sa.Column("target", sa.String(255), primary_key=True),
        sa.Column("due_at", _time, nullable=False),
    )
    op.create_table(
        "readings",
        sa.Column("reading_id", _row_id, primary_key=True, autoincrement=True),
        sa.Column("instance", sa.String(255), nullable=False),
        sa.Column("target", sa.String(255), nullable=False),
        sa.Column("began_at", _time, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_index("readings_of_target", "readings", ["instance", "target", "began_at"])


def _make_found() -> None:
    op.create_table(
        "found_firmware",
        sa.Column("instance", sa.String(255), primary_key=True),
        sa.Column("firmware_id", sa.String(255), primary_key=True),
        sa.Column("seen_at", _time, nullable=False),
        sa.Column("created_at", _time),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_table(
        "found_jobs",
        sa.Column("instance", sa.String(255), primary_key=True),
        sa.Column("job_id", sa.String(255), primary_key=True),
        sa.Column("firmware_id", sa.String(255), nullable=False),
        sa.Column("is_running", sa.Boolean, nullable=False),
        sa.Column("seen_at", _time, nullable=False),
        sa.Column("created_at", _time),
        sa.Column("body", sa.Text, nullable=False),
    )


def _rewrite_proposals(connection: sa.Connection) -> None:
    for rows in _pages(connection, _proposals, _proposals.c.proposal_id):
        calls = _calls_of(connection, [row.proposal_id for row in rows])
        written, touched = [], []
        for row in rows:
            body = _of_many_batches(json.loads(row.body), calls[row.proposal_id])
            written.append({"id": row.proposal_id, "key": _key(row.target), "text": _text(body)})
            if body["offer"] is not None:
                (part,) = body["offer"]["preview"]["parts"]
                touched.append({"proposal_id": row.proposal_id, "job": part["job"]["job_id"]})
        values: Body = {"target": sa.bindparam("key"), "body": sa.bindparam("text")}
        is_this = _proposals.c.proposal_id == sa.bindparam("id")
        connection.execute(sa.update(_proposals).where(is_this).values(values), written)
        if touched:
            connection.execute(sa.insert(_touched_jobs), touched)


def _rewrite_posts(connection: sa.Connection) -> None:
    holds_a_preview = _outbox.c.body.contains('"touches":')
    is_this = _outbox.c.post_id == sa.bindparam("id")
    for rows in _pages(connection, _outbox, _outbox.c.post_id, holds_a_preview):
        bodies = [(row.post_id, json.loads(row.body)) for row in rows]
        written = [
            {"id": post_id, "text": _text({**body, "preview": _preview_of_many(body["preview"])})}
            for post_id, body in bodies
            if body["preview"] is not None
        ]
        if written:
            connection.execute(sa.update(_outbox).where(is_this).values(body=sa.bindparam("text")), written)


def _pages(
    connection: sa.Connection, table: sa.TableClause, key: sa.ColumnElement[Any], *only: sa.ColumnElement[bool]
) -> Iterator[list[Any]]:
    """All rows, so many at a time, in the order of their keys."""
    statement = sa.select(table).where(*only).order_by(key).limit(_ROWS)
    rows = list(connection.execute(statement))
    while rows:
        yield rows
        rows = list(connection.execute(statement.where(key > getattr(rows[-1], key.name))))


def _calls_of(connection: sa.Connection, proposal_ids: list[str]) -> dict[str, list[Body]]:
    found = defaultdict(list)
    mine = sa.select(_calls).where(_calls.c.proposal_id.in_(proposal_ids))
    for row in connection.execute(mine.order_by(_calls.c.step, _calls.c.attempt)):
        found[row.proposal_id].append(json.loads(row.body))
    return found


def _of_many_batches(old: Body, calls: list[Body]) -> Body:
    """A proposal with what its calls were about, the steps that they carry out, and its counts by batch."""
    body = {name: old[name] for name in old if name != "baseline"}
    if (offer := old["offer"]) is None:
        return {**body, "progress": {}}
    preview, seen = offer["preview"], old["progress"]
    body["offer"] = {**offer, "preview": _preview_of_many(preview)}
    body["progress"] = {preview["job"]["job_id"]: seen} if seen is not None else {}
    if calls:
        body["called"] = _preview_of_many({**preview, "counts": old["baseline"] or preview["counts"]})
        body["steps"] = _steps(old["operation"], preview)
    if calls and old["follow_until"] is not None:
        body["followed_from"] = calls[-1]["intent"]["date"]
    return body


def _preview_of_many(old: Body) -> Body:
    part = {name: old[name] for name in ("job", "counts", "touches")}
    return {"target": old["target"], "parts": [part]}


def _steps(operation: str, preview: Body) -> list[Body]:
    """What a cancel and a halt were made of; there was nothing else."""
    job = preview["job"]
    target = {**preview["target"], "firmware": job["firmware_id"], "product": job["product"]}
    cancel = {"kind": "cancel_tasks", "target": target, "touches": preview["touches"]}
    if operation == "job.halt" and job["kind"] == "dynamic":
        return [{"kind": "cancel_strategy", "target": target}, cancel]
    return [cancel]


def _key(job: str) -> str:
    """How a target of one batch is spelt since this revision."""
    return job if len(job) <= 120 else f"{job[:120]}…{sha256(job.encode()).hexdigest()[:32]}"


def _text(body: Body) -> str:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))

"""The tables. Migrations make them; this is what the store's statements are built from.

Bodies are JSON text of the core's values; the columns beside them are what is searched or compared.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    text,
)

SCHEMA = "0004"
"""The newest revision under `migrations/versions`."""

metadata = MetaData()


class Utc(TypeDecorator[datetime]):
    """An aware UTC time, also on a database that keeps no zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC) if value is not None else None

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


_row_id = BigInteger().with_variant(Integer, "sqlite")

inbox = Table(
    "inbox",
    metadata,
    Column("delivery_id", String(64), primary_key=True),
    Column("key", String(255), nullable=False, unique=True),
    Column("received_at", Utc, nullable=False),
    Column("handled_at", Utc),
    Column("body", Text, nullable=False),
)
Index(
    "inbox_open",
    inbox.c.received_at,
    sqlite_where=text("handled_at IS NULL"),
    postgresql_where=text("handled_at IS NULL"),
)
_handled = text("handled_at IS NOT NULL")
Index("inbox_handled", inbox.c.handled_at, inbox.c.delivery_id, sqlite_where=_handled, postgresql_where=_handled)
"""What is pruned is found by these three. A new delivery is in none: the acknowledgement does not pay for it."""

proposals = Table(
    "proposals",
    metadata,
    Column("proposal_id", String(64), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("operation", String(64), nullable=False),
    Column("instance", String(255), nullable=False),
    Column("target", String(255), nullable=False),
    Column("params", String(255), nullable=False),
    Column("expires_at", Utc),
    Column("created_at", Utc, nullable=False),
    Column("body", Text, nullable=False),
)
IS_PENDING = text("state IN ('offered', 'approved')")
"""Also for statements, as are the others: SQLite proves that it may use a partial index from the same words only."""
Index(
    "one_pending",
    proposals.c.instance,
    proposals.c.target,
    proposals.c.operation,
    proposals.c.params,
    unique=True,
    sqlite_where=IS_PENDING,
    postgresql_where=IS_PENDING,
)
IS_UNFINISHED = text("state <> 'finished'")
Index("unfinished", proposals.c.created_at, sqlite_where=IS_UNFINISHED, postgresql_where=IS_UNFINISHED)
_finished = text("state = 'finished'")
Index(
    "proposals_finished",
    proposals.c.created_at,
    proposals.c.proposal_id,
    sqlite_where=_finished,
    postgresql_where=_finished,
)

offers = Table(
    "offers",
    metadata,
    Column("offer_id", String(64), primary_key=True),
    Column("proposal_id", String(64), ForeignKey("proposals.proposal_id"), nullable=False),
)
Index("offers_of_proposal", offers.c.proposal_id)

calls = Table(
    "calls",
    metadata,
    Column("proposal_id", String(64), ForeignKey("proposals.proposal_id"), primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("nonce", String(64), nullable=False, unique=True),
    Column("deadline", Utc, nullable=False),
    Column("answer", String(16)),
    Column("request_id", String(255)),
    Column("body", Text, nullable=False),
)

entries = Table(
    "entries",
    metadata,
    Column("entry_id", _row_id, primary_key=True, autoincrement=True),
    Column("at", Utc, nullable=False),
    Column("name", String(64), nullable=False),
    Column("actor", String(255), nullable=False),
    Column("proposal_id", String(64)),
    Column("body", LargeBinary, nullable=False),
)
Index("entries_of_proposal", entries.c.proposal_id)

outbox = Table(
    "outbox",
    metadata,
    Column("post_id", _row_id, primary_key=True, autoincrement=True),
    Column("lane", String(64), nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("settled_at", Utc),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("failure", Text),
    Column("body", Text, nullable=False),
)
Index(
    "outbox_owed",
    outbox.c.post_id,
    sqlite_where=text("settled_at IS NULL"),
    postgresql_where=text("settled_at IS NULL"),
)
_settled = text("settled_at IS NOT NULL")
Index("outbox_settled", outbox.c.settled_at, outbox.c.post_id, sqlite_where=_settled, postgresql_where=_settled)
Index("outbox_of_lane", outbox.c.lane)

surfaces = Table(
    "surfaces",
    metadata,
    Column("proposal_id", String(64), ForeignKey("proposals.proposal_id"), primary_key=True),
    Column("channel", String(64)),
    Column("card", String(64)),
    Column("buttons", String(64)),
    Column("progress", String(64)),
)

slots = Table(
    "slots",
    metadata,
    Column("account", String(255), primary_key=True),
    Column("action", String(64), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("token", Integer, nullable=False),
    Column("is_held", Boolean, nullable=False),
    Column("taken_at", Double, nullable=False),
    Column("free_at", Double, nullable=False),
    Column("paused_until", Double, nullable=False),
)
"""The call budget, a row a slot. Times: seconds since 1970 by this database's clock. A lane's pause is in its row 0."""

looks = Table(
    "looks",
    metadata,
    Column("instance", String(255), primary_key=True),
    Column("target", String(255), primary_key=True),
    Column("due_at", Utc, nullable=False),
)
"""When each batch that is followed may be looked at next, and so whose turn it is."""

readings = Table(
    "readings",
    metadata,
    Column("reading_id", _row_id, primary_key=True, autoincrement=True),
    Column("instance", String(255), nullable=False),
    Column("target", String(255), nullable=False),
    Column("began_at", Utc, nullable=False),
    Column("body", Text, nullable=False),
)
Index("readings_of_target", readings.c.instance, readings.c.target, readings.c.began_at)

found_firmware = Table(
    "found_firmware",
    metadata,
    Column("instance", String(255), primary_key=True),
    Column("firmware_id", String(255), primary_key=True),
    Column("seen_at", Utc, nullable=False),
    Column("created_at", Utc),
    Column("body", Text, nullable=False),
)

found_jobs = Table(
    "found_jobs",
    metadata,
    Column("instance", String(255), primary_key=True),
    Column("job_id", String(255), primary_key=True),
    Column("firmware_id", String(255), nullable=False),
    Column("is_running", Boolean, nullable=False),
    Column("seen_at", Utc, nullable=False),
    Column("created_at", Utc),
    Column("body", Text, nullable=False),
)

touched_jobs = Table(
    "touched_jobs",
    metadata,
    Column("proposal_id", String(64), ForeignKey("proposals.proposal_id"), primary_key=True),
    Column("job", String(255), primary_key=True),
)
"""Which batches a proposal's offers name: what the lock between stops and restarts is looked up by."""
Index("proposals_of_job", touched_jobs.c.job)

leases = Table(
    "leases",
    metadata,
    Column("name", String(96), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("token", Integer, nullable=False),
    Column("until", Double, nullable=False),
    Column("attempts", Integer, nullable=False),
)
"""Who works on what, until when (seconds since 1970 by this database's clock; 0: free). Work that nobody does has no
row, or one that has lapsed. `attempts` counts the failures since the work last went on."""

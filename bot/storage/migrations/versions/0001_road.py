"""The road: inbox, proposals, offers, calls, entries, outbox, surfaces."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_time = sa.DateTime(timezone=True)
_row_id = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _partial_index(name: str, table: str, columns: list[str], *, where: str, is_unique: bool = False) -> None:
    condition = sa.text(where)
    op.create_index(name, table, columns, unique=is_unique, sqlite_where=condition, postgresql_where=condition)


def upgrade() -> None:
    op.create_table(
        "inbox",
        sa.Column("delivery_id", sa.String(64), primary_key=True),
        sa.Column("key", sa.String(255), nullable=False, unique=True),
        sa.Column("received_at", _time, nullable=False),
        sa.Column("handled_at", _time),
        sa.Column("body", sa.Text, nullable=False),
    )
    _partial_index("inbox_open", "inbox", ["received_at"], where="handled_at IS NULL")
    op.create_table(
        "proposals",
        sa.Column("proposal_id", sa.String(64), primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("operation", sa.String(64), nullable=False),
        sa.Column("instance", sa.String(255), nullable=False),
        sa.Column("job", sa.String(255), nullable=False),
        sa.Column("params", sa.String(255), nullable=False),
        sa.Column("expires_at", _time),
        sa.Column("created_at", _time, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    _partial_index(
        "one_pending",
        "proposals",
        ["instance", "job", "operation", "params"],
        where="state IN ('offered', 'approved')",
        is_unique=True,
    )
    _partial_index("unfinished", "proposals", ["created_at"], where="state <> 'finished'")
    op.create_table(
        "offers",
        sa.Column("offer_id", sa.String(64), primary_key=True),
        sa.Column("proposal_id", sa.String(64), sa.ForeignKey("proposals.proposal_id"), nullable=False),
    )
    op.create_table(
        "calls",
        sa.Column("proposal_id", sa.String(64), sa.ForeignKey("proposals.proposal_id"), primary_key=True),
        sa.Column("step", sa.Integer, primary_key=True),
        sa.Column("attempt", sa.Integer, primary_key=True),
        sa.Column("nonce", sa.String(64), nullable=False, unique=True),
        sa.Column("deadline", _time, nullable=False),
        sa.Column("answer", sa.String(16)),
        sa.Column("request_id", sa.String(255)),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_table(
        "entries",
        sa.Column("entry_id", _row_id, primary_key=True, autoincrement=True),
        sa.Column("at", _time, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("actor", sa.String(255), nullable=False),
        sa.Column("proposal_id", sa.String(64)),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_index("entries_of_proposal", "entries", ["proposal_id"])
    op.create_table(
        "outbox",
        sa.Column("post_id", _row_id, primary_key=True, autoincrement=True),
        sa.Column("lane", sa.String(64), nullable=False),
        sa.Column("created_at", _time, nullable=False),
        sa.Column("settled_at", _time),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("failure", sa.Text),
        sa.Column("body", sa.Text, nullable=False),
    )
    _partial_index("outbox_owed", "outbox", ["post_id"], where="settled_at IS NULL")
    op.create_table(
        "surfaces",
        sa.Column("proposal_id", sa.String(64), sa.ForeignKey("proposals.proposal_id"), primary_key=True),
        sa.Column("channel", sa.String(64)),
        sa.Column("card", sa.String(64)),
        sa.Column("buttons", sa.String(64)),
    )

"""Leases: who works on what. And what old rows are found by, so that they can be pruned."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "leases",
        sa.Column("name", sa.String(96), primary_key=True),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("token", sa.Integer, nullable=False),
        sa.Column("until", sa.Double, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
    )
    _partial_index("inbox_handled", "inbox", ["handled_at", "delivery_id"], where="handled_at IS NOT NULL")
    _partial_index("proposals_finished", "proposals", ["created_at", "proposal_id"], where="state = 'finished'")
    _partial_index("outbox_settled", "outbox", ["settled_at", "post_id"], where="settled_at IS NOT NULL")
    op.create_index("outbox_of_lane", "outbox", ["lane"])
    op.create_index("offers_of_proposal", "offers", ["proposal_id"])


def _partial_index(name: str, table: str, columns: list[str], *, where: str) -> None:
    condition = sa.text(where)
    op.create_index(name, table, columns, sqlite_where=condition, postgresql_where=condition)

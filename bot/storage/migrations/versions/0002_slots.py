"""The call budget: a row a slot."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "slots",
        sa.Column("account", sa.String(255), primary_key=True),
        sa.Column("action", sa.String(64), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("token", sa.Integer, nullable=False),
        sa.Column("is_held", sa.Boolean, nullable=False),
        sa.Column("taken_at", sa.Double, nullable=False),
        sa.Column("free_at", sa.Double, nullable=False),
        sa.Column("paused_until", sa.Double, nullable=False),
    )

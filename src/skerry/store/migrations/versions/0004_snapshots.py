"""Snapshots of sandboxes."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "snapshots",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("tenant_id", sa.String, nullable=False),
        sa.Column("name", sa.String),
        sa.Column("sandbox_id", sa.String, nullable=False),
        sa.Column("document", sa.JSON, nullable=False),
        sa.Column("env", sa.JSON, nullable=False),
        sa.Column("internal", sa.JSON, nullable=False),
        sa.Column("state", sa.JSON, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("snapshots_by_tenant", "snapshots", ["tenant_id", "number"])
    op.create_index("snapshots_by_name", "snapshots", ["tenant_id", "name"], unique=True)

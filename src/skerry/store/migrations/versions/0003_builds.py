"""Templates that users build, their builds and tags."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "templates",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("tenant_id", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.create_index("templates_by_name", "templates", ["tenant_id", "name"], unique=True)
    op.create_table(
        "builds",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("template_id", sa.String, sa.ForeignKey("templates.id", ondelete="CASCADE"), nullable=False),
        sa.Column("document", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.create_index("builds_by_template", "builds", ["template_id", "created_at"])
    op.create_table(
        "tags",
        sa.Column("template_id", sa.String, sa.ForeignKey("templates.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("tag", sa.String, primary_key=True),
        sa.Column("build_id", sa.String, sa.ForeignKey("builds.id", ondelete="CASCADE"), nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )

"""When a sandbox was created, to filter by."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("sandboxes", sa.Column("created_at", sa.Float, nullable=False, server_default="0"))
    op.execute(
        "UPDATE sandboxes SET created_at = (julianday(json_extract(document, '$.created_at')) - 2440587.5) * 86400.0"
    )

"""The tables, as the newest migration leaves them."""

from __future__ import annotations

from sqlalchemy import JSON, Column, Float, ForeignKey, Index, Integer, LargeBinary, MetaData, String, Table

metadata = MetaData()

sandboxes = Table(
    "sandboxes",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("tenant_id", String, nullable=False),
    Column("template", String, nullable=False),
    Column("state", String, nullable=False),
    Column("document", JSON, nullable=False),
    Column("env", JSON, nullable=False),
    Column("internal", JSON, nullable=False),
    Column("created_at", Float, nullable=False, server_default="0"),
    Index("sandboxes_by_tenant", "tenant_id", "number"),
    Index("sandboxes_by_state", "state"),
    sqlite_autoincrement=True,
)
"""`number` orders by age and is never used again, so that it serves as a cursor."""

labels = Table(
    "labels",
    metadata,
    Column("sandbox", Integer, ForeignKey("sandboxes.number", ondelete="CASCADE"), primary_key=True),
    Column("name", String, primary_key=True),
    Column("value", String, nullable=False),
    Index("labels_by_value", "name", "value"),
)
"""The sandboxes' metadata once more, to find them by."""

idempotency = Table(
    "idempotency",
    metadata,
    Column("tenant_id", String, primary_key=True),
    Column("key", String, primary_key=True),
    Column("hash", LargeBinary, nullable=False),
    Column("sandbox_id", String, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("sandbox_id", String, nullable=False),
    Column("type", String, nullable=False),
    Column("data", JSON, nullable=False),
    Index("events_by_sandbox", "sandbox_id", "id"),
    sqlite_autoincrement=True,
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("tenant_id", String, nullable=False),
    Column("name", String),
    Column("sandbox_id", String, nullable=False),
    Column("document", JSON, nullable=False),
    Column("env", JSON, nullable=False),
    Column("internal", JSON, nullable=False),
    Column("state", JSON, nullable=False),
    Index("snapshots_by_tenant", "tenant_id", "number"),
    Index("snapshots_by_name", "tenant_id", "name", unique=True),
    sqlite_autoincrement=True,
)

templates = Table(
    "templates",
    metadata,
    Column("id", String, primary_key=True),
    Column("tenant_id", String, nullable=False),
    Column("name", String, nullable=False),
    Column("created_at", Float, nullable=False),
    Index("templates_by_name", "tenant_id", "name", unique=True),
)

builds = Table(
    "builds",
    metadata,
    Column("id", String, primary_key=True),
    Column("template_id", String, ForeignKey("templates.id", ondelete="CASCADE"), nullable=False),
    Column("document", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
    Index("builds_by_template", "template_id", "created_at"),
)

tags = Table(
    "tags",
    metadata,
    Column("template_id", String, ForeignKey("templates.id", ondelete="CASCADE"), primary_key=True),
    Column("tag", String, primary_key=True),
    Column("build_id", String, ForeignKey("builds.id", ondelete="CASCADE"), nullable=False),
    Column("created_at", Float, nullable=False),
)
"""What a tag of a template means at present."""

volumes = Table(
    "volumes",
    metadata,
    Column("id", String, primary_key=True),
    Column("tenant_id", String, nullable=False),
    Column("name", String, nullable=False),
    Column("document", JSON, nullable=False),
    Index("volumes_by_name", "tenant_id", "name", unique=True),
)

volume_snapshots = Table(
    "volume_snapshots",
    metadata,
    Column("id", String, primary_key=True),
    Column("tenant_id", String, nullable=False),
    Column("volume_id", String, ForeignKey("volumes.id", ondelete="CASCADE"), nullable=False),
    Column("name", String, nullable=False),
    Column("document", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
    Index("volume_snapshots_by_name", "volume_id", "name", unique=True),
)

keys = Table(
    "keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("tenant_id", String, nullable=False),
    Column("hash", LargeBinary, nullable=False, unique=True),
    Column("name", String, nullable=False),
    Column("prefix", String, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("last_used_at", Float),
    Column("revoked_at", Float),
)

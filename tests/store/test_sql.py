"""The store on a real database."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from skerry.errors import Conflict, InvalidRequest
from skerry.models import Isolation, Key, Limits, Sandbox, SandboxState
from skerry.ports import KeyRecord, SandboxRecord
from skerry.store import migrate
from skerry.store.sql import SqlStore
from skerry.store.tables import metadata

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlStore]:
    store = SqlStore(tmp_path / "db")
    yield store
    await store.aclose()


def record(id: str, *, tenant: str = "t", state: SandboxState = SandboxState.RUNNING, **labels: str) -> SandboxRecord:
    sandbox = Sandbox(
        id=id, template="base", isolation=Isolation.GVISOR, state=state,
        limits=Limits(cpu=1, memory_mib=1, disk_mib=1, pids=1), internet=True, metadata=labels, created_at=NOW,
        expires_at=None, idle_timeout_s=None,
    )  # fmt: skip
    return SandboxRecord(sandbox, tenant, {"A": "b"}, {"contexts": {"c": {"pid": 1}}})


async def test_a_sandbox_survives_the_server(tmp_path: Path) -> None:
    first = SqlStore(tmp_path / "db")
    await first.create_sandbox(record("a"))
    await first.aclose()
    second = SqlStore(tmp_path / "db")
    assert await second.sandbox("t", "a") == record("a")
    assert await second.sandbox("other", "a") is None
    await second.aclose()


async def test_changes_replace(store: SqlStore) -> None:
    await store.create_sandbox(record("a", x="1"))
    changed = record("a", state=SandboxState.DESTROYED, x="2")
    await store.update_sandbox(changed)
    assert await store.sandbox("t", "a") == changed
    assert (await store.sandboxes("t", metadata={"x": "1"}))[0] == []
    assert (await store.sandboxes("t", metadata={"x": "2"}))[0] == [changed]


async def test_pages_are_stable_while_others_are_added(store: SqlStore) -> None:
    for number in range(5):
        await store.create_sandbox(record(f"s{number}"))
    page, cursor = await store.sandboxes("t", limit=2)
    assert [item.sandbox.id for item in page] == ["s4", "s3"]
    await store.create_sandbox(record("new"))
    page, cursor = await store.sandboxes("t", limit=2, cursor=cursor)
    assert [item.sandbox.id for item in page] == ["s2", "s1"]
    page, cursor = await store.sandboxes("t", limit=2, cursor=cursor)
    assert [item.sandbox.id for item in page] == ["s0"]
    assert cursor is None


@pytest.mark.parametrize("cursor", ["x", "!!", "MTI=x", "é"])
async def test_a_foreign_cursor_is_refused(store: SqlStore, cursor: str) -> None:
    with pytest.raises(InvalidRequest):
        await store.sandboxes("t", cursor=cursor)


async def test_filters(store: SqlStore) -> None:
    await store.create_sandbox(record("a", k="v", l="w"))
    await store.create_sandbox(record("b", k="v%", state=SandboxState.FAILED))
    await store.create_sandbox(record("c", tenant="other", k="v"))

    async def ids(**filters) -> list[str]:
        return [item.sandbox.id for item in (await store.sandboxes("t", **filters))[0]]

    assert await ids() == ["b", "a"]
    assert await ids(metadata={"k": "v", "l": "w"}) == ["a"]
    assert await ids(metadata={"k": "%"}) == []
    assert await ids(states=[SandboxState.FAILED]) == ["b"]
    assert await ids(template="other") == []
    assert len((await store.sandboxes(None))[0]) == 3
    assert await ids(created_since=NOW) == ["b", "a"]
    assert await ids(created_since=NOW + timedelta(microseconds=1)) == []


async def test_oldest_first(store: SqlStore) -> None:
    for number in range(3):
        await store.create_sandbox(record(f"s{number}"))
    page, cursor = await store.sandboxes("t", limit=2, oldest_first=True)
    assert [item.sandbox.id for item in page] == ["s0", "s1"]
    page, cursor = await store.sandboxes("t", limit=2, oldest_first=True, cursor=cursor)
    assert [item.sandbox.id for item in page] == ["s2"]
    assert cursor is None


def test_a_database_of_the_first_version_is_brought_up(tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'db'}")
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        document = record("old").sandbox.model_dump(mode="json")
        connection.execute(
            sa.text(
                "insert into sandboxes (id, tenant_id, template, state, document, env, internal)"
                " values ('old', 't', 'base', 'running', :document, '{}', '{}')"
            ),
            {"document": json.dumps(document)},
        )
    migrate.to_newest(engine)
    with engine.begin() as connection:
        (created_at,) = connection.execute(sa.text("select created_at from sandboxes")).one()
    assert created_at == pytest.approx(NOW.timestamp(), abs=0.001)
    engine.dispose()


async def test_one_idempotency_key_makes_one_sandbox(store: SqlStore) -> None:
    first = await store.create_sandbox(record("a"), ("key", b"hash"))
    again = await store.create_sandbox(record("b"), ("key", b"hash"))
    assert first.sandbox.id == again.sandbox.id == "a"
    assert await store.sandbox("t", "b") is None
    with pytest.raises(Conflict):
        await store.create_sandbox(record("c"), ("key", b"other"))
    assert (await store.create_sandbox(replace(record("d"), tenant_id="u"), ("key", b"x"))).sandbox.id == "d"
    await store.forget_idempotency("a")
    assert (await store.create_sandbox(record("e"), ("key", b"other"))).sandbox.id == "e"


async def test_events_are_in_order_and_the_tenants_own(store: SqlStore) -> None:
    await store.create_sandbox(record("a"))
    await store.create_sandbox(record("b", tenant="other"))
    first = await store.add_event("a", "one", {"x": 1}, NOW)
    second = await store.add_event("a", "two", {}, NOW)
    await store.add_event("b", "theirs", {}, NOW)
    assert await store.events("t", None, after=0, limit=10) == [first, second]
    assert await store.events("t", "a", after=first.id, limit=10) == [second]
    assert await store.events("t", "b", after=0, limit=10) == []


async def test_keys(store: SqlStore) -> None:
    key = Key(id="k", name="n", prefix="sk_", created_at=NOW)
    await store.add_key(KeyRecord(key, "t", b"hash"))
    assert await store.key_by_hash(b"hash") == KeyRecord(key, "t", b"hash")
    assert await store.key_by_hash(b"none") is None
    await store.touch_key("k", NOW)
    assert not await store.revoke_key("other", "k", NOW)
    assert await store.revoke_key("t", "k", NOW)
    assert not await store.revoke_key("t", "k", NOW)
    assert [(item.last_used_at, item.revoked_at) for item in await store.keys("t")] == [(NOW, NOW)]


def test_a_database_of_a_newer_skerry_is_refused(tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'db'}")
    with engine.begin() as connection:
        connection.execute(sa.text("create table alembic_version (version_num varchar(32))"))
        connection.execute(sa.text("insert into alembic_version values ('9999')"))
    engine.dispose()
    with pytest.raises(Conflict, match="newer"):
        SqlStore(tmp_path / "db")


async def test_the_migrations_end_at_the_tables(store: SqlStore, tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'db'}")
    with engine.connect() as connection:
        inspector = sa.inspect(connection)
        for table in metadata.sorted_tables:
            assert {column["name"] for column in inspector.get_columns(table.name)} == set(table.columns.keys())
            indexes = {index["name"] for index in inspector.get_indexes(table.name)}
            assert indexes == {index.name for index in table.indexes}
    engine.dispose()

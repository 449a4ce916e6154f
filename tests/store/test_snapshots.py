"""Snapshots in a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from skerry.models import Limits, Snapshot
from skerry.ports import SnapshotRecord, State
from skerry.store.snapshots import SqlSnapshots
from skerry.store.sql import SqlStore

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
async def snapshots(tmp_path: Path) -> AsyncIterator[SqlSnapshots]:
    store = SqlStore(tmp_path / "db")
    yield SqlSnapshots(store)
    await store.aclose()


def record(id: str, name: str | None = None, *, sandbox_id: str = "sb1", tenant: str = "t") -> SnapshotRecord:
    snapshot = Snapshot(
        id=id, name=name, sandbox_id=sandbox_id, template="base", memory=True, size_mib=1, pause_s=0.1, created_at=NOW,
        limits=Limits(cpu=1, memory_mib=1, disk_mib=1, pids=1),
    )  # fmt: skip
    return SnapshotRecord(snapshot, tenant, {"A": "b"}, {"own": [1]}, State(f"st-{id}", True, 1))


async def ids(snapshots: SqlSnapshots, **filters: str) -> list[str]:
    return [found.snapshot.id for found in (await snapshots.page("t", **filters))[0]]  # type: ignore[arg-type]


async def test_by_id_or_name_of_one_tenant(snapshots: SqlSnapshots) -> None:
    await snapshots.add(record("a", "named"))
    await snapshots.add(record("b", tenant="other"))
    assert await snapshots.get("t", "a") == await snapshots.get("t", "named") == record("a", "named")
    assert await snapshots.get("t", "b") is None
    assert await ids(snapshots) == ["a"]
    assert sorted(await snapshots.states()) == ["st-a", "st-b"]
    assert not await snapshots.remove("t", "b")
    assert await snapshots.remove("t", "a")
    assert not await snapshots.remove("t", "a")


async def test_the_newest_has_the_name(snapshots: SqlSnapshots) -> None:
    await snapshots.add(record("a", "named"))
    await snapshots.add(record("b", "named"))
    found = await snapshots.get("t", "named")
    assert found is not None
    assert found.snapshot.id == "b"
    assert await snapshots.get("t", "a") == record("a")


async def test_a_name_without_a_tag_means_all_its_tags(snapshots: SqlSnapshots) -> None:
    for id, name in [("a", "x"), ("b", "x:v1"), ("c", "xy"), ("d", "x_"), ("e", "x%:v1"), ("f", None)]:
        await snapshots.add(record(id, name))
    assert await ids(snapshots, name="x") == ["b", "a"]
    assert await ids(snapshots, name="x:v1") == ["b"]
    assert await ids(snapshots, name="x_") == ["d"]
    assert await ids(snapshots, name="X") == []
    found = await snapshots.get("t", "x")
    assert found is not None
    assert found.snapshot.id == "a"


async def test_by_pages(snapshots: SqlSnapshots) -> None:
    for id in "abc":
        await snapshots.add(record(id, sandbox_id="sb1" if id != "b" else "sb2"))
    first, more = await snapshots.page("t", limit=2)
    second, none = await snapshots.page("t", limit=2, cursor=more)
    assert [found.snapshot.id for found in (*first, *second)] == ["c", "b", "a"]
    assert none is None
    assert await ids(snapshots, sandbox_id="sb1") == ["c", "a"]

"""Volumes in a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from skerry.errors import Conflict
from skerry.models import Volume, VolumeSnapshot, VolumeState
from skerry.store.sql import SqlStore
from skerry.store.volumes import SqlVolumes

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlVolumes]:
    store = SqlStore(tmp_path / "db")
    yield SqlVolumes(store)
    await store.aclose()


def volume(id: str, name: str) -> Volume:
    return Volume(id=id, name=name, state=VolumeState.READY, size_mib=16, inodes=8192, created_at=NOW)


def snapshot(id: str, volume_id: str, name: str, minutes: int = 0) -> VolumeSnapshot:
    at = NOW + timedelta(minutes=minutes)
    return VolumeSnapshot(id=id, name=name, volume_id=volume_id, size_mib=16, stored_mib=1.5, created_at=at)


async def test_volumes_are_found_by_name_and_id(store: SqlVolumes) -> None:
    await store.add("t", volume("1", "b"))
    await store.add("t", volume("2", "a"))
    await store.add("other", volume("3", "b"))
    assert [item.id for item in await store.volumes("t")] == ["2", "1"]
    assert len(await store.volumes(None)) == 3
    assert (await store.volume("t", "b")) == (await store.volume("t", "1")) == volume("1", "b")
    assert await store.volume("t", "3") is None
    assert (await store.owner("3"), await store.owner("b")) == ("other", None)
    await store.add("t", volume("4", "2"))
    found = await store.volume("t", "2")
    assert found is not None
    assert found.name == "a", "an id goes before a name"


async def test_a_name_is_taken_once_by_a_tenant(store: SqlVolumes) -> None:
    await store.add("t", volume("1", "a"))
    with pytest.raises(Conflict, match="of that name"):
        await store.add("t", volume("2", "a"))
    await store.remove("1")
    await store.add("t", volume("2", "a"))


async def test_only_what_lasts_is_stored(store: SqlVolumes) -> None:
    await store.add("t", volume("1", "a"))
    await store.save(volume("1", "a").model_copy(update={"size_mib": 32, "mounted_by": ["x"], "used_mib": 3.0}))
    assert await store.volume("t", "1") == volume("1", "a").model_copy(update={"size_mib": 32})


async def test_snapshots_go_with_their_volume(store: SqlVolumes) -> None:
    await store.add("t", volume("1", "a"))
    await store.add("t", volume("2", "b"))
    await store.add_snapshot("t", snapshot("s1", "1", "x", minutes=1))
    await store.add_snapshot("t", snapshot("s2", "1", "y"))
    await store.add_snapshot("t", snapshot("s3", "2", "x"))
    with pytest.raises(Conflict):
        await store.add_snapshot("t", snapshot("s4", "1", "x"))
    assert [item.id for item in await store.snapshots("t")] == ["s2", "s3", "s1"]
    assert await store.snapshots("other") == []
    await store.remove_snapshot("s3")
    await store.remove("1")
    assert await store.snapshots(None) == []

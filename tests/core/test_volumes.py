"""Volumes: who may do what when, and what a dead server leaves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from skerry.core.quota import Storage
from skerry.core.volumes import Volumes
from skerry.errors import (
    Conflict,
    HostFull,
    InvalidRequest,
    LimitExceeded,
    SandboxStartFailed,
    VolumeInUse,
    VolumeNotFound,
    VolumeSnapshotNotFound,
)
from skerry.models import (
    SandboxSpec,
    VolumeMount,
    VolumeResize,
    VolumeSnapshotSpec,
    VolumeSpec,
    VolumeState,
)
from skerry.store.sql import SqlStore
from skerry.store.volumes import SqlVolumes

from .memory_disks import MemoryDisks
from .test_sandboxes import Engine, core_on

pytestmark = pytest.mark.anyio


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    engine.close()


@asynccontextmanager
async def volumes_on(path: Path, disks: MemoryDisks, quota_mib: int | None = None) -> AsyncIterator[Volumes]:
    store = SqlStore(path / "db")
    volumes = Volumes(disks, SqlVolumes(store), store, Storage(quota_mib), size_mib=100, size_max_mib=1000)
    await volumes.start()
    yield volumes
    await store.aclose()


def spec(name: str = "data", **fields: object) -> VolumeSpec:
    return VolumeSpec.model_validate({"name": name, **fields})


async def test_a_volume_from_its_making_to_its_end(tmp_path: Path) -> None:
    disks = MemoryDisks()
    async with volumes_on(tmp_path, disks) as volumes:
        made = await volumes.create("t", spec())
        assert (made.size_mib, made.inodes, made.used_mib, made.state) == (100, 8192, 1.0, VolumeState.READY)
        assert (await volumes.get("t", "data")) == (await volumes.get("t", made.id)) == made
        assert [item.id for item in await volumes.all("t")] == [made.id]
        assert await volumes.all("other") == []
        with pytest.raises(VolumeNotFound):
            await volumes.get("other", made.id)
        with pytest.raises(Conflict):
            await volumes.create("t", spec())
        await volumes.create("other", spec())
        resized = await volumes.resize("t", "data", VolumeResize(size_mib=200))
        assert resized.size_mib == 200
        await volumes.delete("t", "data")
        assert await volumes.all("t") == []
        assert len(disks.there) == 1


async def test_snapshots_and_copies(tmp_path: Path) -> None:
    disks = MemoryDisks()
    async with volumes_on(tmp_path, disks) as volumes:
        made = await volumes.create("t", spec())
        first = await volumes.take_snapshot("t", "data", VolumeSnapshotSpec(name="first"))
        nameless = await volumes.take_snapshot("t", "data", VolumeSnapshotSpec())
        assert nameless.name == nameless.id
        with pytest.raises(Conflict):
            await volumes.take_snapshot("t", "data", VolumeSnapshotSpec(name="first"))
        assert [item.id for item in await volumes.snapshots("t", "data")] == [first.id, nameless.id]
        await volumes.resize("t", "data", VolumeResize(size_mib=300))
        assert (await volumes.restore("t", "data", "first")).size_mib == 100
        copy = await volumes.create("t", spec("copy", source="data"))
        assert copy.size_mib == 100
        larger = await volumes.create("t", spec("larger", source=first.id, size_mib=400))
        assert larger.size_mib == 400
        assert disks.log[-3:] == ["copy live", "copy", "resize 400"]
        for source in ("missing", nameless.name + "x"):
            with pytest.raises(VolumeNotFound):
                await volumes.create("t", spec("y", source=source))
        with pytest.raises(VolumeNotFound):
            await volumes.create("other", spec("y", source=first.id))
        with pytest.raises(Conflict, match="2 snapshots"):
            await volumes.delete("t", "data")
        await volumes.delete_snapshot("t", "data", nameless.id)
        with pytest.raises(VolumeSnapshotNotFound):
            await volumes.restore("t", "data", nameless.id)
        await volumes.delete("t", "data", snapshots=True)
        assert set(disks.there) == {copy.id, larger.id}
        assert made.id not in disks.there


async def test_limits(tmp_path: Path) -> None:
    async with volumes_on(tmp_path, MemoryDisks(), quota_mib=500) as volumes:
        await volumes.create("t", spec("a", size_mib=300))
        with pytest.raises(LimitExceeded) as caught:
            await volumes.create("t", spec("b", size_mib=201))
        assert caught.value.details["current_mib"] == 300
        with pytest.raises(LimitExceeded):
            await volumes.create("t", spec("b", source="a"))
        with pytest.raises(LimitExceeded):
            await volumes.resize("t", "a", VolumeResize(size_mib=501))
        await volumes.resize("t", "a", VolumeResize(size_mib=500))
        with pytest.raises(LimitExceeded):
            await volumes.take_snapshot("t", "a", VolumeSnapshotSpec())
        await volumes.resize("t", "a", VolumeResize(size_mib=50))
        await volumes.take_snapshot("t", "a", VolumeSnapshotSpec())
        with pytest.raises(LimitExceeded, match="volume_size_max_mib"):
            await volumes.create("u", spec("a", size_mib=1001))
        with pytest.raises(InvalidRequest, match="inodes"):
            await volumes.create("u", spec("a", size_mib=100, inodes=1_000_000))
        with pytest.raises(InvalidRequest):
            await volumes.create("t", spec("c", source="a", inodes=1000))


@pytest.mark.parametrize("fails", [HostFull("full"), anyio.BrokenResourceError()])
async def test_a_failed_making_leaves_nothing(tmp_path: Path, fails: Exception) -> None:
    disks = MemoryDisks()
    async with volumes_on(tmp_path, disks) as volumes:
        disks.fails_after = fails
        with pytest.raises(type(fails)):
            await volumes.create("t", spec())
        disks.fails_after = None
        assert disks.there == {}
        await volumes.create("t", spec())


async def test_what_a_dead_server_left(tmp_path: Path) -> None:
    disks = MemoryDisks()
    async with volumes_on(tmp_path, disks) as volumes:
        kept = await volumes.create("t", spec("kept"))
        lost = await volumes.create("t", spec("lost"))
        gone = await volumes.create("t", spec("gone"))
        snapshot = await volumes.take_snapshot("t", "kept", VolumeSnapshotSpec(name="s"))
        of_gone = await volumes.take_snapshot("t", "gone", VolumeSnapshotSpec(name="s"))
        await volumes._store.save(gone.model_copy(update={"state": VolumeState.DELETING}))
    await disks.create("volorphan", 1, 1)  # made, and the server died before the store knew
    await disks.resize(kept.id, 77)  # changed, and the server died before it could note that
    disks.there.pop(lost.id)
    async with volumes_on(tmp_path, disks) as volumes:
        assert set(disks.there) == {kept.id, snapshot.id}
        assert of_gone.id not in disks.there
        assert (await volumes.get("t", "kept")).size_mib == 77
        assert [item.name for item in await volumes.all("t")] == ["kept", "lost"]
        assert (await volumes.get("t", "lost")).state is VolumeState.LOST
        for use in (
            lambda: volumes.usable("t", "lost"),
            lambda: volumes.resize("t", "lost", VolumeResize(size_mib=50)),
            lambda: volumes.create("t", spec("copy", source="lost")),
            lambda: volumes.use.resolve("t", [VolumeMount(volume="lost", path="/data")]),
        ):
            with pytest.raises(VolumeNotFound, match="file was removed"):
                await use()
        await volumes.delete("t", "lost")


async def test_a_transfer_that_goes_on_keeps_the_volume(tmp_path: Path) -> None:
    disks = MemoryDisks()
    async with volumes_on(tmp_path, disks) as volumes:
        made = await volumes.create("t", spec())
        disks.busy.add(made.id)
        with pytest.raises(VolumeInUse):
            await volumes.delete("t", "data")
        assert (await volumes.get("t", "data")).state is VolumeState.READY
        disks.busy.clear()
        await volumes.delete("t", "data")


async def test_one_change_at_a_time(tmp_path: Path) -> None:
    disks = MemoryDisks()
    async with volumes_on(tmp_path, disks) as volumes, anyio.create_task_group() as group:
        made = await volumes.create("t", spec())
        disks.hold = anyio.Event()
        group.start_soon(volumes.resize, "t", "data", VolumeResize(size_mib=50))
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(VolumeInUse, match="another call"):
            await volumes.delete("t", "data")
        mounted = await volumes.use.resolve("t", [VolumeMount(volume="data", path="/data")])
        with pytest.raises(VolumeInUse, match="another call"):
            async with volumes.use.placing("t", mounted):
                pass
        disks.hold.set()
        await anyio.wait_all_tasks_blocked()
        async with volumes.use.placing("t", mounted):
            pass
        assert mounted[0].id == made.id


def mounts(*pairs: tuple[str, str]) -> SandboxSpec:
    return SandboxSpec(volumes=[VolumeMount(volume=volume, path=path) for volume, path in pairs])


async def test_sandboxes_hold_their_volumes(tmp_path: Path, engine: Engine) -> None:
    async with core_on(tmp_path, engine) as core:
        a = await core.volumes.create("t", spec("a"))
        b = await core.volumes.create("t", spec("b"))
        sandbox = await core.create("t", mounts(("b", "/data/b/"), (a.id, "/data")))
        assert [(item.name, item.path) for item in sandbox.volumes] == [("a", "/data"), ("b", "/data/b")]
        placement = engine.running[sandbox.id]
        assert placement is not None
        assert [item.id for item in placement.volumes] == [a.id, b.id]
        assert (await core.volumes.get("t", "a")).mounted_by == [sandbox.id]
        assert (await core.volumes.all("t"))[1].mounted_by == [sandbox.id]
        snapshot = await core.volumes.take_snapshot("t", "a", VolumeSnapshotSpec())
        for change in (
            lambda: core.volumes.delete("t", "a"),
            lambda: core.volumes.resize("t", "a", VolumeResize(size_mib=20)),
            lambda: core.volumes.restore("t", "a", snapshot.id),
        ):
            with pytest.raises(VolumeInUse, match=sandbox.id) as caught:
                await change()
            assert caught.value.details["sandbox_ids"] == [sandbox.id]
        await core.sandboxes.destroy("t", sandbox.id)
        await core.volumes.delete("t", "a", snapshots=True)


async def test_sandboxes_that_never_ran_hold_nothing(tmp_path: Path, engine: Engine) -> None:
    async with core_on(tmp_path, engine) as core:
        await core.volumes.create("t", spec("a"))
        engine.fails = SandboxStartFailed("no")
        with pytest.raises(SandboxStartFailed):
            await core.create("t", mounts(("a", "/data")))
        assert (await core.volumes.get("t", "a")).mounted_by == []


async def test_mounts_that_cannot_be(tmp_path: Path, engine: Engine) -> None:
    async with core_on(tmp_path, engine) as core:
        await core.volumes.create("t", spec("a"))
        await core.volumes.create("t", spec("b"))
        await core.volumes.create("other", spec("c"))
        for pairs, error in (
            ([("c", "/data")], VolumeNotFound),
            ([("a", "/data"), ("b", "/data/")], InvalidRequest),
            ([("a", "/data"), ("a", "/other")], InvalidRequest),
        ):
            with pytest.raises(error):
                await core.create("t", mounts(*pairs))
        assert engine.running == {}


@pytest.mark.parametrize(
    "path", ["data", "", "/", "/a/../b", "/proc", "/proc/x", "/run", "/run/skerry/volumes", "/opt", "/opt/skerry/x", "/sys/"]
)  # fmt: skip
def test_paths_where_nothing_is_mounted(path: str) -> None:
    with pytest.raises(ValueError, match="volume"):
        VolumeMount(volume="a", path=path)


@pytest.mark.parametrize("name", ["", "-a", ".a", "a/b", "a b", "a" * 65, "ä", "a\n"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        spec(name)

"""Volumes on real loop devices."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

from skerry.errors import HostFull, InternalError, VolumeInUse, VolumeTooSmall
from skerry.host import loops, mounts
from skerry.host import volumes as module
from skerry.host.volumes import Volumes

from .test_disks import fill, loop_devices, make_files

pytestmark = pytest.mark.anyio
SIZE_MIB = 16
INODES = 8192


@pytest.fixture
async def volumes(tmp_path: Path) -> AsyncIterator[Volumes]:
    volumes = Volumes(tmp_path / "files", tmp_path / "mounts")
    await volumes.start()
    yield volumes
    await volumes.stop()
    await nothing_is_mounted(tmp_path)


async def nothing_is_mounted(below: Path) -> None:
    assert str(below) not in Path("/proc/self/mountinfo").read_text()
    assert not (below / "mounts").exists()
    with anyio.fail_after(5):
        while loop_devices(below):
            await anyio.sleep(0.005)


async def test_what_is_written_stays(volumes: Volumes, tmp_path: Path) -> None:
    await volumes.create("a", SIZE_MIB, INODES)
    async with volumes.use("a") as root:
        assert root.stat().st_mode & 0o7777 == 0o777, "users of any id can use it"
        assert list(root.iterdir()) == []
        (root / "kept").write_text("kept")
        async with volumes.use("a") as again:
            assert (again / "kept").read_text() == "kept"
            assert len(loop_devices(tmp_path)) == 1
    assert not (tmp_path / "mounts/base/a").exists(), "unmounted when nobody uses it"
    async with volumes.use("a") as root:
        assert (root / "kept").read_text() == "kept"
    assert volumes.names() == {"a"}
    await volumes.remove("a")
    await volumes.remove("a")
    assert volumes.names() == set()


async def test_bytes_and_inodes_end(volumes: Volumes) -> None:
    await volumes.create("a", SIZE_MIB, 512)
    async with volumes.use("a") as root:
        with pytest.raises(OSError, match="No space left"):
            fill(root / "big", 2**20)
        (root / "big").unlink()
        with pytest.raises(OSError, match="No space left"):
            make_files(root, 600)
        usage = await volumes.usage("a")
        assert usage.inodes == usage.inodes_used == 512


async def test_usage_is_told_the_same_mounted_or_not(volumes: Volumes) -> None:
    await volumes.create("a", SIZE_MIB, INODES)
    empty = await volumes.usage("a")
    assert empty.size_mib == SIZE_MIB
    assert empty.inodes == INODES
    assert empty.used_bytes < 1 << 20
    assert empty.stored_bytes < 1 << 20, "sparse"
    async with volumes.use("a") as root:
        (root / "file").write_bytes(b"x" * 3_000_000)
        os.sync()
        mounted = await volumes.usage("a")
    unmounted = await volumes.usage("a")
    assert mounted.used_bytes == unmounted.used_bytes >= empty.used_bytes + 3_000_000
    assert mounted.inodes_used == unmounted.inodes_used == empty.inodes_used + 1
    async with volumes.use("a") as root:
        (root / "file").unlink()
    assert (await volumes.usage("a")).stored_bytes < unmounted.stored_bytes, "what is removed is given back"


async def test_copies_are_of_a_moment_and_independent(volumes: Volumes) -> None:
    await volumes.create("a", SIZE_MIB, INODES)
    async with volumes.use("a") as root:
        (root / "file").write_text("old")
        await volumes.copy("a", "snapshot", live=True)
        (root / "file").write_text("new")
    await volumes.copy("snapshot", "b", live=False)
    async with volumes.use("b") as root:
        assert (root / "file").read_text() == "old"
        (root / "file").write_text("of b")
    async with volumes.use("a") as root:
        assert (root / "file").read_text() == "new"
    await volumes.replace("a", "snapshot")
    async with volumes.use("a") as root:
        assert (root / "file").read_text() == "old"


async def test_a_copy_under_writes_is_whole(volumes: Volumes, tmp_path: Path) -> None:
    """A writer that adds a line to each of two files, one after the other, never shows a copy in which they differ by
    more than one; and its file system needs no repair."""
    await volumes.create("a", 64, INODES)
    done = threading.Event()

    def write(root: Path) -> None:
        number = 0
        with (root / "one").open("w") as one, (root / "two").open("w") as two:
            while not done.is_set():
                number += 1
                for file in (one, two):
                    file.write(f"{number}\n")
                    file.flush()
                    os.fsync(file.fileno())

    async with volumes.use("a") as root:
        writer = threading.Thread(target=write, args=(root,))
        writer.start()
        try:
            for number in range(5):
                await anyio.sleep(0.05)
                await volumes.copy("a", f"copy{number}", live=True)
        finally:
            done.set()
            await anyio.to_thread.run_sync(writer.join)
    for number in range(5):
        said = loops.run_tool("e2fsck", "-f", "-n", str(tmp_path / f"files/copy{number}.ext4"))
        assert "FIXED" not in said
        async with volumes.use(f"copy{number}") as root:
            one, two = ((root / name).read_text().count("\n") for name in ("one", "two"))
            assert 0 <= one - two <= 1
            assert one > 0


async def test_it_becomes_larger_and_smaller(volumes: Volumes) -> None:
    await volumes.create("a", SIZE_MIB, INODES)
    async with volumes.use("a") as root:
        (root / "file").write_bytes(b"x" * 5_000_000)
    await volumes.resize("a", 300)
    usage = await volumes.usage("a")
    assert usage.size_mib == 300
    assert usage.inodes > INODES
    async with volumes.use("a") as root:
        assert [path.name for path in root.iterdir()] == ["file"]
        (root / "large").write_bytes(b"y" * 200_000_000)
    with pytest.raises(VolumeTooSmall) as caught:
        await volumes.resize("a", 100)
    assert 200 <= caught.value.details["minimum_mib"] <= 300
    assert caught.value.details["current_mib"] == 300
    async with volumes.use("a") as root:
        (root / "large").unlink()
    await volumes.resize("a", 32)
    assert (await volumes.usage("a")).size_mib == 32
    async with volumes.use("a") as root:
        assert (root / "file").read_bytes() == b"x" * 5_000_000
        assert root.stat().st_mode & 0o7777 == 0o777


async def test_what_is_used_is_not_changed(volumes: Volumes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FREE_TIMEOUT_S", 0.2)
    await volumes.create("a", SIZE_MIB, INODES)
    await volumes.copy("a", "snapshot", live=True)
    async with volumes.use("a") as root:
        for change in (
            lambda: volumes.resize("a", 32),
            lambda: volumes.replace("a", "snapshot"),
            lambda: volumes.remove("a"),
        ):
            with pytest.raises(VolumeInUse, match="in use"):
                await change()
        (root / "there").touch()
    await volumes.resize("a", 32)


async def test_a_change_waits_for_the_last_user(volumes: Volumes) -> None:
    await volumes.create("a", SIZE_MIB, INODES)
    done = []

    async def resize() -> None:
        await volumes.resize("a", 32)
        done.append("resized")

    async with anyio.create_task_group() as group, volumes.use("a"):
        group.start_soon(resize)
        await anyio.sleep(0.1)
        assert done == []
    assert done == ["resized"]


async def test_many_users_at_once(volumes: Volumes) -> None:
    await volumes.create("a", SIZE_MIB, INODES)

    async def use(number: int) -> None:
        for turn in range(5):
            async with volumes.use("a") as root:
                await volumes.run("a", lambda turn=turn: (root / f"{number}-{turn}").touch())  # type: ignore[misc]

    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(use, number)
    async with volumes.use("a") as root:
        assert len(list(root.iterdir())) == 40


async def test_units_see_what_is_attached(volumes: Volumes, tmp_path: Path) -> None:
    for name in ("rw", "ro"):
        await volumes.create(name, SIZE_MIB, INODES)
    directory = volumes.directory("unit")
    with pytest.raises(OSError, match="Read-only"):
        (directory / "evil").touch()
    await volumes.attach("unit", [("rw", False), ("ro", True)])
    await volumes.attach("other", [("ro", False)])
    (directory / "rw/file").write_text("x")
    with pytest.raises(OSError, match="Read-only"):
        (directory / "ro/file").write_text("x")
    (tmp_path / "mounts/shared/other/ro/file").write_text("y")
    assert (directory / "ro/file").read_text() == "y"
    assert len(loop_devices(tmp_path)) == 2
    await volumes.detach("unit")
    assert not directory.exists()
    assert volumes.units() == {"other"}
    await volumes.detach("other")
    await volumes.detach("other")


async def test_a_failed_attachment_leaves_nothing(volumes: Volumes) -> None:
    await volumes.create("a", SIZE_MIB, INODES)
    directory = volumes.directory("unit")
    with pytest.raises(InternalError):
        await volumes.attach("unit", [("a", False), ("missing", False)])
    assert list(directory.iterdir()) == []
    await volumes.remove("a")
    await volumes.detach("unit")


async def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounts.mount("tmpfs", small, "tmpfs", 0, "size=6m")
    volumes = Volumes(small / "files", tmp_path / "mounts")
    try:
        await volumes.start()
        await volumes.create("a", 64, INODES)
        async with volumes.use("a") as root:
            (root / "file").write_bytes(os.urandom(3_500_000))
        for change in (
            lambda: volumes.copy("a", "b", live=True),
            lambda: volumes.resize("a", 128),
            lambda: volumes.replace("a", "a"),
        ):
            with pytest.raises(HostFull, match="MiB free"):
                await change()
        assert volumes.names() == {"a"}
        assert [path.name for path in (small / "files").iterdir()] == ["a.ext4"]
        async with volumes.use("a") as root:
            assert (root / "file").stat().st_size == 3_500_000
    finally:
        await volumes.stop()
        mounts.unmount(small)
    await nothing_is_mounted(tmp_path)


async def test_a_damaged_file_is_refused(volumes: Volumes, tmp_path: Path) -> None:
    (tmp_path / "files/a.ext4").write_bytes(b"x" * 100_000)
    for look in (lambda: volumes.usage("a"), lambda: volumes.use("a").__aenter__(), lambda: volumes.resize("a", 64)):
        with pytest.raises(InternalError):
            await look()


# --- the death of a server ------------------------------------------------------------------------------------------

_SERVER = """
import os, sys, time, json, fcntl, anyio
from pathlib import Path
from skerry.host import mounts
from skerry.host.volumes import Volumes

async def main(directory, what):
    volumes = Volumes(directory / "files", directory / "mounts")
    await volumes.start()
    unit = volumes.directory("unit")
    if (pid := os.fork()) == 0:  # as a sandbox's gofer: a namespace of its own, whose mounts follow the server's
        mounts._libc.unshare(mounts.CLONE_NEWNS)
        mounts.mount("none", Path("/"), "", mounts.MS_REC | 1 << 19)
        while not (unit / "a/begun").exists():
            time.sleep(0.01)
        descriptor = os.open(unit / "a/of the sandbox", os.O_CREAT | os.O_RDWR)
        (unit / "a/ready").touch()
        while not (unit / "a/stop").exists():
            os.pwrite(descriptor, b"alive", 0)
            time.sleep(0.01)
        os._exit(0)
    await volumes.attach("unit", [("a", False)])
    (unit / "a/begun").touch()
    while not (unit / "a/ready").exists():
        time.sleep(0.01)
    if what == "frozen":
        descriptor = os.open(unit / "a", os.O_RDONLY)
        fcntl.ioctl(descriptor, 0xC0045877, 0)
    print(json.dumps({"child": pid}), flush=True)
    time.sleep(600)

mounts.enter_private_namespace()
anyio.run(main, Path(sys.argv[1]), sys.argv[2])
"""


@pytest.mark.parametrize("what", ["mounted", "frozen"])
async def test_after_the_death_of_a_server_there_is_one_file_system_still(tmp_path: Path, what: str) -> None:
    first = Volumes(tmp_path / "files", tmp_path / "mounts")
    await first.start()
    await first.create("a", SIZE_MIB, INODES)
    await first.stop()
    server = subprocess.Popen([sys.executable, "-c", _SERVER, tmp_path, what], stdout=subprocess.PIPE)
    assert server.stdout is not None
    child = json.loads(await anyio.to_thread.run_sync(server.stdout.readline))["child"]
    inside = Path(f"/proc/{child}/root{tmp_path}/mounts/shared/unit/a")
    os.kill(server.pid, signal.SIGKILL)
    server.wait()
    server.stdout.close()
    second = Volumes(tmp_path / "files", tmp_path / "mounts")
    try:
        with anyio.fail_after(20):
            await second.start()
            async with second.use("a") as root:
                assert len(loop_devices(tmp_path)) == 1
                assert root.stat().st_dev == inside.stat().st_dev, "the same file system, not another of the same file"
                (root / "of the server").write_text("seen")
                assert (inside / "of the server").read_text() == "seen"
                assert (root / "of the sandbox").read_bytes() == b"alive"
                await second.copy("a", "copy", live=True)
        assert len(loop_devices(tmp_path)) == 1, "the sandbox has it still"
        (inside / "stop").touch()
        await second.resize("a", 32)
        await second.remove("copy")
        await second.detach("unit")
    finally:
        with anyio.CancelScope(shield=True):
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            await second.stop()
    await nothing_is_mounted(tmp_path)
    said = loops.run_tool("e2fsck", "-f", "-n", str(tmp_path / "files/a.ext4"))
    assert "FIXED" not in said


@pytest.mark.parametrize("step", ["create", "copy", "resize", "replace"])
async def test_a_server_that_dies_in_a_change_leaves_the_old_state(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if killed directly before the rename that makes it so."""
    volumes = Volumes(tmp_path / "files", tmp_path / "mounts")
    await volumes.start()
    await volumes.create("a", SIZE_MIB, INODES)
    await volumes.copy("a", "snapshot", live=True)
    async with volumes.use("a") as root:
        (root / "file").write_text("kept")
    changes: dict[str, Callable[[], object]] = {
        "create": lambda: volumes.create("new", SIZE_MIB, INODES),
        "copy": lambda: volumes.copy("a", "new", live=True),
        "resize": lambda: volumes.resize("a", 32),
        "replace": lambda: volumes.replace("a", "snapshot"),
    }
    with monkeypatch.context() as patch:
        patch.setattr(module, "_sync", _die)
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            await changes[step]()  # type: ignore[misc]
    assert list((tmp_path / "files").glob("*.new")), "something is left to be collected"
    again = Volumes(tmp_path / "files", tmp_path / "mounts2")
    await again.start()
    assert not list((tmp_path / "files").glob("*.new"))
    assert again.names() == {"a", "snapshot"}
    async with again.use("a") as root:
        assert (root / "file").read_text() == "kept"
    assert (await again.usage("a")).size_mib == SIZE_MIB
    await again.stop()
    await volumes.stop()


def _die(_: Path) -> None:
    raise KeyboardInterrupt

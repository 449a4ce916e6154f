"""Root file systems, really mounted. Everything is found again by its path, so other servers do not disturb."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest

from skerry.errors import HostFull, SandboxStartFailed
from skerry.host import mounts
from skerry.host.disks import BYTES_PER_INODE, MINIMUM_INODES, Disks
from skerry.host.sparse import copy_sparse

pytestmark = pytest.mark.anyio
SIZE_MIB = 16


@pytest.fixture
def lower(tmp_path: Path) -> Path:
    tree = tmp_path / "lower"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc" / "passwd").write_text("from the image")
    tree.chmod(0o755)
    return tree


@pytest.fixture
async def disks(tmp_path: Path) -> AsyncIterator[Disks]:
    disks = Disks(tmp_path / "data", tmp_path / "mounts")
    yield disks
    for name in disks.names():
        await disks.remove(name)
    await nothing_is_left(tmp_path)


async def nothing_is_left(below: Path) -> None:
    """Loop devices are given back by the kernel a moment after the unmount."""
    assert str(below / "mounts") not in Path("/proc/self/mountinfo").read_text()
    assert list((below / "mounts").iterdir()) == []
    with anyio.fail_after(5):
        while loop_devices(below):
            await anyio.sleep(0.005)


def loop_devices(below: Path) -> list[str]:
    found = []
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            found.append(file.read_text().strip())
        except OSError:
            continue  # given back just now
    return [path for path in found if path.startswith(str(below))]


def fill(path: Path, piece: int) -> None:
    """Write until the kernel refuses."""
    with path.open("wb", buffering=0) as file:
        for _ in range(2**12):
            file.write(b"x" * piece)


def make_files(directory: Path, count: int) -> None:
    for number in range(count):
        os.close(os.open(directory / str(number), os.O_CREAT | os.O_WRONLY))


async def test_a_disk_shows_the_image_and_keeps_what_is_written(disks: Disks, lower: Path, tmp_path: Path) -> None:
    root = await disks.create("a", layers=[lower], size_mib=SIZE_MIB)
    assert (root / "etc" / "passwd").read_text() == "from the image"
    (root / "etc" / "passwd").write_text("changed")
    (root / "new").write_text("new")
    assert (lower / "etc" / "passwd").read_text() == "from the image"
    assert sorted(path.name for path in lower.iterdir()) == ["etc"]
    assert stat.S_IMODE(root.stat().st_mode) == 0o755
    assert disks.names() == ["a"]
    assert len(loop_devices(tmp_path)) == 1
    assert 0 < disks.used_bytes("a") < SIZE_MIB * 2**20, "sparse"
    await disks.remove("a")
    assert disks.names() == []
    assert disks.used_bytes("a") == 0
    await nothing_is_left(tmp_path)


async def test_removing_is_repeatable(disks: Disks, lower: Path) -> None:
    await disks.remove("never there")
    await disks.create("a", layers=[lower], size_mib=SIZE_MIB)
    await disks.remove("a")
    await disks.remove("a")


async def test_removing_what_is_in_use(disks: Disks, lower: Path, tmp_path: Path) -> None:
    root = await disks.create("a", layers=[lower], size_mib=SIZE_MIB)
    with (root / "open").open("w") as file:
        await disks.remove("a")
        file.write("to nowhere")
    await nothing_is_left(tmp_path)


async def test_bytes_end(disks: Disks, lower: Path) -> None:
    root = await disks.create("a", layers=[lower], size_mib=SIZE_MIB)
    with pytest.raises(OSError, match="No space left"):
        fill(root / "big", 2**20)
    assert (root / "big").stat().st_size < SIZE_MIB * 2**20
    assert disks.used_bytes("a") <= SIZE_MIB * 2**20
    (root / "big").unlink()
    (root / "small").write_text("room again")


async def test_inodes_end(disks: Disks, lower: Path) -> None:
    root = await disks.create("a", layers=[lower], size_mib=SIZE_MIB)
    assert SIZE_MIB * 2**20 // BYTES_PER_INODE < MINIMUM_INODES
    with pytest.raises(OSError, match="No space left"):
        make_files(root, MINIMUM_INODES + 1)
    assert MINIMUM_INODES - 100 < len(os.listdir(root)) < MINIMUM_INODES


async def test_a_disk_from_another(disks: Disks, lower: Path, tmp_path: Path) -> None:
    root = await disks.create("a", layers=[lower], size_mib=SIZE_MIB)
    (root / "kept").write_text("kept")
    (root / "etc" / "passwd").unlink()
    await disks.export("a", tmp_path / "saved.ext4")
    (root / "kept").write_text("later")
    copy = await disks.create("b", layers=[lower], size_mib=SIZE_MIB, source=tmp_path / "saved.ext4")
    assert (copy / "kept").read_text() == "kept"
    assert not (copy / "etc" / "passwd").exists()
    (copy / "of b").touch()
    assert not (root / "of b").exists()


async def test_many_at_once(disks: Disks, lower: Path, tmp_path: Path) -> None:
    async def create(name: str) -> None:
        root = await disks.create(name, layers=[lower], size_mib=SIZE_MIB)
        (root / "mine").write_text(name)

    names = [f"n{number}" for number in range(6)]
    async with anyio.create_task_group() as group:
        for name in names:
            group.start_soon(create, name)
    assert disks.names() == names
    assert [(tmp_path / "mounts" / name / "root" / "mine").read_text() for name in names] == names


async def test_what_the_kernel_refuses_leaves_nothing(disks: Disks, lower: Path, tmp_path: Path) -> None:
    with pytest.raises(SandboxStartFailed):
        await disks.create("a", layers=[tmp_path / "missing"], size_mib=SIZE_MIB)
    (tmp_path / "nonsense").write_bytes(b"x" * 100_000)
    with pytest.raises(SandboxStartFailed):
        await disks.create("b", layers=[lower], size_mib=SIZE_MIB, source=tmp_path / "nonsense")
    with pytest.raises(SandboxStartFailed):
        await disks.create("c", layers=[lower], size_mib=SIZE_MIB, source=tmp_path / "missing")
    assert disks.names() == []
    await nothing_is_left(tmp_path)


async def test_a_taken_name_keeps_its_disk(disks: Disks, lower: Path) -> None:
    root = await disks.create("a", layers=[lower], size_mib=SIZE_MIB)
    (root / "mine").write_text("mine")
    with pytest.raises(SandboxStartFailed):
        await disks.create("a", layers=[lower], size_mib=SIZE_MIB)
    assert (root / "mine").read_text() == "mine"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A data directory with little room."""
    directory = tmp_path / "small"
    directory.mkdir()
    mounts.mount("tmpfs", directory, "tmpfs", 0, "size=2m")
    yield directory
    mounts.unmount(directory)


@pytest.mark.parametrize("formatted", [True, False])
async def test_a_full_data_directory(lower: Path, tmp_path: Path, small: Path, formatted: bool) -> None:
    disks = Disks(small, tmp_path / "mounts")
    if formatted:
        await disks.create("first", layers=[lower], size_mib=SIZE_MIB)
        await disks.remove("first")
        await nothing_is_left(small.parent)
    with pytest.raises(OSError, match="No space left"):
        fill(small / "fill", 4096)
    with pytest.raises(HostFull, match=str(small)):
        await disks.create("a", layers=[lower], size_mib=SIZE_MIB)
    assert disks.names() == []
    await nothing_is_left(tmp_path)
    (small / "fill").unlink()
    await disks.create("a", layers=[lower], size_mib=SIZE_MIB)
    await disks.remove("a")
    await nothing_is_left(tmp_path)


def test_holes_are_not_copied(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as file:
        file.seek(5_000_000)
        file.write(b"middle" * 1000)
        file.truncate(20_000_000)
    copy_sparse(source, target)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_blocks <= source.stat().st_blocks
    with pytest.raises(FileExistsError):
        copy_sparse(source, target)


async def test_a_disk_that_is_mounted_elsewhere_is_adopted_as_the_same_file_system(
    disks: Disks, lower: Path, tmp_path: Path
) -> None:
    """As after a server's death, when a sandbox still has the mount."""
    root = await disks.create("kept", layers=[lower], size_mib=64)
    (root / "written").write_text("not flushed by anybody")
    later = Disks(tmp_path / "data", tmp_path / "later")
    await later.adopt("kept")
    try:
        assert (later.upper("kept") / "written").read_text() == "not flushed by anybody"
        assert later.upper("kept").stat().st_dev == disks.upper("kept").stat().st_dev
        await later.export("kept", tmp_path / "copy.img")
        copied = await disks.create("copy", layers=[lower], size_mib=64, source=tmp_path / "copy.img")
        assert (copied / "written").read_text() == "not flushed by anybody"
    finally:
        mounts.unmount(tmp_path / "later/kept/layer")

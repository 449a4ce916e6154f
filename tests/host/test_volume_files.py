"""Files of volumes through the server, while what is in the volume is hostile."""

from __future__ import annotations

import ctypes
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from skerry.errors import (
    DirectoryNotEmpty,
    FileError,
    FileExists,
    FileMissing,
    InvalidPath,
    IsADirectory,
    NoSpace,
    NotADirectory,
    NotAFile,
)
from skerry.host.beneath import open_beneath
from skerry.host.volume_files import VolumeFiles
from skerry.host.volume_work import OWNER
from skerry.host.volumes import Volumes
from skerry.models import FileType

pytestmark = pytest.mark.anyio


@pytest.fixture
async def volumes(tmp_path: Path) -> AsyncIterator[Volumes]:
    volumes = Volumes(tmp_path / "files", tmp_path / "mounts")
    await volumes.start()
    await volumes.create("v", 16, 8192)
    yield volumes
    await volumes.stop()


@pytest.fixture
def files(volumes: Volumes) -> VolumeFiles:
    return VolumeFiles(volumes)


@pytest.fixture
async def root(volumes: Volumes) -> AsyncIterator[Path]:
    """The volume as a sandbox sees it that has it mounted."""
    async with volumes.use("v") as root:
        yield root


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    directory = tmp_path / "outside"
    directory.mkdir()
    (directory / "secret").write_text("secret")
    return directory


async def content(files: VolumeFiles, path: str, **options: Any) -> bytes:
    async with files.read("v", path, **options) as content:
        return b"".join([chunk async for chunk in content.chunks])


async def test_files_go_in_and_out(files: VolumeFiles) -> None:
    info = await files.write("v", "/a/b/file.txt", b"hello", mode=0o640)
    assert (info.path, info.name, info.size, info.mode, info.uid) == ("/a/b/file.txt", "file.txt", 5, 0o640, OWNER)
    assert await content(files, "a/b//./file.txt") == b"hello"
    assert await content(files, "/a/b/file.txt", offset=1, length=3) == b"ell"
    assert await content(files, "/a/b/file.txt", offset=9) == b""
    again = await files.write("v", "/a/b/file.txt", b"other")
    assert again.mode == 0o640, "kept"
    items, cut = await files.list("v", "/", depth=3, limit=100)
    assert [item.path for item in items] == ["/a", "/a/b", "/a/b/file.txt"]
    assert not cut
    assert (await files.list("v", "/", depth=3, limit=2))[1]
    moved = await files.rename("v", "/a/b/file.txt", "/a/c")
    assert moved.path == "/a/c"
    changed = await files.set_attributes("v", "/a/c", mode=0o600, uid=7, gid=8)
    assert (changed.mode, changed.owner, changed.gid) == (0o600, "7", 8)
    assert (await files.stat("v", "/")).type is FileType.DIRECTORY
    with pytest.raises(DirectoryNotEmpty):
        await files.remove("v", "/a")
    await files.remove("v", "/a", recursive=True)
    with pytest.raises(FileMissing):
        await files.stat("v", "/a")


async def test_large_content_in_pieces(files: VolumeFiles) -> None:
    data = os.urandom(3_000_001)

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 70_000):
            yield data[start : start + 70_000]

    await files.write("v", "large", pieces())
    assert await content(files, "large") == data
    assert await content(files, "large", offset=1_000_000, length=1_500_000) == data[1_000_000:2_500_000]


async def test_directories(files: VolumeFiles) -> None:
    made = await files.make_directory("v", "/x/y", mode=0o700)
    assert (made.mode, made.uid) == (0o700, OWNER)
    await files.make_directory("v", "/x/y")
    with pytest.raises(FileExists):
        await files.make_directory("v", "/x/y", parents=False)
    with pytest.raises(FileMissing):
        await files.make_directory("v", "/none/y", parents=False)
    with pytest.raises(FileMissing):
        await files.write("v", "/none/file", b"", parents=False)
    await files.write("v", "/file", b"")
    with pytest.raises(FileExists):
        await files.make_directory("v", "/file")
    with pytest.raises(NotADirectory):
        await files.write("v", "/file/below", b"")
    with pytest.raises(NotADirectory):
        await files.list("v", "/file", limit=1)
    for path in ("/x", "/"):
        with pytest.raises(IsADirectory):
            await files.write("v", path, b"")
        with pytest.raises(IsADirectory):
            await content(files, path)
    with pytest.raises(FileExists):
        await files.write("v", "/file", b"", replace=False)
    for path in ("/", "", "."):
        with pytest.raises(InvalidPath):
            await files.remove("v", path, recursive=True)
    with pytest.raises(InvalidPath):
        await files.rename("v", "/x", "/x/y/z")


@pytest.mark.parametrize("path", ["../secret", "/../secret", "a/../../secret", "..", "a/..", "a\0b"])
async def test_paths_that_lead_up_are_refused(files: VolumeFiles, path: str) -> None:
    for act in calls(files, path):
        with pytest.raises(InvalidPath):
            await act()


def calls(files: VolumeFiles, path: str) -> list[Callable[[], Any]]:
    """Every call with that path."""
    return [
        lambda: content(files, path),
        lambda: files.write("v", path, b"evil"),
        lambda: files.write("v", f"{path}/below", b"evil"),
        lambda: files.stat("v", f"{path}/secret"),
        lambda: files.list("v", path, limit=10),
        lambda: files.make_directory("v", f"{path}/made"),
        lambda: files.make_directory("v", f"{path}/made", parents=False),
        lambda: files.rename("v", f"{path}/secret", "/got"),
        lambda: files.rename("v", "/file", f"{path}/put"),
        lambda: files.remove("v", f"{path}/secret"),
        lambda: files.remove("v", f"{path}/secret", recursive=True),
        lambda: files.set_attributes("v", path, mode=0o777),
    ]


@pytest.mark.parametrize("target", ["{outside}", "../../outside", "/", "/proc/self/root", "inner", "loop"])
async def test_no_link_is_followed(files: VolumeFiles, root: Path, outside: Path, target: str) -> None:
    (root / "inner").mkdir()
    (root / "inner/secret").write_text("inner")
    (root / "file").write_text("file")
    (root / "loop").symlink_to(target.format(outside=outside))
    for act in calls(files, "loop"):
        with pytest.raises((InvalidPath, NotADirectory)):
            await act()
    info = await files.stat("v", "loop")
    assert info.type is FileType.SYMLINK
    assert info.target == target.format(outside=outside)
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_text() == "secret"
    assert (root / "file").read_text() == "file"
    await files.rename("v", "loop", "moved")
    await files.remove("v", "moved", recursive=True)
    assert (outside / "secret").exists()


async def test_a_tree_with_links_out_is_removed_without_what_they_lead_to(
    files: VolumeFiles, root: Path, outside: Path
) -> None:
    (root / "tree/deep").mkdir(parents=True)
    (root / "tree/out").symlink_to(outside)
    (root / "tree/deep/out").symlink_to(outside / "secret")
    await files.remove("v", "tree", recursive=True)
    assert (outside / "secret").read_text() == "secret"


async def test_what_is_no_regular_file_is_refused(files: VolumeFiles, root: Path) -> None:
    os.mkfifo(root / "fifo")
    os.mknod(root / "zero", 0o666 | 0o020000, os.makedev(1, 5))
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(root)  # the path would be too long
        listener.bind("socket")
        os.chdir(here)
        with anyio.fail_after(5):
            for name in ("fifo", "zero", "socket"):
                assert (await files.stat("v", name)).type is FileType.OTHER
                for act in (
                    lambda name=name: content(files, name),  # type: ignore[misc]
                    lambda name=name: files.write("v", name, b"x"),  # type: ignore[misc]
                ):
                    with pytest.raises(NotAFile):
                        await act()
                await files.remove("v", name)


async def test_hard_links_keep_their_content(files: VolumeFiles, root: Path) -> None:
    (root / "one").write_text("old")
    os.link(root / "one", root / "two")
    await files.write("v", "one", b"new")
    assert (root / "two").read_text() == "old"
    assert await content(files, "one") == b"new"


async def test_a_full_volume_keeps_the_old_file(files: VolumeFiles, root: Path) -> None:
    await files.write("v", "file", b"old")
    with pytest.raises(NoSpace):
        await files.write("v", "file", b"x" * (20 << 20))
    assert await content(files, "file") == b"old"
    assert [path.name for path in root.iterdir()] == ["file"]
    await files.write("v", "file", b"there is room again")


async def test_a_write_that_breaks_off_changes_nothing(files: VolumeFiles, root: Path) -> None:
    await files.write("v", "file", b"old")

    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * (2 << 20)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await files.write("v", "file", broken())
    assert await content(files, "file") == b"old"
    assert [path.name for path in root.iterdir()] == ["file"]


async def test_names_of_any_kind(files: VolumeFiles, root: Path) -> None:
    for path in ("n" * 256, "n/" * 2100, "\udcff"):
        with pytest.raises((InvalidPath, FileError)):
            await files.write("v", path, b"", parents=False)
    await files.write("v", "n" * 255, b"x")
    await files.write("v", "ünï ✓\n", b"x")
    (Path(os.fsdecode(os.fsencode(root) + b"/\xff\xfe"))).write_text("x")
    names = [item.name for item in (await files.list("v", "", limit=10))[0]]
    assert sorted(names) == sorted(["n" * 255, "ünï ✓\n", "\ufffd\ufffd"])
    os.utime(root / ("n" * 255), ns=(2**33 * 10**9, 2**33 * 10**9))
    assert (await files.stat("v", "n" * 255)).modified_at


async def test_a_tree_of_any_depth_is_removed(files: VolumeFiles, root: Path) -> None:
    current = os.open(root, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("deep", dir_fd=current)
        below = os.open("deep", os.O_RDONLY, dir_fd=current)
        os.close(current)
        current = below
    os.close(os.open("file", os.O_CREAT, dir_fd=current))
    os.close(current)
    opened = len(os.listdir("/proc/self/fd"))
    items, _ = await files.list("v", "/", depth=16, limit=1000)
    assert len(items) == 16
    await files.remove("v", "deep", recursive=True)
    assert list(root.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == opened


def exchange(one: Path, other: Path) -> None:
    """Swap two names, in one go."""
    assert ctypes.CDLL(None).renameat2(-100, os.fsencode(one), -100, os.fsencode(other), 2) == 0


async def test_swaps_under_the_calls_lead_nowhere(files: VolumeFiles, root: Path, outside: Path) -> None:
    """A sandbox that swaps a directory for a link to the outside, all the time, while files are written below."""
    done = threading.Event()
    (root / "inner").mkdir()
    (root / "link").symlink_to(outside)

    def swap() -> None:
        while not done.is_set():
            exchange(root / "inner", root / "link")

    swapper = threading.Thread(target=swap)
    swapper.start()
    outcomes = set()
    try:
        for _ in range(100):
            for act in (
                lambda: files.write("v", "inner/secret", b"evil"),
                lambda: content(files, "inner/secret"),
                lambda: files.make_directory("v", "inner/made"),
                lambda: files.set_attributes("v", "inner", mode=0o700),
                lambda: files.list("v", "", depth=2, limit=2000),
            ):
                try:
                    found: Any = await act()
                    outcomes.add("done")
                    assert found != b"secret"
                except (InvalidPath, FileMissing, NotADirectory, FileExists) as error:
                    outcomes.add(error.code)
    finally:
        done.set()
        await anyio.to_thread.run_sync(swapper.join)
    assert "done" in outcomes
    assert "file.invalid_path" in outcomes, "a link was met"
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_text() == "secret"
    assert outside.stat().st_mode & 0o777 != 0o700


def test_beneath_means_beneath(tmp_path: Path) -> None:
    (tmp_path / "in/below").mkdir(parents=True)
    (tmp_path / "in/link").symlink_to("below")
    top = os.open(tmp_path / "in", os.O_RDONLY)
    try:
        os.close(open_beneath(top, "below", os.O_RDONLY))
        for path in ("..", "/etc", "link", "link/x", "below/../../x"):
            with pytest.raises(OSError) as caught:  # noqa: PT011 - its number is looked at
                open_beneath(top, path, os.O_RDONLY)
            assert caught.value.errno in (18, 40), path
    finally:
        os.close(top)
    proc = os.open("/proc", os.O_RDONLY)
    try:
        with suppress(FileNotFoundError), pytest.raises(OSError, match="levels of symbolic links"):
            open_beneath(proc, "self/root", os.O_RDONLY)
    finally:
        os.close(proc)

"""Copying a layer that a sandbox has written."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from skerry.host import manifest
from skerry.host.trees import OPAQUE, Allowance, UnsafeTree, copy_layer


def fill(root: Path) -> None:
    (root / "etc").mkdir(parents=True)
    (root / "etc/name").write_text("content")
    os.link(root / "etc/name", root / "etc/other")
    os.chown(root / "etc/name", 1000, 1000)
    (root / "etc/name").chmod(0o4755)
    os.utime(root / "etc/name", (5, 5))
    (root / "etc/link").symlink_to("/etc/shadow")
    os.mknod(root / "etc/gone", 0o600 | stat.S_IFCHR, os.makedev(0, 0))
    os.setxattr(root / "etc", OPAQUE, b"y")
    (root / "sparse").touch()
    os.truncate(root / "sparse", 1 << 24)


def test_a_copy_is_what_its_source_is(tmp_path: Path) -> None:
    fill(tmp_path / "a")
    copy_layer(tmp_path / "a", tmp_path / "b", Allowance())
    assert manifest.digest(tmp_path / "a") == manifest.digest(tmp_path / "b")
    copied = (tmp_path / "b/etc/name").stat()
    assert (copied.st_mode & 0o7777, copied.st_uid, copied.st_mtime, copied.st_nlink) == (0o4755, 1000, 5, 2)
    assert os.readlink(tmp_path / "b/etc/link") == "/etc/shadow"
    assert os.getxattr(tmp_path / "b/etc", OPAQUE) == b"y"
    assert (tmp_path / "b/sparse").stat().st_blocks == 0


def test_what_is_left_out_and_what_nobody_needs(tmp_path: Path) -> None:
    fill(tmp_path / "a")
    os.mkfifo(tmp_path / "a/fifo")
    copy_layer(tmp_path / "a", tmp_path / "b", Allowance(), frozenset({"etc/name"}))
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["etc", "sparse"]
    assert not (tmp_path / "b/etc/name").exists()


def test_devices_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    os.mknod(tmp_path / "a/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    with pytest.raises(UnsafeTree, match="device"):
        copy_layer(tmp_path / "a", tmp_path / "b", Allowance())


@pytest.mark.parametrize("allowance", [Allowance(bytes=1 << 20), Allowance(entries=3)])
def test_more_than_is_allowed_is_refused(tmp_path: Path, allowance: Allowance) -> None:
    fill(tmp_path / "a")
    with pytest.raises(UnsafeTree, match="more files or bytes"):
        copy_layer(tmp_path / "a", tmp_path / "b", allowance)


def test_a_deep_tree_is_refused(tmp_path: Path) -> None:
    deep = tmp_path / "a"
    for _ in range(210):
        deep = deep / "d"
    deep.mkdir(parents=True)
    with pytest.raises(UnsafeTree, match="deep"):
        copy_layer(tmp_path / "a", tmp_path / "b", Allowance())

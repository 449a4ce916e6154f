from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from skerry.host import manifest


def fill(root: Path) -> Path:
    (root / "etc").mkdir(parents=True)
    (root / "etc/name").write_text("content")
    (root / "etc/link").symlink_to("/nowhere/at/all")
    os.mkfifo(root / "fifo")
    return root


def test_equal_trees_have_one_digest_whatever_their_times(tmp_path: Path) -> None:
    first, second = fill(tmp_path / "a"), fill(tmp_path / "b")
    os.utime(second / "etc/name", (1, 1))
    assert manifest.digest(first) == manifest.digest(second)
    assert manifest.digest(first).startswith("sha256:")


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "etc/name").write_text("Content"),
        lambda root: (root / "etc/name").chmod(0o600),
        lambda root: os.chown(root / "etc/name", 1000, 0),
        lambda root: (root / "etc/name").rename(root / "etc/other"),
        lambda root: ((root / "etc/link").unlink(), (root / "etc/link").symlink_to("/else")),
        lambda root: (root / "new").mkdir(),
        lambda root: (root / "fifo").unlink(),
    ],
)
def test_every_change_shows(tmp_path: Path, change: Callable[[Path], object]) -> None:
    root = fill(tmp_path / "tree")
    before = manifest.digest(root)
    change(root)
    assert manifest.digest(root) != before


def test_names_that_are_not_utf8_and_names_that_look_like_more(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / os.fsdecode(b"\xff\nx")).write_text("")
    (tmp_path / "b" / os.fsdecode(b"\xff")).write_text("")
    assert manifest.digest(tmp_path / "a") != manifest.digest(tmp_path / "b")


def test_size_counts_a_file_with_two_names_once(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"x" * 65_536)
    once = manifest.size_bytes(tmp_path)
    os.link(tmp_path / "one", tmp_path / "two")
    assert manifest.size_bytes(tmp_path) == once >= 65_536

"""The files written into a fresh root file system, and that no link leads out of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from skerry.node.prepare import write_identity


def test_files_and_directories(tmp_path: Path) -> None:
    write_identity(tmp_path, hostname="box", resolv_conf="nameserver 10.0.0.1\n")
    assert (tmp_path / "etc/hostname").read_text() == "box\n"
    assert "127.0.1.1 box" in (tmp_path / "etc/hosts").read_text()
    assert (tmp_path / "etc/resolv.conf").read_text() == "nameserver 10.0.0.1\n"
    assert (tmp_path / "tmp").stat().st_mode & 0o7777 == 0o1777
    assert list((tmp_path / "tmp").iterdir()), "an empty /tmp would be shadowed"
    machine = (tmp_path / "etc/machine-id").read_text()
    assert re.fullmatch(r"[0-9a-f]{32}\n", machine)
    write_identity(tmp_path, hostname="again", resolv_conf="")
    assert (tmp_path / "etc/hostname").read_text() == "again\n"
    assert (tmp_path / "etc/machine-id").read_text() != machine


def test_a_link_in_the_image_is_replaced_not_followed(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "etc").mkdir(parents=True)
    outside.write_text("untouched")
    (root / "etc/resolv.conf").symlink_to(outside)
    write_identity(root, hostname="box", resolv_conf="nameserver 10.0.0.1\n")
    assert outside.read_text() == "untouched"
    assert not (root / "etc/resolv.conf").is_symlink()


@pytest.mark.parametrize("name", ["etc", "tmp"])
def test_a_directory_that_is_a_link_is_refused(tmp_path: Path, name: str) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / name).symlink_to(outside)
    with pytest.raises(OSError, match=r"directory|links"):
        write_identity(root, hostname="box", resolv_conf="")
    assert list(outside.iterdir()) == []

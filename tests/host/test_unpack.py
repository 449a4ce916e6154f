"""Layers of images from archives, good and hostile."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from skerry.host.trees import OPAQUE, Allowance, UnsafeTree
from skerry.host.unpack import unpack

Entry = tuple[str, bytes, str, bytes]


def archive(path: Path, *entries: Entry) -> Path:
    """Entries are name, type, link target, content."""
    with tarfile.open(path, "w") as tar:
        for name, kind, link, content in entries:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, link, len(content)
            member.mode, member.uid, member.gid, member.mtime = (0o755 if kind == tarfile.DIRTYPE else 0o4640), 7, 8, 9
            tar.addfile(member, io.BytesIO(content))
    return path


def file(name: str, content: bytes = b"x") -> Entry:
    return name, tarfile.REGTYPE, "", content


def test_a_layer_is_unpacked(tmp_path: Path) -> None:
    made = archive(
        tmp_path / "layer.tar",
        ("./", tarfile.DIRTYPE, "", b""), ("./etc/", tarfile.DIRTYPE, "", b""), file("./etc/name", b"content"),
        ("etc/same", tarfile.LNKTYPE, "etc/name", b""), ("etc/link", tarfile.SYMTYPE, "/etc/shadow", b""),
        file("etc/.wh.gone", b""), file("opt/.wh..wh..opq", b""), file("etc/name2", b"old"), file("etc/name2", b"new"),
    )  # fmt: skip
    unpack(made, tmp_path / "tree", Allowance())
    etc = tmp_path / "tree/etc"
    status = (etc / "name").stat()
    assert (etc / "name").read_bytes() == b"content"
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid, status.st_mtime) == (0o4640, 7, 8, 9)
    assert (etc / "same").stat().st_ino == status.st_ino
    assert os.readlink(etc / "link") == "/etc/shadow"
    assert (etc / "name2").read_bytes() == b"new"
    assert stat.S_ISCHR((etc / "gone").lstat().st_mode)
    assert (etc / "gone").lstat().st_rdev == 0
    assert os.getxattr(tmp_path / "tree/opt", OPAQUE) == b"y"
    assert etc.stat().st_mtime == 9


@pytest.mark.parametrize(
    "entries",
    [
        [file("/etc/passwd")],
        [file("../escaped")],
        [file("a/../../escaped")],
        [("dev/null", tarfile.CHRTYPE, "", b"")],
        [("a", tarfile.BLKTYPE, "", b"")],
        [("out", tarfile.SYMTYPE, "/tmp", b""), file("out/escaped")],
        [("out", tarfile.SYMTYPE, "..", b""), ("out/d/", tarfile.DIRTYPE, "", b"")],
        [("same", tarfile.LNKTYPE, "../../etc/passwd", b"")],
        [("same", tarfile.LNKTYPE, "/etc/passwd", b"")],
        [("link", tarfile.SYMTYPE, "/etc/passwd", b""), ("same", tarfile.LNKTYPE, "link", b"")],
        [file("a/.wh...", b"")],
        [file("a/.wh.", b"")],
        [file("a/name"), file("a/.wh.name", b"")],
        [file("name"), file("name/below")],
        [("name/", tarfile.DIRTYPE, "", b""), file("name")],
        [("/".join("d" * 300), tarfile.DIRTYPE, "", b"")],
        [file(".wh.name/below")],
        [file("file"), ("same", tarfile.LNKTYPE, ".wh.name/file", b"")],
    ],
    ids=str,
)
def test_tricks_are_refused(tmp_path: Path, entries: list[Entry]) -> None:
    made = archive(tmp_path / "layer.tar", *entries)
    (tmp_path / "inner").mkdir()
    with pytest.raises(UnsafeTree):
        unpack(made, tmp_path / "inner/tree", Allowance())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inner", "layer.tar"]
    assert [path.name for path in (tmp_path / "inner").iterdir()] == ["tree"]


def test_bombs_are_refused(tmp_path: Path) -> None:
    made = archive(tmp_path / "layer.tar", *(file(f"f{number}", b"x" * 100) for number in range(20)))
    for allowance in (Allowance(bytes=1000), Allowance(entries=10)):
        with pytest.raises(UnsafeTree, match="more files or bytes"):
            unpack(made, tmp_path / f"tree-{allowance.bytes}", allowance)


def test_directories_that_only_paths_name_are_counted(tmp_path: Path) -> None:
    """A few bytes an entry, and nearly two hundred directories each."""
    deep = [file(f"{number}/" + "d/" * 190 + "f", b"") for number in range(200)]
    made = archive(tmp_path / "layer.tar", *deep)
    for allowance in (Allowance(bytes=1 << 20), Allowance(entries=201)):
        target = tmp_path / f"tree-{allowance.entries}"
        with pytest.raises(UnsafeTree, match="more files or bytes"):
            unpack(made, target, allowance)
        assert sum(len(names) for _, names, _ in os.walk(target)) < 400


def test_small_files_cost_what_they_take_on_disk(tmp_path: Path) -> None:
    made = archive(tmp_path / "layer.tar", *(file(f"f{number}") for number in range(1000)))
    with pytest.raises(UnsafeTree, match="more files or bytes"):
        unpack(made, tmp_path / "tree", Allowance(bytes=1 << 20))


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE])
@pytest.mark.parametrize("moment", ["inf", "-inf", "nan", "1e300", "99999999999999999999"])
def test_a_time_that_is_none_is_refused(tmp_path: Path, kind: bytes, moment: str) -> None:
    with tarfile.open(tmp_path / "layer.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("name")
        member.type, member.pax_headers = kind, {"mtime": moment}
        tar.addfile(member)
    with pytest.raises(UnsafeTree, match="'name': its time"):
        unpack(tmp_path / "layer.tar", tmp_path / "tree", Allowance())


def test_notes_of_a_file_system_are_left_out(tmp_path: Path) -> None:
    made = archive(tmp_path / "layer.tar", file(".wh..wh.plnk/1.2"), file(".wh..wh.aufs", b""), file("a"))
    unpack(made, tmp_path / "tree", Allowance())
    assert os.listdir(tmp_path / "tree") == ["a"]


def test_as_a_program_of_its_own(tmp_path: Path) -> None:
    good, bad = archive(tmp_path / "good.tar", file("a")), tmp_path / "bad.tar"
    bad.write_bytes(b"no archive at all" * 100)

    def run(source: Path, target: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "skerry.host.unpack", source, tmp_path / target, "10000", "10"]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert (run(good, "one").returncode, run(bad, "two").returncode) == (0, 1)
    assert (tmp_path / "one/a").read_text() == "x"
    assert run(bad, "three").stdout.strip() == "invalid header"

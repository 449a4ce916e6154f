"""Which local files are copied, and under which names."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from skerry.errors import InvalidRequest
from skerry.sdk.archives import Archive, Ignore, collect, texts


@pytest.fixture
def context(tmp_path: Path) -> Path:
    root = tmp_path / "context"
    for name in ("app.py", "README.md", "src/main.py", "src/deep/data.json", "src/notes.md", "node_modules/x/y.js"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "empty").mkdir()
    (root / "src/link").symlink_to("main.py")
    (root / "[x].txt").write_text("odd")
    (root / "out").symlink_to("/etc/passwd")
    os.mkfifo(root / "src/fifo")
    (tmp_path / "secret").write_text("s")
    return root


def names(archive: Archive) -> list[str]:
    return [name for name, _ in archive.entries]


@pytest.mark.parametrize(
    ("sources", "target", "expected", "source", "placed"),
    [
        (["app.py"], "/srv/app.py", ["app.py"], "app.py", "/srv/app.py"),
        (["app.py"], "/srv/", ["app.py"], ".", "/srv/"),
        (["src"], "/srv", ["./", "deep/", "deep/data.json", "link", "main.py", "notes.md"], ".", "/srv/"),
        (["src/"], "/srv/", ["./", "deep/", "deep/data.json", "link", "main.py", "notes.md"], ".", "/srv/"),
        (["*.py", "src/*.py"], "x/", ["app.py", "main.py"], ".", "x/"),
        (["src/m*.py"], "x", ["main.py"], "main.py", "x"),
        (["empty"], "/e", ["./"], ".", "/e/"),
        (["../../context/app.py"], "/a", None, "", ""),
        (["/app.py"], "/a", ["app.py"], "app.py", "/a"),
        (["src/link"], "/a", ["link"], "link", "/a"),
    ],
)
def test_sources(
    context: Path, sources: list[str], target: str, expected: list[str] | None, source: str, placed: str
) -> None:
    if expected is None:
        with pytest.raises(InvalidRequest):
            collect(context, sources, target)
        return
    copy = collect(context, sources, target)
    assert (names(copy.archive), copy.source, copy.target) == (expected, source, placed)


def test_a_name_that_looks_like_a_pattern(context: Path) -> None:
    copy = collect(context, ["[[]x].txt"], "/srv/name")
    assert (names(copy.archive), copy.source, copy.target) == (["name"], ".", "/srv/")


@pytest.mark.parametrize(
    ("sources", "target", "message"),
    [
        (["nosuch"], "/a", "nothing of that name"), (["*.nosuch"], "/a", "nothing of that name"),
        (["out"], "/a", "leads out of"), (["../secret"], "/a", "nothing of that name"),
        (["app.py", "README.md"], "/a", "must be a directory"),
    ],
)  # fmt: skip
def test_what_cannot_be_copied(context: Path, sources: list[str], target: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        collect(context, sources, target)


@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        ("", {"app.py", "README.md", "src/notes.md", "node_modules/x/y.js"}),
        ("# comment\n\nnode_modules\n*.md", {"app.py", "src/notes.md"}),
        ("**/*.md\n/node_modules/", {"app.py"}),
        ("*\n!app.py\n!src\nsrc/*.md", {"app.py"}),
        ("node_modules\n!node_modules/x/y.js\n*.md\n!README.md", {"app.py", "README.md", "src/notes.md", "node_modules/x/y.js"}),
    ],
)  # fmt: skip
def test_the_rules_of_a_dockerignore(context: Path, rules: str, kept: set[str]) -> None:
    (context / ".dockerignore").write_text(rules)
    (context / "out").unlink()
    found = names(collect(context, ["."], "/x", Ignore.read(context)).archive)
    looked_at = {"app.py", "README.md", "src/notes.md", "node_modules/x/y.js"}
    assert looked_at & set(found) == kept
    assert not [name for name in found if name.endswith("fifo")]


def test_an_ignored_file_is_nothing_to_copy(context: Path) -> None:
    with pytest.raises(InvalidRequest, match="not ignored"):
        collect(context, ["app.py"], "/a", Ignore.of(["*.py"]))


def test_the_digest_is_of_names_modes_and_contents(context: Path) -> None:
    digest = collect(context, ["src"], "/a").archive.digest
    os.utime(context / "src/main.py", (1, 1))
    assert collect(context, ["src"], "/elsewhere").archive.digest == digest
    for change in (
        lambda: (context / "src/main.py").write_text("changed"),
        lambda: (context / "src/main.py").chmod(0o755),
        lambda: (context / "src/new").write_text(""),
        lambda: (context / "src/main.py").rename(context / "src/other.py"),
    ):
        change()
        changed = collect(context, ["src"], "/a").archive.digest
        assert changed != digest
        digest = changed


def test_the_tar_holds_what_was_collected(context: Path) -> None:
    made = io.BytesIO()
    collect(context, ["src"], "/a").archive.write(made)
    made.seek(0)
    with tarfile.open(fileobj=made) as tar:
        members = {member.name: member for member in tar}
        main = tar.extractfile("main.py")
        assert main is not None
        assert main.read() == b"src/main.py"
    assert members["link"].issym()
    assert members["deep"].isdir()
    assert {(member.uid, member.gid, member.uname) for member in members.values()} == {(0, 0, "")}


def test_a_file_of_several_names_is_written_under_each(context: Path) -> None:
    os.link(context / "src/main.py", context / "src/twin.py")
    made = io.BytesIO()
    collect(context, ["src"], "/a").archive.write(made)
    made.seek(0)
    with tarfile.open(fileobj=made) as tar:
        assert {member.name: member.isreg() for member in tar}["twin.py"]


def test_texts_are_files_too() -> None:
    archive = texts([("conf", "a = 1\n")])
    made = io.BytesIO()
    archive.write(made)
    made.seek(0)
    with tarfile.open(fileobj=made) as tar:
        conf = tar.extractfile("conf")
        assert conf is not None
        assert conf.read() == b"a = 1\n"
    assert archive.digest != texts([("conf", "a = 2\n")]).digest

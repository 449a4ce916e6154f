"""The directory every sandbox sees at /opt/skerry."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from skerry.errors import IsolationUnavailable
from skerry.host import runtime


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation with an agent and two files of an interpreter."""
    package = tmp_path / "src" / "skerry"
    (package / "interpreter" / "part").mkdir(parents=True)
    (package / "interpreter" / "main.py").write_text("main")
    (package / "interpreter" / "part" / "other.py").write_text("other")
    (package / "interpreter" / "notes.txt").write_text("not for sandboxes")
    (package / "_bin").mkdir()
    (package / "_bin" / "agent-amd64").write_bytes(b"agent")
    monkeypatch.setattr(runtime, "_PACKAGE", package)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    return package


def test_everything_is_there_and_readable_by_all(package: Path, tmp_path: Path) -> None:
    made = runtime.prepare_runtime(tmp_path / "data")
    files = {str(path.relative_to(made)): path for path in made.rglob("*") if path.is_file()}
    assert set(files) == {"agent", "interpreter/main.py", "interpreter/part/other.py"}
    assert files["agent"].read_bytes() == b"agent"
    assert {name: stat.S_IMODE(path.stat().st_mode) for name, path in files.items()} == {
        "agent": 0o755, "interpreter/main.py": 0o644, "interpreter/part/other.py": 0o644,
    }  # fmt: skip
    for directory in (made, made / "interpreter", made / "interpreter" / "part"):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o755
    assert list(made.parent.iterdir()) == [made], "nothing half made beside it"


def test_the_same_content_is_made_once(package: Path, tmp_path: Path) -> None:
    first = runtime.prepare_runtime(tmp_path / "data")
    before = (first / "agent").stat().st_ino
    assert runtime.prepare_runtime(tmp_path / "data") == first
    assert (first / "agent").stat().st_ino == before


@pytest.mark.parametrize("changed", ["interpreter/main.py", "_bin/agent-amd64"])
def test_other_content_is_another_directory(package: Path, tmp_path: Path, changed: str) -> None:
    first = runtime.prepare_runtime(tmp_path / "data")
    (package / changed).write_text("newer")
    second = runtime.prepare_runtime(tmp_path / "data")
    assert second != first
    assert (first / "agent").read_bytes() == b"agent", "older sandboxes keep theirs"


def test_the_agent_is_the_machines(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    (package / "_bin" / "agent-arm64").write_bytes(b"other")
    assert runtime.agent_binary() == package / "_bin" / "agent-arm64"


def test_no_agent_is_told(package: Path, tmp_path: Path) -> None:
    (package / "_bin" / "agent-amd64").unlink()
    with pytest.raises(IsolationUnavailable, match="make agent"):
        runtime.prepare_runtime(tmp_path / "data")


def test_two_servers_at_once(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = runtime._copy
    raced: list[Path] = []

    def race(files: dict[str, Path], target: Path) -> None:
        if not raced:
            raced.append(target)
            copy(files, target)  # the other one is first
        copy(files, target)

    monkeypatch.setattr(runtime, "_copy", race)
    made = runtime.prepare_runtime(tmp_path / "data")
    assert (made / "agent").read_bytes() == b"agent"
    assert list(made.parent.iterdir()) == [made]

"""What is decided before anything is sent."""

from pathlib import Path

import pytest

from skerry.errors import HostFull, Unauthenticated
from skerry.sdk import wire


def test_where_the_server_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(wire, "KEY_FILE", tmp_path / "key")
    monkeypatch.delenv("SKERRY_API_KEY", raising=False)
    monkeypatch.delenv("SKERRY_API_URL", raising=False)
    with pytest.raises(Unauthenticated, match="SKERRY_API_KEY"):
        wire.resolve(None, None)
    (tmp_path / "key").write_text("sk_file\n")
    assert wire.resolve(None, None) == (wire.DEFAULT_URL, "sk_file")
    monkeypatch.setenv("SKERRY_API_URL", "http://elsewhere/")
    monkeypatch.setenv("SKERRY_API_KEY", "sk_env")
    assert wire.resolve(None, None) == ("http://elsewhere", "sk_env")
    assert wire.resolve("http://given", "sk_given") == ("http://given", "sk_given")


def test_paths_are_quoted() -> None:
    assert wire.path_of("sandboxes", "a/b?c", "files", path="/x y", eof=True, user=None, state=["a", "b"]) == (
        "/v1/sandboxes/a%2Fb%3Fc/files?path=%2Fx+y&eof=true&state=a&state=b"
    )


def test_lines_survive_any_cut() -> None:
    stream = b'{"type":"heartbeat"}\n{"type":"a","n":1}\n{"type":"b"}\n'
    for size in range(1, len(stream)):
        lines = wire.Lines()
        events = [event for start in range(0, len(stream), size) for event in lines.feed(stream[start : start + size])]
        assert [event["type"] for event in events] == ["a", "b"]


def test_a_failure_line_is_raised() -> None:
    with pytest.raises(HostFull):
        list(wire.Lines().feed(b'{"type":"failure","error":{"code":"host.full","message":"m"}}\n'))

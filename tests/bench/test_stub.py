"""The answers are such as the native SDK understands; E2B's client is tried by the suite itself."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench.clients import child
from bench.e2b_client import FILE, _stub
from bench.stub import KEY, SIZE


@pytest.fixture
def native() -> Iterator[child.Child]:
    with _stub() as url, child.started([sys.executable, "-m", "bench.clients.as_native"], _where(url)) as client:
        client.call("use", sandbox="any")
        yield client


def _where(url: str) -> dict[str, str]:
    return {"SKERRY_API_URL": url, "SKERRY_API_KEY": KEY}


def test_every_call_is_answered(native: child.Child, tmp_path: Path) -> None:
    payload = tmp_path / "payload"
    payload.write_bytes(bytes(1000))
    for action in ("start", "run_code", "command"):
        assert native.call(action) > 0
    for action in ("write", "write_stream"):
        assert native.call(action, path=FILE, source=str(payload)) > 0
    for action in ("read", "read_stream"):
        assert native.call(action, path=FILE, size=SIZE) > 0
    with pytest.raises(child.ChildFailed, match="expected 1, and it is"):
        native.call("read", path=FILE, size=1)

"""After many sandboxes every count is what it was."""

import time
from pathlib import Path

import pytest

from .conftest import Server, eventually
from .counts import counts


@pytest.mark.parametrize("cycles", [20, pytest.param(500, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_create_and_destroy_leaves_nothing(tmp_path: Path, cycles: int) -> None:
    server = Server(tmp_path / "data", settings={"SKERRY_SUBNET": "10.217.0.0/16", "SKERRY_POOL_MAX": "2"})
    try:
        with server.sandbox() as first:
            first.run_code("1")
        eventually(lambda: _steady(server), 60)
        before = _state(server)
        for _ in range(cycles):
            with server.sandbox() as sandbox:
                assert sandbox.run_code("6 * 7").text == "42"
        eventually(lambda: _steady(server), 60)
        assert _state(server) == before
        assert len(list(Path(f"/proc/{server.pid}/task").iterdir())) < 64, "workers come and go, up to a limit"
    finally:
        server.stop()


def _state(server: Server) -> dict[str, int]:
    """Counts on the host, and the server's own descriptors, mounts and files."""
    process = Path(f"/proc/{server.pid}")
    return {
        **counts(server.data_dir),
        "descriptors": len(list((process / "fd").iterdir())),
        "server's mounts": len((process / "mountinfo").read_text().splitlines()),
        "files": len([path for path in server.data_dir.rglob("*") if path.is_file() and "blank" not in path.parts]),
    }


def _steady(server: Server) -> bool:
    """Whether the pool is full and nothing is under way: two looks a second apart agree."""
    first = _state(server)
    time.sleep(2)
    return _state(server) == first

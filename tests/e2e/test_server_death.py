"""The server is killed, a sandbox's runtime is killed, the disk is full: what lives goes on, what died says why, nothing is left."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from skerry.errors import Error, SandboxLost, SandboxNotRunning
from skerry.models import EndCode, SandboxState

from .conftest import Server, eventually
from .counts import NOTHING, counts


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "data", settings={"SKERRY_SUBNET": "10.213.0.0/16"})
    yield server
    if Path(f"/proc/{server.pid}").exists():
        server.stop()


def test_sandboxes_outlive_a_killed_server(own_server: Server) -> None:
    sandbox = own_server.sandbox(timeout=None, env={"KEPT": "yes"})
    sandbox.run_code("x = 41")
    process = sandbox.exec("for i in $(seq 1000); do echo $i; sleep 0.2; done", background=True)
    next(iter(process.stdout))
    own_server.stop(signal.SIGKILL)

    own_server.start()
    found = own_server.connect(sandbox.id)
    assert found.info().state is SandboxState.RUNNING
    assert found.run_code("x + 1").text == "42", "the interpreter's variables are there"
    assert found.exec("echo $KEPT").stdout == "yes\n"
    again = found.attach(process.pid)
    assert next(iter(again.stdout)).startswith(b"1\n"), "the output is replayed from its beginning"
    again.kill()
    found.kill()
    assert own_server.stop() == 0


def test_a_killed_runtime_is_reported_and_its_neighbour_lives(own_server: Server) -> None:
    with own_server.sandbox() as victim, own_server.sandbox() as neighbour:
        victim.run_code("1")
        os.kill(_runtime_of(victim.id), signal.SIGKILL)
        end = eventually(lambda: victim.info().end)
        assert victim.info().state is SandboxState.FAILED
        assert end.code is EndCode.CRASHED
        with pytest.raises((SandboxNotRunning, SandboxLost)):
            victim.exec(["true"])
        assert neighbour.run_code("1 + 1").text == "2"


def test_a_call_under_way_ends_when_the_sandbox_dies(own_server: Server) -> None:
    with own_server.sandbox() as sandbox:
        process = sandbox.exec(["sleep", "600"], background=True)
        os.kill(_runtime_of(sandbox.id), signal.SIGKILL)
        with pytest.raises(Error) as caught:
            process.wait()
        assert caught.value.code in {"sandbox.lost", "sandbox.not_running"}


def test_a_stopped_server_leaves_nothing(tmp_path: Path) -> None:
    server = Server(tmp_path / "data", settings={"SKERRY_SUBNET": "10.214.0.0/16"})
    for _ in range(2):
        server.sandbox(timeout=None).run_code("1")
    assert server.stop() == 0
    assert counts(server.data_dir) == NOTHING


def test_a_second_signal_does_not_cut_the_clearing_up_short(tmp_path: Path) -> None:
    server = Server(tmp_path / "data", settings={"SKERRY_SUBNET": "10.220.0.0/16"})
    for _ in range(3):
        server.sandbox(timeout=None)
    os.kill(server.pid, signal.SIGTERM)
    time.sleep(0.3)
    assert server.stop(signal.SIGINT) == 0
    assert counts(server.data_dir) == NOTHING


def test_what_a_killed_server_left_is_cleared_by_the_next(tmp_path: Path) -> None:
    server = Server(tmp_path / "data", settings={"SKERRY_SUBNET": "10.215.0.0/16"})
    server.sandbox(timeout=None)
    server.stop(signal.SIGKILL)
    server.start()
    assert server.stop() == 0
    assert counts(server.data_dir) == NOTHING


def test_a_second_server_on_the_same_data_is_refused(own_server: Server) -> None:
    second = subprocess.run(
        ["python3", "-m", "skerry", "up", "--json", "--port", "0", "--data-dir", own_server.data_dir],
        capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
        env={**os.environ, "PATH": f"{Path(os.sys.executable).parent}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert second.returncode != 0
    assert str(own_server.pid) in second.stderr
    assert "Traceback" not in second.stderr


def test_a_full_data_directory_refuses_new_sandboxes_and_keeps_the_old(tmp_path: Path) -> None:
    data = tmp_path / "small"
    data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", data], check=True)
    try:
        server = Server(data, settings={"SKERRY_SUBNET": "10.216.0.0/16"})
        try:
            sandbox = server.sandbox()
            filler = data / "filler"
            _fill(filler)
            with pytest.raises(Error) as caught:
                [server.sandbox() for _ in range(20)]
            assert caught.value.code == "host.full"
            assert caught.value.status == 503
            assert sandbox.exec(["echo", "alive"]).stdout == "alive\n"
            filler.unlink()
            assert eventually(lambda: server.sandbox(disk=64).exec(["echo", "again"]).stdout == "again\n")
        finally:
            server.stop()
    finally:
        subprocess.run(["umount", "-l", data], check=True)


def _fill(file: Path) -> None:
    """Write until the file system is full."""
    with file.open("wb", buffering=0) as writer, suppress(OSError):
        while writer.write(b"\0" * (1 << 20)):
            pass


def _runtime_of(sandbox_id: str) -> int:
    """The host process that is this sandbox's kernel, by the server's own record."""
    for path in Path("/run/skerry").glob("*/sandboxes/*/record.json"):
        record = json.loads(path.read_text())
        if record["sandbox_id"] == sandbox_id:
            return int(record["pid"])
    pytest.fail(f"no runtime process of {sandbox_id}")

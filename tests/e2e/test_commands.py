"""Sandboxes with a command of their own: its end stops them, and restart policies start them again."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from skerry import Restart, Sandbox
from skerry.models import EndCode, SandboxState

from .conftest import Server, eventually


def test_the_end_of_its_command_stops_it_and_a_start_runs_it_again(server: Server) -> None:
    with server.sandbox(timeout=None, command="echo run >> /home/user/log; sleep 5; exit 3") as sandbox:
        stopped = eventually(lambda: (info := sandbox.info()).state is SandboxState.STOPPED and info)
        assert stopped.last_exit.exit_code == 3
        assert stopped.restart_at is None
        sandbox.start()
        assert eventually(lambda: sandbox.files.read("/home/user/log") == "run\nrun\n")


def test_a_failing_command_is_started_again_as_often_as_its_policy_says(server: Server) -> None:
    restart = Restart(when="on-failure", retries=2, backoff_s=0.2)
    with server.sandbox(timeout=None, command=["/bin/false"], restart=restart) as sandbox:
        settled = eventually(
            lambda: (info := sandbox.info()).state is SandboxState.STOPPED and info.restart_at is None and info
        )
        assert (settled.restarts, settled.last_exit.exit_code) == (2, 1)
        sandbox.start()
        assert eventually(lambda: sandbox.info().restarts == 1), "the row begins anew"


def test_a_command_that_ends_well_is_no_failure(server: Server) -> None:
    with server.sandbox(timeout=None, command="exit 0", restart="on-failure") as sandbox:
        info = eventually(lambda: (info := sandbox.info()).state is SandboxState.STOPPED and info)
        assert (info.last_exit.exit_code, info.restart_at) == (0, None)


def test_a_sandbox_that_dies_starts_again_with_its_files(server: Server) -> None:
    with server.sandbox(
        timeout=None, command=["sleep", "infinity"], restart=Restart(when="always", backoff_s=0.2)
    ) as sandbox:
        sandbox.files.write("/home/user/kept", "content")
        sandbox.exec("sync")
        os.kill(_runtime_of(sandbox.id), signal.SIGKILL)
        info = eventually(
            lambda: (info := sandbox.info()).restarts == 1 and info.state is SandboxState.RUNNING and info
        )
        assert info.last_exit.exit_code == 137
        assert sandbox.files.read("/home/user/kept") == "content"
        assert eventually(lambda: [process.info.command for process in sandbox.processes()] == [["sleep", "infinity"]])
        types = [event.type for event in sandbox.events()]
        assert types[-2:] == ["sandbox.stopped", "sandbox.running"]


def test_one_without_a_policy_that_dies_has_failed(server: Server) -> None:
    with server.sandbox(timeout=None, command=["sleep", "infinity"]) as sandbox:
        os.kill(_runtime_of(sandbox.id), signal.SIGKILL)
        end = eventually(lambda: sandbox.info().end)
        assert end.code is EndCode.CRASHED


def test_a_stop_is_no_failure_and_a_kill_ends_a_row_of_restarts(server: Server) -> None:
    restart = Restart(when="always", backoff_s=0.2)
    sandbox = server.sandbox(timeout=None, command=["sleep", "infinity"], restart=restart)
    stopped = sandbox.stop()
    assert (stopped.state, stopped.restart_at) == (SandboxState.STOPPED, None)
    sandbox.start()
    sandbox.kill()
    failing = server.sandbox(timeout=None, command="exit 1", restart=Restart(when="always", backoff_s=30))
    eventually(lambda: failing.info().restart_at)
    failing.kill()
    assert failing.info().state is SandboxState.DESTROYED


def test_a_command_goes_on_through_a_pause_on_the_disk_and_a_servers_death(tmp_path: Path) -> None:
    server = Server(tmp_path / "data", settings={"SKERRY_SUBNET": "10.220.0.0/16", "SKERRY_POOL_MIN": "0"})
    try:
        count = "i=0; while true; do i=$((i+1)); echo $i > /home/user/count; sleep 0.1; done"
        sandbox = server.sandbox(timeout=None, command=count, restart="always")
        first = eventually(lambda: sandbox.files.exists("/home/user/count") and _count(sandbox))
        sandbox.pause(to_disk=True)
        sandbox.resume()
        assert eventually(lambda: _count(sandbox) > first)
        server.stop(signal.SIGKILL)
        server.start()
        again = server.connect(sandbox.id)
        assert eventually(lambda: _count(again) > first)
        again.exec("pkill -f home/user/count")
        assert eventually(lambda: again.info().restarts == 1), "the later server sees its end"
        again.kill()
    finally:
        server.stop()


def _count(sandbox: Sandbox) -> int:
    return int(sandbox.files.read("/home/user/count").strip() or 0)


def _runtime_of(sandbox_id: str) -> int:
    """The host process that is this sandbox's kernel, by the server's own record."""
    for path in Path("/run/skerry").glob("*/sandboxes/*/record.json"):
        record = json.loads(path.read_text())
        if record["sandbox_id"] == sandbox_id:
            return int(record["pid"])
    raise AssertionError(f"no runtime process of {sandbox_id}")

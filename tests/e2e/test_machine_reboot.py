"""The machine goes down with everything in memory: what is on the disk is there afterwards, the rest says that it is lost."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from skerry.config import Settings
from skerry.models import EndCode

from .conftest import Server, eventually
from .counts import NOTHING, counts


def test_what_is_on_the_disk_outlives_the_machine(tmp_path: Path) -> None:
    server = Server(tmp_path / "data", settings={"SKERRY_SUBNET": "10.219.0.0/16", "SKERRY_POOL_MIN": "1"})
    made = {name: server.sandbox(timeout=None) for name in ("running", "frozen", "disk", "files", "stopped")}
    for name, sandbox in made.items():
        sandbox.files.write("/home/user/name", name)
        sandbox.run_code(f"name = {name!r}")
    _call(server, "POST", f"/v1/sandboxes/{made['running'].id}/snapshots", b'{"name": "taken"}')
    for name, action, body in (
        ("frozen", "pause", b"{}"),
        ("disk", "pause", b'{"to_disk": true}'),
        ("files", "pause", b'{"keep_memory": false}'),
        ("stopped", "stop", b"{}"),
    ):
        _call(server, "POST", f"/v1/sandboxes/{made[name].id}/{action}", body)

    server.stop(signal.SIGKILL)
    _go_down(server.data_dir)
    server.start()
    try:
        for name in ("running", "frozen"):
            found = server.connect(made[name].id).info()
            assert found.end is not None
            assert found.end.code is EndCode.NODE_LOST
        assert server.connect(made["disk"].id).run_code("name").text == "'disk'"
        assert server.connect(made["files"].id).files.read("/home/user/name") == "files"
        _call(server, "POST", f"/v1/sandboxes/{made['stopped'].id}/start")
        assert server.connect(made["stopped"].id).files.read("/home/user/name") == "stopped"
        child = _call(server, "POST", "/v1/sandboxes", b'{"snapshot": "taken"}')
        assert server.connect(child["id"]).run_code("name").text == "'running'"
        # Nothing of those that are lost is left.
        assert len(list((server.data_dir / "states").iterdir())) == 1, "the snapshot's"
        assert len(list((server.data_dir / "disks").iterdir())) <= 4 + 2, "those that run, and the pool's"
    finally:
        assert server.stop() == 0
    assert counts(server.data_dir) == NOTHING


def _call(server: Server, method: str, path: str, body: bytes = b"") -> Any:
    status, content = server.request(method, path, body)
    assert status < 300, content
    return content


def _go_down(data_dir: Path) -> None:
    """What a reboot takes: every process, with its mounts; the run directory; control groups."""
    instance = Settings(data_dir=data_dir).instance
    root = f"--root=/run/skerry/{instance}/".encode()
    for group in Path("/sys/fs/cgroup").glob(f"**/skerry/{instance}/*/freezer.state"):
        group.write_text("THAWED")
    for group in Path("/sys/fs/cgroup").glob(f"**/skerry/{instance}/*/cgroup.freeze"):
        group.write_text("0")

    def left() -> list[int]:
        found = []
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                try:
                    if root in (process / "cmdline").read_bytes():
                        found.append(int(process.name))
                except OSError:
                    continue
        return found

    for pid in left():
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not left())
    time.sleep(0.2)
    for group in sorted(Path("/sys/fs/cgroup").glob(f"*/skerry/{instance}/*"), reverse=True):
        if group.is_dir():
            eventually(lambda group=group: _removed(group))
    shutil.rmtree(f"/run/skerry/{instance}")


def _removed(group: Path) -> bool:
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True

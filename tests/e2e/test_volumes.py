"""Volumes on a real server, through the SDK: they outlive sandboxes, pauses and the server's death."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from skerry import Sandbox, Volume
from skerry.errors import (
    CannotMount,
    Conflict,
    InvalidPath,
    InvalidRequest,
    LimitExceeded,
    NoSpace,
    VolumeInUse,
    VolumeNotFound,
    VolumeTooSmall,
)
from skerry.failpoints import POINTS
from skerry.models import SandboxState

from .conftest import Server, eventually
from .counts import NOTHING, counts


class Kept(Server):
    """A server of its own that can be killed, told to die at a step, and started again."""

    def volume(self, name: str, **options: Any) -> Volume:
        return Volume.create(name, api_url=self.api_url, api_key=self.api_key, **options)

    def find(self, name: str) -> Volume:
        return Volume.connect(name, api_url=self.api_url, api_key=self.api_key)

    def volumes(self) -> dict[str, Any]:
        found = Volume.list(api_url=self.api_url, api_key=self.api_key)
        return {item.name: item for item in found}

    def restart(self, point: str | None = None) -> None:
        if Path(f"/proc/{self.pid}").exists() and self._process.poll() is None:
            self.stop(signal.SIGKILL)
        self._environment.pop("SKERRY_FAILPOINT", None)
        if point is not None:
            self._environment["SKERRY_FAILPOINT"] = point
        self.start()

    def wait_for_death(self) -> None:
        self._process.wait(30)
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    settings = {"SKERRY_SUBNET": "10.222.0.0/16", "SKERRY_POOL_MIN": "0", "SKERRY_STORAGE_QUOTA_MIB": "4096"}
    server = Kept(tmp_path_factory.mktemp("volumes") / "data", settings=settings)
    yield server
    if server._process.poll() is None:
        assert server.stop() == 0
    assert counts(server.data_dir) == NOTHING
    assert not (server.data_dir / "volume-mounts").exists()


@pytest.fixture(autouse=True)
def clean(kept: Kept) -> Iterator[None]:
    yield
    for sandbox in list(Sandbox.list(api_url=kept.api_url, api_key=kept.api_key)):
        kept.connect(sandbox.id).kill()
    for name in kept.volumes():
        kept.find(name).delete(snapshots=True)
    eventually(lambda: not list((kept.data_dir / "volumes").iterdir()))
    eventually(lambda: not volume_loops(kept))


def volume_loops(server: Server) -> list[str]:
    """Loop devices of volumes."""
    found = []
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            found.append(file.read_text().strip())
        except OSError:
            continue
    return [path for path in found if path.startswith(f"{server.data_dir}/volumes/")]


def test_a_claim_from_the_pool_has_volumes(server: Server) -> None:
    volume = Volume.create("pooled", size=16, api_url=server.api_url, api_key=server.api_key)

    def claimed() -> Sandbox | None:
        sandbox = server.sandbox(volumes={"/data": volume})
        if sandbox.created.origin == "pool":
            return sandbox
        sandbox.kill()
        return None

    with eventually(claimed, 60) as sandbox:
        assert sandbox.exec("echo x > /data/file && cat /data/file").stdout == "x\n"
    volume.delete()


def test_a_volume_outlives_its_sandboxes(kept: Kept) -> None:
    volume = kept.volume("data", size=64)
    volume.files.write("in/put.txt", "from outside")
    with kept.sandbox(volumes={"/data": volume}) as first:
        assert [(item.name, item.path) for item in first.info().volumes] == [("data", "/data")]
        assert first.files.read("/data/in/put.txt") == "from outside"
        assert first.exec("id -un; echo result > /data/result; mkdir /data/d").stdout == "user\n"
        assert first.run_code("open('/data/in/put.txt').read()").text == "'from outside'"
        assert volume.files.read("result") == "result\n", "seen at once"
        assert volume.info().mounted_by == [first.id]
    assert eventually(lambda: not volume_loops(kept)) is True, "unmounted with its last sandbox"
    with kept.sandbox(volumes={"/somewhere/else": "data"}) as second:
        assert second.exec("cat /somewhere/else/result").stdout == "result\n"
    assert [item.path for item in volume.files.list(depth=2)] == ["/d", "/in", "/in/put.txt", "/result"]
    volume.delete()
    with pytest.raises(VolumeNotFound):
        volume.info()


def test_many_volumes_and_sandboxes(kept: Kept) -> None:
    shared, own = kept.volume("shared", size=16), kept.volume("own", size=16)
    shared.files.write("model", "weights")
    shared.files.mkdir("own")  # there, because nobody can make it in what is read-only
    with (
        kept.sandbox(volumes={"/models": shared.read_only(), "/models/own": own}) as one,
        kept.sandbox(volumes={"/data": shared}) as two,
    ):
        for script in (
            "echo x > /models/model",
            "rm /models/model",
            "mv /models/model /models/m",
            "chmod 7 /models/model",
        ):
            assert one.exec(script, user="root").returncode != 0, script
        assert one.exec("mount -o remount,rw /models", user="root").returncode != 0
        assert one.exec("cat /models/model; echo mine > /models/own/file").stdout == "weights"
        two.exec("echo newer > /data/model", check=True)
        assert one.exec("cat /models/model").stdout == "newer\n"
        assert own.files.read("file") == "mine\n"
        assert sorted(shared.info().mounted_by) == sorted([one.id, two.id])


def test_what_is_mounted_is_not_changed(kept: Kept) -> None:
    volume = kept.volume("data", size=16)
    snapshot = volume.snapshot("before")
    with kept.sandbox(volumes={"/data": volume}) as sandbox:
        for change in (volume.delete, lambda: volume.resize(32), lambda: volume.restore("before")):
            with pytest.raises(VolumeInUse, match=sandbox.id) as caught:
                change()
            assert caught.value.details["sandbox_ids"] == [sandbox.id]
        sandbox.exec("echo x > /data/file", check=True)
    assert volume.resize(32).size_mib == 32
    assert volume.restore(snapshot.id).size_mib == 16
    assert volume.files.list() == []
    with pytest.raises(Conflict, match="snapshots"):
        volume.delete()


def test_limits_are_hard_and_told(kept: Kept) -> None:
    volume = kept.volume("small", size=16, inodes=512)
    with kept.sandbox(volumes={"/data": volume}) as sandbox:
        assert "No space left" in sandbox.exec("dd if=/dev/zero of=/data/big bs=1M count=64").stderr
        assert sandbox.exec("echo fine > /tmp/x && rm /data/big && echo fine > /data/x").returncode == 0
        assert "No space left" in sandbox.exec("for i in $(seq 600); do : > /data/$i || exit 1; done").stderr
        assert volume.info().inodes_used == 512
    with pytest.raises(NoSpace):
        volume.files.write("more", b"x")
    with pytest.raises(NoSpace):
        volume.files.write("1", b"x" * (20 << 20))
    assert volume.files.read_bytes("1") == b"", "its old content"
    with pytest.raises(LimitExceeded, match="storage_quota_mib") as caught:
        kept.volume("large", size=4090)
    assert (caught.value.details["limit_mib"], caught.value.details["requested_mib"]) == (4096, 4090)
    filled = kept.volume("filled", size=200)
    filled.files.write("file", b"x" * (100 << 20))
    with pytest.raises(VolumeTooSmall) as refused:
        filled.resize(50)
    assert refused.value.details["minimum_mib"] > 100
    assert filled.resize(400).used_mib is not None
    assert filled.files.stat("file").size == 100 << 20


def test_snapshots_and_forks_while_somebody_writes(kept: Kept) -> None:
    volume = kept.volume("data", size=64)
    with kept.sandbox(volumes={"/data": volume}) as sandbox:
        sandbox.exec("echo 1 > /data/file && sync", check=True)
        process = sandbox.exec("while :; do date +%s%N >> /data/log; done", background=True)
        snapshot = volume.snapshot("one")
        sandbox.exec("echo 2 > /data/file", check=True)
        fork = volume.fork("fork")
        process.kill()
    old = volume.fork("old", snapshot="one")
    assert old.files.read("file") == "1\n"
    assert fork.files.read("file") == "2\n"
    fork.files.write("file", "3")
    assert volume.files.read("file") == "2\n"
    assert [item.name for item in volume.snapshots()] == ["one"]
    assert snapshot.stored_mib < 64
    volume.delete_snapshot("one")
    assert volume.snapshots() == []


def test_mounts_that_cannot_be_are_refused(kept: Kept) -> None:
    volume = kept.volume("data", size=16)
    for path in ("data", "/", "/proc/x", "/run", "/a/../b"):
        with pytest.raises(InvalidRequest):
            kept.sandbox(volumes={path: volume})
    with pytest.raises(VolumeNotFound):
        kept.sandbox(volumes={"/data": "none"})
    with pytest.raises(CannotMount, match="/etc/passwd"):
        kept.sandbox(volumes={"/etc/passwd": volume})
    with pytest.raises(InvalidRequest, match="twice"):
        kept.sandbox(volumes={"/a": volume, "/b": volume})
    assert volume.info().mounted_by == []


def test_the_file_api_stays_in_the_volume(kept: Kept) -> None:
    volume = kept.volume("data", size=16)
    with kept.sandbox(volumes={"/data": volume}) as sandbox:
        sandbox.exec("cd /data; ln -s / out; ln -s ../../../../etc up; echo x > file; ln file hard", check=True)
        for path in ("out/etc/shadow", "up/shadow", "../x", "out"):
            status, body = kept.request("GET", f"/v1/volumes/data/files?path={path}")
            assert status == 400, (path, body)
        with pytest.raises(InvalidPath):
            volume.files.write("out/tmp/evil", "x")
        assert volume.files.stat("out").target == "/"
        assert volume.files.read("hard") == "x\n"
    status, part = kept.request("GET", "/v1/volumes/data/files?path=file", b"", "range: bytes=0-0")
    assert (status, part) == (206, "x")
    assert kept.request("GET", "/v1/volumes/data/files?path=file", key="sk_wrong")[0] == 401


def test_sandboxes_at_rest_keep_their_volumes(kept: Kept) -> None:
    volume = kept.volume("data", size=32)
    sandbox = kept.sandbox(volumes={"/data": volume, "/ro": kept.volume("ro", size=16).read_only()}, timeout=None)
    sandbox.exec("echo 1 > /data/file", check=True)
    sandbox.run_code("x = 41")
    path = f"/v1/sandboxes/{sandbox.id}"
    assert kept.request("POST", f"{path}/pause", b'{"to_disk": true}')[0] == 200
    eventually(lambda: not volume_loops(kept))
    with pytest.raises(VolumeInUse):
        volume.delete()
    volume.files.write("file", "2\n")
    assert kept.request("POST", f"{path}/resume")[0] == 200
    assert sandbox.exec("cat /data/file").stdout == "2\n"
    assert sandbox.run_code("x + 1").text == "42"
    assert sandbox.exec("echo x > /ro/file", user="root").returncode != 0
    assert kept.request("POST", f"{path}/stop")[0] == 200
    assert kept.request("POST", f"{path}/start")[0] == 200
    assert sandbox.exec("cat /data/file && echo 3 > /data/file").stdout == "2\n"

    status, reply = kept.request("POST", f"{path}/fork", b'{"count": 2}')
    assert status == 201, reply
    forks = [kept.connect(item["sandbox"]["id"]) for item in reply["items"]]
    for number, fork in enumerate(forks):
        assert fork.exec(f"cat /data/file; echo {number} > /data/{number}").stdout == "3\n"
    assert volume.files.read("1") == "1\n"
    assert len(volume.info().mounted_by) == 3

    assert kept.request("POST", f"{path}/snapshots", b'{"name": "s"}')[0] == 201
    child = kept.sandbox(snapshot="s")
    assert child.exec("cat /data/file").stdout == "3\n"
    with pytest.raises(InvalidRequest):
        kept.sandbox(snapshot="s", volumes={"/data": "ro"})
    more = kept.volume("more", size=16)
    another = kept.sandbox(snapshot="s", volumes={"/more": more})
    another.exec("echo 4 > /more/file; cat /data/file", check=True)
    for each in (sandbox, child, another, *forks):
        each.kill()
    volume.delete()
    with pytest.raises(VolumeNotFound):
        kept.sandbox(snapshot="s")
    assert kept.request("DELETE", "/v1/snapshots/s")[0] == 204


def test_a_killed_server_and_a_volume_that_is_written_to(kept: Kept) -> None:
    """The next server must use the file system that the sandbox has mounted still: a second one on the same file would
    destroy it."""
    volume = kept.volume("data", size=64)
    sandbox = kept.sandbox(volumes={"/data": volume}, timeout=None)
    script = "i=0; while :; do i=$((i+1)); echo $i > /data/count; mkdir -p /data/d/$((i%50)); sync /data/count; done"
    sandbox.exec(script, background=True)
    volume.files.write("by the first", "1")
    for turn in range(3):
        kept.stop(signal.SIGKILL)
        kept.start()
        again, found = kept.find("data"), kept.connect(sandbox.id)
        assert found.info().state is SandboxState.RUNNING
        assert len(volume_loops(kept)) == 1, "one device for one file"
        assert again.info().mounted_by == [sandbox.id]
        again.files.write(f"by server {turn}", str(turn))
        assert found.exec(f"cat '/data/by server {turn}'").stdout == str(turn)
        assert len(volume_loops(kept)) == 1
        count = int(again.files.read("count") or 0)
        assert eventually(lambda: int(again.files.read("count") or 0) > count)  # noqa: B023 - called here
        again.snapshot(f"s{turn}")
        with pytest.raises(VolumeInUse):
            again.delete()
    found.kill()
    eventually(lambda: not volume_loops(kept))
    for image in (kept.data_dir / "volumes").iterdir():
        subprocess.run(["e2fsck", "-f", "-n", image], check=True, capture_output=True)
    assert kept.find("data").files.read("by the first") == "1"


def test_a_server_that_is_stopped_with_keep_leaves_volumes_mounted(tmp_path: Path) -> None:
    server = Kept(
        tmp_path / "data", settings={"SKERRY_SUBNET": "10.224.0.0/16", "SKERRY_POOL_MIN": "0"}, arguments=("--keep",)
    )
    try:
        volume = server.volume("data", size=16)
        sandbox = server.sandbox(volumes={"/data": volume}, timeout=None)
        sandbox.exec("echo 1 > /data/file", check=True)
        server.stop()
        server.start()
        assert server.connect(sandbox.id).exec("cat /data/file; echo 2 > /data/file").stdout == "1\n"
        assert server.find("data").files.read("file") == "2\n"
        server.connect(sandbox.id).kill()
        server.find("data").delete()
    finally:
        server._arguments = ()
        server.restart()
        assert server.stop() == 0
    assert counts(server.data_dir) == NOTHING
    assert not (server.data_dir / "volume-mounts").exists()


STEPS = {
    "create": ["volume: written", "volume: published", "volume: added"],
    "fork": ["volume: written", "volume: published", "volume: added"],
    "resize": ["volume: written", "volume: published", "volume: noted"],
    "snapshot": ["volume: written", "volume: published", "volume: snapshot added"],
    "restore": ["volume: written", "volume: published", "volume: noted"],
    "delete": ["volume: deleting", "volume: removed"],
    "mount": ["volume: attached"],
}


def test_every_step_has_a_case() -> None:
    assert {step for steps in STEPS.values() for step in steps} == {
        point for point in POINTS if point.startswith("volume: ")
    }


@pytest.mark.parametrize(("action", "step"), [(action, step) for action, steps in STEPS.items() for step in steps])
def test_the_server_may_die_at_any_step(kept: Kept, action: str, step: str) -> None:
    volume = kept.volume("data", size=16)
    volume.files.write("file", "old")
    volume.snapshot("old")
    volume.files.write("file", "new")
    bystander = None
    if action in ("mount", "delete"):
        bystander = kept.sandbox(volumes={"/data": kept.volume("bystander", size=16)}, timeout=None)
    kept.restart(step)
    with pytest.raises((OSError, ValueError, IndexError)):
        act(kept, action)
    kept.wait_for_death()
    kept.restart()

    there = kept.volumes()
    if action != "delete":
        data = kept.find("data")
        assert there["data"].size_mib in ((16, 48) if action == "resize" else (16,))
        assert data.files.read("file") in (("new", "old") if action == "restore" else ("new",))
        assert "old" in [item.name for item in data.snapshots()]
        assert data.info().mounted_by == []
    else:
        assert "data" not in there, "a deletion that has begun is finished"
    if "made" in there:
        kept.find("made").files.write("x", "whole")
    files = {path.stem for path in (kept.data_dir / "volumes").iterdir()}
    snapshots = [item.id for name in there for item in kept.find(name).snapshots()]
    assert files == {item.id for item in there.values()} | set(snapshots), "nothing half done is left"
    if bystander is not None:
        assert kept.connect(bystander.id).exec("echo on > /data/file && cat /data/file").stdout == "on\n"


def act(server: Kept, action: str) -> None:
    """One change, by plain HTTP: there will be no reply."""
    path, body = {
        "create": ("/v1/volumes", {"name": "made", "size_mib": 16}),
        "fork": ("/v1/volumes", {"name": "made", "source": "data"}),
        "resize": ("/v1/volumes/data/resize", {"size_mib": 48}),
        "snapshot": ("/v1/volumes/data/snapshots", {"name": "made"}),
        "restore": ("/v1/volumes/data/restore", {"snapshot": "old"}),
        "delete": ("/v1/volumes/data?snapshots=true", {}),
        "mount": ("/v1/sandboxes", {"volumes": [{"volume": "data", "path": "/data"}]}),
    }[action]
    server.request("DELETE" if action == "delete" else "POST", path, json.dumps(body).encode() if body else b"")


def test_the_command_line(kept: Kept, tmp_path: Path) -> None:
    def cli(*arguments: str, status: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "skerry", "volume", *arguments], capture_output=True, text=True, timeout=100,
            check=False, env={**os.environ, "SKERRY_API_URL": kept.api_url, "SKERRY_API_KEY": kept.api_key},
        )  # fmt: skip
        assert done.returncode == status, done
        return done.stdout or done.stderr

    folder = tmp_path / "folder"
    deep = folder.joinpath(*(f"d{number}" for number in range(20)))
    deep.mkdir(parents=True)
    (deep / "file").write_text("deep")
    (folder / "top").write_text("top")
    assert "16 MiB" in cli("create", "data", "--size", "16")
    cli("put", "data", str(folder), "/in/")
    assert "/in/folder/top" in cli("files", "data", "/", "--depth", "3")
    cli("get", "data", "/in/folder", str(tmp_path / "back"))
    assert (tmp_path / "back").joinpath(*deep.relative_to(folder).parts, "file").read_text() == "deep"
    cli("get", "data", "in/folder/top", str(tmp_path / "one"))
    assert (tmp_path / "one").read_text() == "top"
    cli("snapshot", "data", "--name", "s")
    assert json.loads(cli("snapshots", "data", "--json"))[0]["name"] == "s"
    assert "48 MiB" in cli("resize", "data", "48")
    assert "16 MiB" in cli("restore", "data", "s")
    cli("fork", "data", "copy", "--snapshot", "s")
    assert [item["name"] for item in json.loads(cli("ls", "--json"))] == ["copy", "data"]
    assert "copy" in cli("ls")
    assert json.loads(cli("info", "data", "--json"))["used_mib"] > 0
    assert "mounted by" in cli("info", "data")
    assert "volume.not_found" in cli("rm", "none", status=1)
    assert "snapshots" in cli("rm", "data", status=1)
    cli("snapshots", "data", "--delete", "s")
    cli("rm", "data")
    cli("rm", "copy")

"""Pause and resume, what happens when the time is over, snapshots and forks."""

import asyncio
import json
import os
import time
import urllib.error
import urllib.request

import pytest
from e2b import SandboxException, SandboxQuery, SandboxState, Template, TimeoutException
from e2b_code_interpreter import AsyncSandbox, Sandbox

BOOT_ID = "cat /proc/sys/kernel/random/boot_id"


def api(method, path, body=None, **headers):
    """What the server answers where no method of the client leads: status and body."""
    request = urllib.request.Request(
        os.environ["E2B_API_URL"] + path, method=method, data=None if body is None else json.dumps(body).encode(),
        headers={"X-API-KEY": os.environ["E2B_API_KEY"], "Content-Type": "application/json", **headers},
    )  # fmt: skip
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            content = reply.read()
            return reply.status, json.loads(content) if content[:1] in (b"{", b"[") else content.decode()
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"{}")


def port(sandbox, number):
    """What a program in the sandbox answers."""
    return api("GET", "/", **{"E2b-Sandbox-Id": sandbox.sandbox_id, "E2b-Sandbox-Port": str(number)})


def until_paused(sandbox):
    deadline = time.monotonic() + 20
    while sandbox.get_info().state != SandboxState.PAUSED:
        assert time.monotonic() < deadline, sandbox.get_info()
        time.sleep(0.1)


@pytest.fixture
def new():
    """Sandboxes with a lifecycle of their own."""
    made = []

    def make(template="base", **wanted):
        made.append(Sandbox.create(template, **{"timeout": 120, **wanted}))
        return made[-1]

    yield make
    for sandbox in made:
        sandbox.kill()


def test_what_is_paused_goes_on_where_it_was(sandbox, mark):
    sandbox.run_code("x = 41")
    background = sandbox.commands.run("sleep 1000", background=True)
    sandbox.files.write("kept", "content")
    boot = sandbox.commands.run(BOOT_ID).stdout
    assert sandbox.pause() is True
    assert sandbox.pause() is False
    assert not sandbox.is_running()
    with pytest.raises((SandboxException, TimeoutException)):
        sandbox.commands.run("true")
    info = sandbox.get_info()
    assert info.state == SandboxState.PAUSED
    assert info.metadata == mark
    assert [item.sandbox_id for item in Sandbox.list(SandboxQuery(mark, [SandboxState.PAUSED])).next_items()] == [
        sandbox.sandbox_id
    ]
    assert Sandbox.list(SandboxQuery(mark, [SandboxState.RUNNING])).next_items() == []
    assert sandbox.connect(timeout=200).sandbox_id == sandbox.sandbox_id
    assert sandbox.is_running()
    assert (sandbox.get_info().end_at - info.end_at).total_seconds() > 190
    assert sandbox.run_code("x + 1").text == "42"
    assert background.pid in [process.pid for process in sandbox.commands.list()]
    assert sandbox.files.read("kept") == "content"
    assert sandbox.commands.run("echo $GLOBAL").stdout == "of the sandbox\n"
    assert sandbox.commands.run(BOOT_ID).stdout == boot


def test_without_memory_it_boots_again(sandbox):
    sandbox.files.write("kept", "content")
    boot = sandbox.files.read("/proc/sys/kernel/random/boot_id")
    background = sandbox.commands.run("sleep 1000", background=True)
    assert sandbox.pause(keep_memory=False) is True
    assert not sandbox.is_running()
    Sandbox.connect(sandbox.sandbox_id)
    assert sandbox.files.read("kept") == "content"
    assert background.pid not in [process.pid for process in sandbox.commands.list()]
    assert sandbox.commands.run("echo $GLOBAL").stdout == "of the sandbox\n"
    assert sandbox.files.read("/proc/sys/kernel/random/boot_id") not in (boot, "")


def test_a_paused_one_can_be_killed(sandbox):
    sandbox.pause()
    assert sandbox.get_metrics() == []
    with pytest.raises(SandboxException):
        sandbox.set_timeout(100)
    assert sandbox.kill() is True
    assert sandbox.kill() is False
    with pytest.raises(SandboxException):
        sandbox.connect()
    with pytest.raises(SandboxException):
        sandbox.pause()


def test_a_time_out_pauses_it(new):
    sandbox = new(timeout=2, lifecycle={"on_timeout": "pause"})
    info = sandbox.get_info()
    assert (info.lifecycle["on_timeout"], info.lifecycle["auto_resume"]) == ("pause", False)
    sandbox.run_code("x = 1")
    until_paused(sandbox)
    assert not sandbox.is_running()
    assert port(sandbox, 49999)[0] == 502
    sandbox.connect(timeout=60)
    assert sandbox.run_code("x").text == "1"
    sandbox.set_timeout(0)
    until_paused(sandbox)
    sandbox.connect(timeout=60)
    assert sandbox.run_code("x").text == "1"


def test_a_time_out_keeps_the_files_only(new):
    sandbox = new(timeout=60, lifecycle={"on_timeout": {"action": "pause", "keep_memory": False}})
    sandbox.files.write("kept", "content")
    boot = sandbox.commands.run(BOOT_ID).stdout
    sandbox.set_timeout(0)
    until_paused(sandbox)
    assert api("GET", f"/sandboxes/{sandbox.sandbox_id}")[1]["pauseMode"] == "filesystem"
    sandbox.connect()
    assert sandbox.files.read("kept") == "content"
    assert sandbox.commands.run(BOOT_ID).stdout != boot


def test_requests_wake_it(new):
    sandbox = new(timeout=60, lifecycle={"on_timeout": "pause", "auto_resume": True})
    assert sandbox.get_info().lifecycle["auto_resume"] is True
    sandbox.run_code("x = 1")
    sandbox.commands.run("python3 -m http.server 8000", background=True)
    sandbox.commands.run("until curl -s localhost:8000 >/dev/null; do sleep 0.1; done")
    uses = (
        lambda: sandbox.commands.run("echo awake").stdout == "awake\n",
        lambda: sandbox.run_code("x").text == "1",
        lambda: sandbox.files.exists("/etc/passwd"),
        lambda: port(sandbox, 8000)[0] == 200,
        sandbox.is_running,
    )
    for use in uses:
        assert sandbox.pause() is True
        assert use()
        info = sandbox.get_info()
        assert info.state == SandboxState.RUNNING
        assert (info.end_at - info.started_at).total_seconds() > 290, "less than five minutes"


def test_requests_do_not_boot_it(new):
    sandbox = new(lifecycle={"on_timeout": "pause", "auto_resume": True})
    sandbox.pause(keep_memory=False)
    assert not sandbox.is_running()
    assert port(sandbox, 49999)[0] == 502
    assert sandbox.get_info().state == SandboxState.PAUSED
    sandbox.connect()
    assert sandbox.is_running()


def test_who_has_no_token_does_not_wake_it(new):
    sandbox = new(lifecycle={"on_timeout": "pause", "auto_resume": True}, network={"allow_public_traffic": False})
    sandbox.pause()
    at_envd = {"E2b-Sandbox-Id": sandbox.sandbox_id, "E2b-Sandbox-Port": "49983"}
    assert api("GET", "/health", **at_envd)[0] == 502
    assert api("GET", "/files?path=/etc/passwd", **at_envd, **{"X-Access-Token": "wrong"})[0] == 401
    assert port(sandbox, 8000)[0] == 403
    assert sandbox.get_info().state == SandboxState.PAUSED


def test_the_words_of_the_api(sandbox):
    path = f"/sandboxes/{sandbox.sandbox_id}"
    assert api("POST", f"/v2{path}/connect", {"timeout": 10})[0] == 200
    assert api("POST", f"{path}/resume", {})[0] == 409
    assert api("POST", f"{path}/pause")[0] == 204
    assert api("POST", f"{path}/pause", {})[0] == 409
    assert api("POST", f"{path}/fork", {})[0] == 409
    assert api("POST", f"{path}/resume", {"timeout": 60, "autoPause": True})[0] == 201
    assert api("GET", path)[1]["lifecycle"] == {"onTimeout": "pause", "autoResume": False}
    assert api("POST", f"{path}/pause", {"memory": True, "requireHealthyGuest": True})[0] == 204
    assert api("GET", path)[1]["pauseMode"] == "full"
    status, opened = api("POST", f"{path}/connect", {"timeout": 60})
    assert (status, opened["sandboxID"], opened["templateID"]) == (201, sandbox.sandbox_id, "base")
    assert "pauseMode" not in api("GET", path)[1]
    boot = sandbox.commands.run(BOOT_ID).stdout
    assert api("POST", f"{path}/pause", {"memory": True})[0] == 204
    assert api("POST", f"/v2{path}/connect", {"memory": False})[0] == 201
    assert sandbox.commands.run(BOOT_ID).stdout != boot
    for wanted in ({"count": 0}, {"count": 101}, {"timeout": 0}):
        assert api("POST", f"{path}/fork", wanted)[0] == 400
    status, told = api("PUT", f"{path}/network", {"denyOut": ["0.0.0.0/0"]})
    assert status == 501
    assert "not supported by this server yet" in told["message"]
    for nowhere in ("pause", "resume", "connect", "fork", "snapshots"):
        assert api("POST", f"/sandboxes/sbnothere/{nowhere}", {})[0] == 404
    filesystem_only = {"templateID": "base", "autoPauseMemory": False}
    for wanted in (filesystem_only, {**filesystem_only, "autoPause": True, "autoResume": {"enabled": True}}):
        assert api("POST", "/v2/sandboxes", wanted)[0] == 400


def test_forks(sandbox):
    sandbox.run_code("x = 41")
    sandbox.files.write("kept", "content")
    forks = sandbox.fork(count=2, timeout=60)
    try:
        assert len({sandbox.sandbox_id, *(fork.sandbox_id for fork in forks)}) == 3
        for fork in forks:
            copy = Sandbox.connect(fork.sandbox_id)
            assert copy.run_code("x + 1").text == "42"
            assert copy.get_info().metadata == sandbox.get_info().metadata
            assert copy.commands.run("echo $GLOBAL").stdout == "of the sandbox\n"
            copy.files.write("kept", "its own")
        assert sandbox.files.read("kept") == "content"
        assert sandbox.run_code("x").text == "41"
    finally:
        for fork in forks:
            fork.kill()


def test_snapshots(sandbox, mark, new):
    name = "snap-" + sandbox.sandbox_id
    sandbox.files.write("kept", "first")
    unnamed = sandbox.create_snapshot()
    named = sandbox.create_snapshot(name)
    sandbox.files.write("kept", "second")
    tagged = sandbox.create_snapshot(name + ":v2")
    snapshots = [tagged, named, unnamed]
    try:
        assert unnamed.names == []
        assert unnamed.snapshot_id.endswith(":default")
        assert named.names == tagged.names == [named.snapshot_id.removesuffix(":default")]
        assert tagged.snapshot_id == f"{named.names[0]}:v2"
        assert Sandbox.list_snapshots(sandbox_id=sandbox.sandbox_id).next_items() == snapshots
        pages = Sandbox.list_snapshots(sandbox_id=sandbox.sandbox_id, limit=2)
        assert [*pages.next_items(), *pages.next_items()] == snapshots
        assert not pages.has_next
        for wanted, content in [(unnamed.snapshot_id, "first"), (named.snapshot_id, "first"), (name, "first"),
                                (named.names[0], "first"), (tagged.snapshot_id, "second")]:  # fmt: skip
            copy = new(wanted)
            assert copy.files.read("kept") == content
            assert copy.commands.run("echo $GLOBAL").stdout == "of the sandbox\n"
            assert copy.get_info().metadata != mark
        assert Template.exists(name)
        again = sandbox.create_snapshot(name)
        assert again == named
        assert new(name, envs={"GLOBAL": "of the copy"}).files.read("kept") == "second"
        assert len(Sandbox.list_snapshots(sandbox_id=sandbox.sandbox_id).next_items()) == 3
    finally:
        for snapshot in snapshots:
            assert Sandbox.delete_snapshot(snapshot.snapshot_id) is True
            assert Sandbox.delete_snapshot(snapshot.snapshot_id) is False
    assert Sandbox.list_snapshots(sandbox_id=sandbox.sandbox_id).next_items() == []
    with pytest.raises(SandboxException):
        Sandbox.create(named.snapshot_id)
    with pytest.raises(SandboxException, match="namespace"):
        sandbox.create_snapshot("elsewhere/" + name)


def test_snapshots_by_name(sandbox):
    name = "by-name-" + sandbox.sandbox_id
    for tag in ("", ":v1", ":v2"):
        sandbox.create_snapshot(name + tag)
    for wanted, tag in [(name, "v2"), (f"{name}:v1", "v1"), (f"{name}:default", "default"), (f"default/{name}", "v2")]:
        [found] = Sandbox.list_snapshots(name=wanted).next_items()
        assert found.snapshot_id == f"default/{name}:{tag}"
    for nothing in (f"{name}:v3", f"elsewhere/{name}", name + "-more"):
        assert Sandbox.list_snapshots(name=nothing).next_items() == []
    assert Sandbox.delete_snapshot(name) is True
    assert Sandbox.list_snapshots(sandbox_id=sandbox.sandbox_id).next_items() == []
    unnamed = sandbox.create_snapshot()
    assert Sandbox.list_snapshots(name=unnamed.snapshot_id.removesuffix(":default")).next_items() == [unnamed]
    Sandbox.delete_snapshot(unnamed.snapshot_id)


def test_a_snapshot_has_processes(sandbox, new):
    sandbox.run_code("x = 41")
    sandbox.commands.run("sleep 1000", background=True)
    with_memory = sandbox.create_snapshot()
    status, files_only = api("POST", f"/sandboxes/{sandbox.sandbox_id}/snapshots", {"memory": False})
    assert status == 201
    copy, booted = new(with_memory.snapshot_id), new(files_only["snapshotID"])
    assert copy.run_code("x + 1").text == "42"
    assert len(copy.commands.list()) == 1
    assert booted.commands.list() == []
    assert booted.run_code("'x' in globals()").text == "False"
    for snapshot in (with_memory.snapshot_id, files_only["snapshotID"]):
        assert Sandbox.delete_snapshot(snapshot) is True
    assert copy.run_code("x").text == "41"
    assert copy.pause() is True
    copy.connect()
    assert copy.run_code("x").text == "41"


async def test_asynchronously(async_sandbox):
    sandbox = async_sandbox
    await sandbox.run_code("x = 41")
    assert await sandbox.pause() is True
    assert await AsyncSandbox.pause(sandbox.sandbox_id) is False
    assert not await sandbox.is_running()
    assert (await sandbox.get_info()).state == SandboxState.PAUSED
    await asyncio.gather(*(AsyncSandbox.connect(sandbox.sandbox_id) for _ in range(5)))
    assert (await sandbox.run_code("x + 1")).text == "42"
    boot = (await sandbox.commands.run(BOOT_ID)).stdout
    assert await sandbox.pause(keep_memory=False) is True
    await sandbox.connect()
    assert (await sandbox.commands.run(BOOT_ID)).stdout != boot
    [fork] = await sandbox.fork(timeout=60)
    assert await fork.is_running()
    await fork.kill()
    snapshot = await sandbox.create_snapshot(name="async-" + sandbox.sandbox_id)
    assert await AsyncSandbox.list_snapshots(name="async-" + sandbox.sandbox_id).next_items() == [snapshot]
    copy = await AsyncSandbox.create(snapshot.snapshot_id, timeout=60)
    assert await copy.kill() is True
    assert await AsyncSandbox.delete_snapshot(snapshot.snapshot_id) is True
    assert await AsyncSandbox.delete_snapshot(snapshot.snapshot_id) is False


async def test_it_wakes_for_many_at_once(mark):
    lifecycle = {"on_timeout": "pause", "auto_resume": True}
    sandbox = await AsyncSandbox.create("base", timeout=60, metadata=mark, lifecycle=lifecycle)
    try:
        await sandbox.set_timeout(0)
        results = await asyncio.gather(*(sandbox.commands.run(f"echo {n}") for n in range(10)))
        assert [result.stdout for result in results] == [f"{n}\n" for n in range(10)]
    finally:
        await sandbox.kill()

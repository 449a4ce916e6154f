"""Sandboxes that rest and go on: paused in memory, on the disk, with their files only; stopped and started."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from skerry import Sandbox, Snapshot
from skerry.errors import SandboxNotRunning
from skerry.models import EndCode, PauseGrade, SandboxState

from .conftest import Server, eventually

FROZEN: dict[str, Any] = {}
DISK = {"to_disk": True}
FILES = {"keep_memory": False}
with_memory = pytest.mark.parametrize("grade", [FROZEN, DISK], ids=["frozen", "disk"])
every_grade = pytest.mark.parametrize("grade", [FROZEN, DISK, FILES], ids=["frozen", "disk", "files"])


@pytest.fixture
def sandbox(server: Server) -> Iterator[Sandbox]:
    with server.sandbox(timeout=None) as sandbox:
        yield sandbox


def states(server: Server) -> set[str]:
    """What the server keeps of sandboxes that stand still."""
    return {path.name for path in (server.data_dir / "states").iterdir()}


def happened(sandbox: Sandbox) -> list[str]:
    return [event.type.removeprefix("sandbox.") for event in sandbox.events() if event.type.startswith("sandbox.")]


# --- pause and resume -----------------------------------------------------------------------------------------------


@with_memory
def test_all_that_runs_goes_on_after_a_pause(sandbox: Sandbox, grade: dict[str, Any]) -> None:
    sandbox.run_code("x = 41\nfile = open('/tmp/open', 'w')\nfile.write('before ')\nimport os; os.chdir('/tmp')")
    other = sandbox.create_context(cwd="/var")
    sandbox.run_code("y = 'other'", context=other)
    process = sandbox.exec("for i in $(seq 1000); do echo $i; sleep 0.05; done", background=True)
    paused = sandbox.pause(**grade)
    assert paused.state is SandboxState.PAUSED
    assert paused.rest is not None
    assert paused.rest.grade is (PauseGrade.DISK if grade else PauseGrade.FROZEN)
    assert paused.rest.memory
    assert (paused.rest.size_mib > 1) is bool(grade)
    assert paused.expires_at is None
    time.sleep(1)
    assert sandbox.resume().state is SandboxState.RUNNING
    assert sandbox.info().rest is None
    assert sandbox.run_code("file.write('after'); file.close(); x + 1, os.getcwd(), open('/tmp/open').read()").text == (
        "(42, '/tmp', 'before after')"
    )
    assert sandbox.run_code("y", context=other).text == "'other'"
    assert next(iter(sandbox.attach(process.pid).stdout)).startswith(b"1\n"), "what it wrote before is still there"
    assert process.poll() is None
    process.kill()


@with_memory
def test_clocks_go_forward_and_timers_do_not_fire_early(sandbox: Sandbox, grade: dict[str, Any]) -> None:
    sandbox.run_code("import time; wall, steady = time.time(), time.monotonic()")
    began = time.monotonic()
    sleeper = sandbox.exec(["sleep", "4"], background=True)
    sandbox.pause(**grade)
    time.sleep(2)
    sandbox.resume()
    assert sleeper.wait() == 0
    assert time.monotonic() - began >= 4
    told = sandbox.run_code("time.time(), time.monotonic() - steady").text
    wall, steady = (float(part) for part in (told or "").strip("()").split(", "))
    assert abs(wall - time.time()) < 1
    assert steady > 0


def test_a_pause_of_the_files_only_boots_again(sandbox: Sandbox) -> None:
    sandbox.run_code("x = 1")
    sandbox.files.write("kept.txt", "content")
    sleeper = sandbox.exec(["sleep", "1000"], background=True)
    paused = sandbox.pause(keep_memory=False)
    assert paused.rest is not None
    assert (paused.rest.grade, paused.rest.memory) == (PauseGrade.DISK, False)
    sandbox.resume()
    assert sandbox.files.read("kept.txt") == "content"
    assert sandbox.run_code("x").error.name == "NameError"
    assert sleeper.pid not in [process.pid for process in sandbox.processes()]


def test_memory_that_was_kept_can_be_left_out(sandbox: Sandbox) -> None:
    for grade in (FROZEN, DISK):
        sandbox.run_code("x = 1; open('kept', 'a').write('+')")
        sandbox.pause(**grade)
        sandbox.resume(keep_memory=False)
        assert sandbox.run_code("'x' in globals()").text == "False"
    assert sandbox.exec(["cat", "kept"]).stdout == "++"


def test_pausing_again_goes_from_memory_to_the_disk_and_not_back(sandbox: Sandbox) -> None:
    sandbox.run_code("x = 5")
    sandbox.pause()
    assert sandbox.pause().rest.grade is PauseGrade.FROZEN
    assert sandbox.pause(to_disk=True).rest.grade is PauseGrade.DISK
    assert sandbox.pause().rest.grade is PauseGrade.DISK
    assert sandbox.run_code("x").text == "5"
    assert sandbox.resume().state is SandboxState.RUNNING, "a resume of what runs changes nothing"


def _over_http(sandbox: Sandbox, server: Server) -> str:
    return server.request("GET", f"/v1/sandboxes/{sandbox.id}/ports/8000/served")[1]


WAKERS: dict[str, Callable[[Sandbox, Server], object]] = {
    "run_code": lambda sandbox, _: sandbox.run_code("x").text == "7",
    "run_code_stream": lambda sandbox, _: list(_events_of(sandbox)),
    "exec": lambda sandbox, _: sandbox.exec("cat /tmp/served").stdout == "page",
    "background": lambda sandbox, _: sandbox.exec(["true"], background=True).wait() == 0,
    "processes": lambda sandbox, _: sandbox.processes(),
    "read": lambda sandbox, _: sandbox.files.read("/tmp/served") == "page",
    "write": lambda sandbox, _: sandbox.files.write("/tmp/written", "new"),
    "list": lambda sandbox, _: sandbox.files.list("/tmp"),
    "contexts": lambda sandbox, _: sandbox.contexts(),
    "port": lambda sandbox, server: _over_http(sandbox, server) == "page",
}


WAKERS_OF_DISK = ("run_code", "exec", "read", "port")


def _events_of(sandbox: Sandbox) -> Iterator[object]:
    with sandbox.run_code_stream("x") as events:
        yield from events


@with_memory
def test_using_a_paused_sandbox_resumes_it(server: Server, sandbox: Sandbox, grade: dict[str, Any]) -> None:
    sandbox.run_code("x = 7")
    sandbox.files.write("/tmp/served", "page")
    sandbox.exec("cd /tmp && exec python3 -m http.server 8000", background=True)
    eventually(lambda: _over_http(sandbox, server) == "page")
    for name, use in WAKERS.items():
        if grade and name not in WAKERS_OF_DISK:
            continue  # that each use asks for a running sandbox is seen with the quick grade
        sandbox.pause(**grade)
        assert use(sandbox, server), name
        assert sandbox.info().state is SandboxState.RUNNING, name


@every_grade
def test_looking_does_not_resume(server: Server, sandbox: Sandbox, grade: dict[str, Any]) -> None:
    sandbox.pause(**grade)
    sandbox.info()
    sandbox.events()
    sandbox.update(metadata={"a": "b"}, timeout_s=500)
    listed = list(Sandbox.list(state=["paused"], api_url=server.api_url, api_key=server.api_key))
    assert sandbox.id in [item.id for item in listed]
    assert sandbox.info().state is SandboxState.PAUSED
    assert sandbox.resume().expires_at is not None
    assert sandbox.info().metadata == {"a": "b"}
    assert happened(sandbox) == ["running", "paused", "running"]


@every_grade
def test_without_auto_resume_a_use_is_refused_with_words(server: Server, grade: dict[str, Any]) -> None:
    with server.sandbox(timeout=None, auto_resume=False) as sandbox:
        sandbox.pause(**grade)
        for use in (lambda: sandbox.run_code("1"), lambda: sandbox.exec(["true"]), lambda: sandbox.files.list("/")):
            with pytest.raises(SandboxNotRunning, match="it is paused; resume it first") as caught:
                use()
            assert caught.value.details["state"] == "paused"
        status, content = server.request("GET", f"/v1/sandboxes/{sandbox.id}/ports/8000/")
        assert (status, content["error"]["code"]) == (409, "sandbox.not_running")
        assert sandbox.info().state is SandboxState.PAUSED
        sandbox.resume()
        assert sandbox.run_code("2").text == "2"


def test_a_timeout_pauses_if_asked_to_and_each_resume_gives_as_much_again(server: Server) -> None:
    with server.sandbox(timeout=1.5, on_timeout="pause") as sandbox:
        sandbox.run_code("x = 3")
        eventually(lambda: sandbox.info().state is SandboxState.PAUSED)
        assert sandbox.info().end is None
        assert sandbox.run_code("x").text == "3"
        expires = sandbox.info().expires_at
        assert expires is not None
        assert (expires - datetime.now(UTC)).total_seconds() < 1.6
        eventually(lambda: sandbox.info().state is SandboxState.PAUSED)
        assert sandbox.resume(timeout=None).expires_at is None
        sandbox.pause()
        assert sandbox.resume().expires_at is None, "as it was given last"
        sandbox.pause()
        assert 90 < (sandbox.resume(timeout=100).expires_at - datetime.now(UTC)).total_seconds() < 101


def test_an_idle_timeout_pauses_if_asked_to(server: Server) -> None:
    with server.sandbox(timeout=None, idle_timeout=1, on_timeout="pause") as sandbox:
        sandbox.run_code("x = 4")
        eventually(lambda: sandbox.info().state is SandboxState.PAUSED)
        assert sandbox.exec(["sleep", "2"]).returncode == 0, "a request under way is use"
        eventually(lambda: sandbox.info().state is SandboxState.PAUSED)
        assert sandbox.run_code("x").text == "4"


def test_a_timeout_may_keep_the_files_only(server: Server) -> None:
    with server.sandbox(timeout=1, on_timeout="pause", keep_memory=False) as sandbox:
        sandbox.files.write("kept", "yes")
        rest = eventually(lambda: sandbox.info().rest)
        assert (rest.grade, rest.memory) == (PauseGrade.DISK, False)
        assert sandbox.files.read("kept") == "yes"


def test_a_killed_end_is_still_the_default(server: Server) -> None:
    sandbox = server.sandbox(timeout=1)
    assert eventually(lambda: sandbox.info().end).code is EndCode.TIMEOUT


def test_what_is_paused_in_memory_goes_to_the_disk_after_some_time(tmp_path: Path) -> None:
    settings = {"SKERRY_SUBNET": "10.226.0.0/16", "SKERRY_PAUSED_IN_MEMORY_S": "1", "SKERRY_POOL_MIN": "0"}
    server = Server(tmp_path / "data", settings=settings)
    try:
        sandbox = server.sandbox(timeout=None)
        sandbox.run_code("x = 8")
        assert sandbox.pause().rest.grade is PauseGrade.FROZEN
        eventually(lambda: sandbox.info().rest.grade is PauseGrade.DISK)
        assert sandbox.run_code("x").text == "8"
        sandbox.pause()
        server.stop()
        server.start()
        found = server.connect(sandbox.id)
        assert found.info().rest.grade is PauseGrade.DISK, "what is paused outlives its server"
        assert found.run_code("x").text == "8"
    finally:
        server.stop()


STATE_OF_ALL = """
import hashlib, os
def state():
    files = hashlib.sha256()
    for folder, folders, names in sorted(os.walk('/home/user/tree')):
        for name in sorted(names):
            files.update(name.encode() + open(os.path.join(folder, name), 'rb').read())
    return files.hexdigest(), hashlib.sha256(repr(sorted(data.items())).encode()).hexdigest(), bytes(blob[::4096]).hex()
"""


def _cycles(sandbox: Sandbox, count: int) -> None:
    sandbox.run_code(STATE_OF_ALL)
    sandbox.run_code("data, blob = {n: str(n) * n for n in range(500)}, bytearray(os.urandom(8 << 20))")
    sandbox.exec("mkdir -p tree/deep && for i in 1 2 3 4 5; do head -c 300000 /dev/urandom > tree/deep/$i; done")
    before = sandbox.run_code("state()").text
    for number in range(count):
        sandbox.pause(**(FROZEN if number % 2 else DISK))
        after = sandbox.run_code("state()")
        assert after.text == before, (number, after)
        sandbox.run_code(f"data[{number}] = 'changed'; open('/home/user/tree/{number}', 'w').write('n' * {number})")
        before = sandbox.run_code("state()").text


def test_six_pauses_change_nothing(sandbox: Sandbox) -> None:
    _cycles(sandbox, 6)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_fifty_pauses_change_nothing(sandbox: Sandbox) -> None:
    _cycles(sandbox, 50)


@every_grade
def test_many_resumes_at_once_are_one(sandbox: Sandbox, grade: dict[str, Any]) -> None:
    sandbox.run_code("x = 1")
    sandbox.pause(**grade)
    with ThreadPoolExecutor(12) as pool:
        resumes = [pool.submit(sandbox.resume) for _ in range(6)]
        uses = [pool.submit(sandbox.exec, ["echo", "used"]) for _ in range(6)]
        assert {future.result().state for future in resumes} == {SandboxState.RUNNING}
        assert {future.result().stdout for future in uses} == {"used\n"}
    assert happened(sandbox) == ["running", "paused", "running"]


# --- stop and start -------------------------------------------------------------------------------------------------


def test_a_stop_asks_processes_to_end_and_keeps_files(sandbox: Sandbox) -> None:
    sandbox.run_code("x = 1")
    sandbox.exec("trap 'echo asked > asked; exit' TERM; while :; do sleep 0.1; done", background=True)
    time.sleep(1)
    stopped = sandbox.stop()
    assert stopped.state is SandboxState.STOPPED
    assert stopped.rest is not None
    assert not stopped.rest.memory
    assert sandbox.stop().state is SandboxState.STOPPED
    with pytest.raises(SandboxNotRunning, match="it is stopped; start it first"):
        sandbox.exec(["true"])
    with pytest.raises(SandboxNotRunning):
        sandbox.resume()
    assert sandbox.start().state is SandboxState.RUNNING
    assert sandbox.start().state is SandboxState.RUNNING
    assert sandbox.files.read("asked") == "asked\n"
    assert sandbox.run_code("'x' in globals()").text == "False"
    assert happened(sandbox) == ["running", "stopped", "running"]


def test_what_does_not_end_when_asked_is_ended(sandbox: Sandbox) -> None:
    sandbox.exec("trap '' TERM; while :; do sleep 0.1; done", background=True)
    time.sleep(1)
    began = time.monotonic()
    sandbox.stop(grace=2)
    assert time.monotonic() - began >= 2, "it was given its time"
    sandbox.start()
    assert sandbox.processes() == []


@every_grade
def test_what_is_paused_can_be_stopped(sandbox: Sandbox, grade: dict[str, Any]) -> None:
    sandbox.run_code("x = 1; open('kept', 'w').write('yes')")
    sandbox.pause(**grade)
    assert sandbox.stop().state is SandboxState.STOPPED
    sandbox.start(timeout=None)
    assert sandbox.files.read("kept") == "yes"
    assert sandbox.run_code("'x' in globals()").text == "False"


def test_a_reset_forgets_the_files(sandbox: Sandbox) -> None:
    for before in (lambda: None, lambda: sandbox.pause(to_disk=True), lambda: sandbox.stop()):
        sandbox.files.write("new", "content")
        before()
        stopped = sandbox.stop(reset=True)
        assert (stopped.state, stopped.rest) == (SandboxState.STOPPED, None)
        sandbox.start()
        assert not sandbox.files.exists("new")


def test_a_reset_goes_back_to_the_snapshot_that_it_was_made_from(server: Server, sandbox: Sandbox) -> None:
    sandbox.files.write("of-the-snapshot", "yes")
    snapshot = sandbox.snapshot()
    with server.sandbox(snapshot=snapshot, timeout=None) as made:
        made.files.write("new", "content")
        made.stop(reset=True)
        made.start()
        assert made.files.exists("of-the-snapshot")
        assert not made.files.exists("new")


# --- the end --------------------------------------------------------------------------------------------------------


REST: dict[str, Callable[[Sandbox], object]] = {
    "running": lambda sandbox: None,
    "frozen": lambda sandbox: sandbox.pause(),
    "disk": lambda sandbox: sandbox.pause(to_disk=True),
    "files": lambda sandbox: sandbox.pause(keep_memory=False),
    "stopped": lambda sandbox: sandbox.stop(),
    "reset": lambda sandbox: sandbox.stop(reset=True),
}


@pytest.mark.parametrize("state", REST)
def test_kill_works_in_every_state(server: Server, state: str) -> None:
    sandbox = server.sandbox(timeout=None)
    REST[state](sandbox)
    sandbox.kill()
    assert sandbox.info().end.code is EndCode.KILLED
    sandbox.kill()
    for use in (sandbox.resume, sandbox.pause, sandbox.start, sandbox.stop, sandbox.snapshot, sandbox.fork):
        with pytest.raises(SandboxNotRunning):
            use()
    assert sandbox.info().state is SandboxState.DESTROYED


UNDER_WAY: dict[str, tuple[str, Callable[[Sandbox], object]]] = {
    "pause": ("running", lambda sandbox: sandbox.pause(to_disk=True)),
    "pause of the files": ("running", lambda sandbox: sandbox.pause(keep_memory=False)),
    "pause of what is frozen": ("frozen", lambda sandbox: sandbox.pause(to_disk=True)),
    "resume": ("disk", lambda sandbox: sandbox.resume()),
    "boot": ("files", lambda sandbox: sandbox.resume()),
    "use": ("disk", lambda sandbox: sandbox.exec(["true"])),
    "stop": ("running", lambda sandbox: sandbox.stop()),
    "long stop": ("running", lambda sandbox: _stubborn(sandbox).stop(grace=60)),
    "start": ("stopped", lambda sandbox: sandbox.start()),
    "snapshot": ("running", lambda sandbox: sandbox.snapshot()),
    "snapshot of what is frozen": ("frozen", lambda sandbox: sandbox.snapshot()),
    "fork": ("running", lambda sandbox: [copy.kill() for copy in sandbox.fork(2)]),
    "rollback": ("running", lambda sandbox: sandbox.rollback(sandbox.snapshot())),
}


def _stubborn(sandbox: Sandbox) -> Sandbox:
    sandbox.exec("trap '' TERM; while :; do sleep 0.1; done", background=True)
    return sandbox


@pytest.mark.parametrize("name", UNDER_WAY)
def test_kill_works_while_something_is_under_way(server: Server, name: str) -> None:
    state, change = UNDER_WAY[name]
    before = states(server)
    for delay_s in (0.05, 0.3):
        sandbox = server.sandbox(timeout=None)
        sandbox.run_code("blob = bytearray(b'x' * (64 << 20))")
        REST[state](sandbox)
        outcome: list[object] = []
        thread = threading.Thread(target=_note, args=(change, sandbox, outcome))
        thread.start()
        time.sleep(delay_s)
        sandbox.kill()
        assert sandbox.info().end.code is EndCode.KILLED
        thread.join(20)
        assert not thread.is_alive()
        [result] = outcome
        if isinstance(result, Exception):
            assert getattr(result, "code", repr(result)) in ("sandbox.not_running", "sandbox.lost"), result
        for snapshot in Snapshot.list(sandbox_id=sandbox.id, api_url=server.api_url, api_key=server.api_key):
            Snapshot.remove(snapshot, api_url=server.api_url, api_key=server.api_key)
        eventually(lambda: states(server) <= before)


def _note(change: Callable[[Sandbox], object], sandbox: Sandbox, outcome: list[object]) -> None:
    try:
        outcome.append(change(sandbox))
    except Exception as error:
        outcome.append(error)

"""Copies of sandboxes: snapshots, what is started from them, forks, the sandbox's own past."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from skerry import Sandbox, Snapshot
from skerry.errors import Conflict, Error, InvalidRequest, SnapshotNotFound
from skerry.models import PauseGrade, SandboxState
from skerry.models import Snapshot as SnapshotInfo

from .conftest import Server, eventually
from .test_state import happened, states

IDENTITY = """
import os, random, secrets, socket, uuid
import numpy
(socket.gethostname(), random.random(), secrets.token_hex(8), str(uuid.uuid4()), float(numpy.random.rand()))
"""


@pytest.fixture
def sandbox(server: Server) -> Iterator[Sandbox]:
    with server.sandbox(timeout=None, env={"GIVEN": "yes"}) as sandbox:
        yield sandbox
    for snapshot in snapshots(server, sandbox_id=sandbox.id):
        Snapshot.remove(snapshot, **access(server))


def access(server: Server) -> dict[str, str]:
    return {"api_url": server.api_url, "api_key": server.api_key}


def snapshots(server: Server, **which: str) -> list[SnapshotInfo]:
    return list(Snapshot.list(**which, **access(server)))


# --- snapshots ------------------------------------------------------------------------------------------------------


REST: dict[str, Callable[[Sandbox], Any]] = {
    "running": lambda sandbox: sandbox.info(),
    "frozen": lambda sandbox: sandbox.pause(),
    "disk": lambda sandbox: sandbox.pause(to_disk=True),
}


@pytest.mark.parametrize("state", REST)
@pytest.mark.parametrize("memory", [True, False], ids=["memory", "files"])
def test_a_snapshot_is_a_copy_and_the_sandbox_stays_as_it_is(
    server: Server, sandbox: Sandbox, state: str, memory: bool
) -> None:
    sandbox.run_code("x = 1; open('file', 'w').write('1')")
    before = REST[state](sandbox)
    snapshot = sandbox.snapshot(memory=memory)
    assert (snapshot.sandbox_id, snapshot.memory, snapshot.name) == (sandbox.id, memory, None)
    assert snapshot.size_mib > 0
    assert (snapshot.pause_s > 0) is (state != "disk")
    after = sandbox.info()
    assert (after.state, after.rest) == (before.state, before.rest)
    assert sandbox.run_code("x += 1; open('file', 'w').write('2'); x").text == "2"
    with server.sandbox(snapshot=snapshot, timeout=None) as copy:
        assert (copy.created.origin, copy.created.snapshot) == ("snapshot", snapshot.id)
        assert copy.files.read("file") == "1"
        assert copy.run_code("'x' in globals() and x").text == ("1" if memory else "False")
        assert copy.exec("echo $GIVEN").stdout == "yes\n"
        assert copy.run_code("import os; os.environ['GIVEN']").text == "'yes'"


def test_a_snapshot_of_what_is_stopped_has_its_files(server: Server, sandbox: Sandbox) -> None:
    sandbox.files.write("file", "content")
    sandbox.stop()
    snapshot = sandbox.snapshot("stopped")
    assert not snapshot.memory
    with server.sandbox(snapshot="stopped", timeout=None) as copy:
        assert copy.files.read("file") == "content"
    sandbox.start()
    assert sandbox.files.read("file") == "content"


def test_many_sandboxes_are_started_from_one_snapshot(server: Server, sandbox: Sandbox) -> None:
    sandbox.run_code("import random, numpy; random.seed(1); numpy.random.seed(1); x = 41")
    snapshot = sandbox.snapshot()
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: server.sandbox(snapshot=snapshot, timeout=None), range(4)))
        try:
            assert {copy.run_code("x + 1").text for copy in made} == {"42"}
            seen = [copy.run_code(IDENTITY).text for copy in (*made, sandbox)]
            for facts in zip(*(eval(text or "") for text in seen), strict=True):
                assert len(set(facts)) == len(seen), facts
        finally:
            list(pool.map(lambda copy: copy.kill(), made))


def test_a_name_means_the_newest_and_can_be_used_again(server: Server, sandbox: Sandbox) -> None:
    first = sandbox.snapshot("named")
    second = sandbox.snapshot("named")
    assert Snapshot.get("named", **access(server)).id == second.id
    assert Snapshot.get(first.id, **access(server)).name is None
    assert [item.id for item in snapshots(server, sandbox_id=sandbox.id)] == [second.id, first.id]
    assert [item.id for item in snapshots(server, name="named")] == [second.id]
    Snapshot.remove("named", **access(server))
    with pytest.raises(SnapshotNotFound, match="'named'"):
        server.sandbox(snapshot="named")
    assert sandbox.snapshot("named").name == "named"
    with pytest.raises(InvalidRequest):
        sandbox.snapshot("no/such name")


def test_a_removed_snapshot_leaves_nothing_and_harms_nobody(server: Server, sandbox: Sandbox) -> None:
    before = states(server)
    sandbox.run_code("x = 9")
    snapshot = sandbox.snapshot()
    outcome: list[Any] = []

    def make() -> None:
        try:
            outcome.append(server.sandbox(snapshot=snapshot, timeout=None))
        except Error as error:
            outcome.append(error)

    threads = [threading.Thread(target=make) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.15)
    Snapshot.remove(snapshot, **access(server))
    for thread in threads:
        thread.join()
    for made in outcome:
        if isinstance(made, Error):
            assert isinstance(made, SnapshotNotFound)  # it came too late
        else:
            assert made.run_code("x").text == "9"
            made.kill()
    eventually(lambda: states(server) <= before)
    with pytest.raises(SnapshotNotFound):
        Snapshot.remove(snapshot, **access(server))


def test_limits_come_from_the_snapshot_unless_others_are_asked_for(server: Server) -> None:
    with server.sandbox(timeout=None, memory=700, disk=300) as sandbox:
        snapshot = sandbox.snapshot()
    with server.sandbox(snapshot=snapshot, cpu=0.5) as copy:
        limits = copy.info().limits
        assert (limits.cpu, limits.memory_mib, limits.disk_mib) == (0.5, 700, 300)
    with pytest.raises(InvalidRequest, match="300 MiB"):
        server.sandbox(snapshot=snapshot, disk=400)
    Snapshot.remove(snapshot, **access(server))


def test_what_is_written_in_order_is_kept_in_order(server: Server, sandbox: Sandbox) -> None:
    """Each number goes to the first file, then to the second, each time to the disk: the second is never ahead."""
    sandbox.files.write(
        "pairs.py",
        "import os\n"
        "one, two = (os.open(name, os.O_CREAT | os.O_WRONLY) for name in ('one', 'two'))\n"
        "number = 0\n"
        "while True:\n"
        "    number += 1\n"
        "    for file in (one, two):\n"
        "        os.pwrite(file, b'%016d' % number * 4096, 0)\n"
        "        os.fsync(file)\n",
    )
    sandbox.exec(["python3", "pairs.py"], background=True)
    eventually(lambda: sandbox.files.exists("two"))
    for memory in (False, True, False, True):
        time.sleep(0.3)
        with server.sandbox(snapshot=sandbox.snapshot(memory=memory), timeout=None) as copy:
            if memory:
                for process in copy.processes():
                    if process.returncode is None:
                        process.kill()
            one, two = (copy.files.read(name) for name in ("one", "two"))
            newest, second = int(one[:16]), int(two[:16])
            assert 0 <= newest - second <= 1, (newest, second)
            if not memory:
                assert newest > 0


# --- forks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", REST)
def test_forks_run_apart_and_the_parent_stays_as_it_is(server: Server, sandbox: Sandbox, state: str) -> None:
    sandbox.run_code("import random, numpy; random.seed(1); numpy.random.seed(1); x = 1")
    sandbox.update(metadata={"family": "one"})
    before = REST[state](sandbox)
    copies = sandbox.fork(3)
    try:
        assert sandbox.info().state is before.state
        assert len({copy.id for copy in (*copies, sandbox)}) == 4
        for number, copy in enumerate(copies):
            assert copy.info().state is SandboxState.RUNNING
            assert copy.info().metadata == {"family": "one"}
            assert copy.run_code(f"x += {number + 1}; x").text == str(number + 2)
        seen = [copy.run_code(IDENTITY).text for copy in (*copies, sandbox)]
        for facts in zip(*(eval(text or "") for text in seen), strict=True):
            assert len(set(facts)) == len(seen), facts
        assert sandbox.run_code("x").text == "1"
        [grandchild] = copies[2].fork()
        assert grandchild.run_code("x").text == "4"
        grandchild.kill()
    finally:
        for copy in copies:
            copy.kill()


def test_a_fork_of_a_busy_sandbox_loses_nothing(sandbox: Sandbox) -> None:
    counting = "for n in range(1, 400):\n    print(n, flush=True)\n    time.sleep(0.01)"
    cell: list[str] = []
    lines: list[str] = []
    run = threading.Thread(
        target=lambda: sandbox.run_code("import time\n" + counting, on_stdout=cell.append), name="cell"
    )
    command = threading.Thread(
        target=lambda: sandbox.exec("for n in $(seq 1 80); do echo $n; sleep 0.01; done", on_stdout=lines.append),
        name="command",
    )
    for thread in (run, command):
        thread.start()
    eventually(lambda: cell and lines)
    copies = sandbox.fork(2)
    assert run.is_alive()
    assert command.is_alive()
    try:
        for copy in copies:
            assert [process.returncode for process in copy.processes() if "seq 1 80" in process.info.command[-1]]
            assert copy.exec(["echo", "usable"]).stdout == "usable\n"
    finally:
        for copy in copies:
            copy.kill()
    for thread in (run, command):
        thread.join(60)
        assert not thread.is_alive()
    assert "".join(cell) == "".join(f"{n}\n" for n in range(1, 400))
    assert "".join(lines) == "".join(f"{n}\n" for n in range(1, 81))


def test_a_busy_forks_interpreter_goes_on(sandbox: Sandbox) -> None:
    run = threading.Thread(target=lambda: sandbox.run_code("import time\nfor n in range(40): time.sleep(0.05)\ny = n"))
    run.start()
    time.sleep(1)
    [copy] = sandbox.fork()
    try:
        assert copy.run_code("y", timeout=30).text == "39", "it waits for what was under way, as in the parent"
    finally:
        copy.kill()
    run.join(30)
    assert sandbox.run_code("y").text == "39"


def test_a_forks_time_is_its_own(sandbox: Sandbox) -> None:
    [copy] = sandbox.fork(timeout=1)
    assert copy.info().timeout_s == 1
    assert eventually(lambda: copy.info().end) is not None
    assert sandbox.info().state is SandboxState.RUNNING


def test_a_fork_leaves_no_state_behind(server: Server, sandbox: Sandbox) -> None:
    before = states(server)
    for copy in sandbox.fork(2):
        copy.kill()
    eventually(lambda: states(server) <= before)
    assert happened(sandbox) == ["running", "forked"]


def test_impossible_numbers_of_forks_are_refused(sandbox: Sandbox) -> None:
    for count in (0, 101, -1):
        with pytest.raises(InvalidRequest):
            sandbox.fork(count)


# --- the sandbox's own past -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [True, False], ids=["memory", "files"])
@pytest.mark.parametrize("state", [*REST, "stopped"])
def test_a_rollback_brings_back_what_was(server: Server, sandbox: Sandbox, state: str, memory: bool) -> None:
    sandbox.run_code("x = 1; open('file', 'w').write('then')")
    snapshot = sandbox.snapshot("then", memory=memory)
    sandbox.run_code("x = 2; open('file', 'w').write('now'); open('more', 'w').write('new')")
    later = sandbox.exec(["sleep", "1000"], background=True)
    if state == "stopped":
        sandbox.stop(grace=0)
    else:
        REST[state](sandbox)
    rolled = sandbox.rollback("then")
    assert (rolled.id, rolled.state, rolled.snapshot) == (sandbox.id, SandboxState.RUNNING, snapshot.id)
    assert sandbox.files.read("file") == "then"
    assert not sandbox.files.exists("more")
    assert sandbox.run_code("'x' in globals() and x").text == ("1" if memory else "False")
    assert later.pid not in [process.pid for process in sandbox.processes() if process.returncode is None]
    sandbox.files.write("file", "again")
    sandbox.rollback(snapshot)
    assert sandbox.files.read("file") == "then", "as often as one likes"


def test_a_snapshot_of_another_sandbox_is_no_past(server: Server, sandbox: Sandbox) -> None:
    sandbox.run_code("x = 1")
    with server.sandbox() as other:
        foreign = other.snapshot()
        with pytest.raises(Conflict, match="start a new sandbox from it"):
            sandbox.rollback(foreign)
        Snapshot.remove(foreign, **access(server))
    with pytest.raises(SnapshotNotFound):
        sandbox.rollback("nosuch")
    assert sandbox.run_code("x").text == "1"


def test_a_rolled_back_sandbox_can_rest_again(sandbox: Sandbox) -> None:
    sandbox.run_code("x = 1")
    snapshot = sandbox.snapshot()
    for _ in range(2):
        sandbox.run_code("x += 1")
        sandbox.rollback(snapshot)
        assert sandbox.pause(to_disk=True).rest.grade is PauseGrade.DISK
        assert sandbox.run_code("x").text == "1"

"""What is kept of sandboxes, when things go wrong: files that were changed, no room, no way to save, another engine."""

import json
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from skerry import Sandbox, Snapshot
from skerry.errors import CannotSnapshot, HostFull, SnapshotDamaged, SnapshotIncompatible
from skerry.models import PauseGrade, SandboxState

from .conftest import Server, eventually


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"SKERRY_SUBNET": "10.221.0.0/16", "SKERRY_POOL_MIN": "1"}
    server = Server(tmp_path_factory.mktemp("trouble") / "data", settings=settings)
    yield server
    assert server.stop() == 0


@pytest.fixture
def sandbox(own_server: Server) -> Iterator[Sandbox]:
    with own_server.sandbox(timeout=None) as sandbox:
        yield sandbox


def state_of(server: Server, sandbox: Sandbox) -> Path:
    """The directory of what is kept of a sandbox, once its digest is known."""

    def kept() -> str | None:
        with sqlite3.connect(f"file:{server.data_dir / 'skerry.db'}?mode=ro", uri=True) as database:
            rows = database.execute("SELECT internal FROM sandboxes WHERE id = ?", (sandbox.id,)).fetchall()
        state = json.loads(rows[0][0]).get("kept") or {}
        return state["id"] if state.get("seal") else None

    return server.data_dir / "states" / eventually(kept)


def _copy(source: Path, target: Path) -> None:
    """With its holes: a disk is a file of gigabytes of which little is written."""
    subprocess.run(["cp", "-a", "--sparse=always", source, target], check=True)


# --- what is not what was written -----------------------------------------------------------------------------------


def _cut_short(state: Path) -> None:
    os.truncate(state / "disk.img", (state / "disk.img").stat().st_size // 2)


def _one_byte(state: Path) -> None:
    [pages] = [path for path in (state / "checkpoint").iterdir() if path.stat().st_size > 1 << 20][:1]
    with pages.open("r+b") as file:
        file.seek(pages.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def _another_disk(state: Path) -> None:
    with (state / "disk.img").open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(4096))


def _a_part_gone(state: Path) -> None:
    (state / "disk.img").unlink()


def _no_description(state: Path) -> None:
    (state / "state.json").unlink()


def _nonsense(state: Path) -> None:
    (state / "state.json").write_text('{"image": ["../../etc"], "format": 1, "surprise": true}')


def _of_the_future(state: Path) -> None:
    (state / "state.json").write_text(json.dumps(json.loads((state / "state.json").read_text()) | {"format": 99}))


def _one_more_file(state: Path) -> None:
    (state / "checkpoint" / "more").write_bytes(b"x")


def _all_gone(state: Path) -> None:
    shutil.rmtree(state)


@pytest.mark.parametrize(
    "harm",
    [_cut_short, _one_byte, _another_disk, _a_part_gone, _no_description, _nonsense, _of_the_future, _one_more_file,
     _all_gone],
    ids=lambda harm: harm.__name__.strip("_"),
)  # fmt: skip
def test_what_was_changed_is_refused_and_the_sandbox_stays_paused(
    own_server: Server, sandbox: Sandbox, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    sandbox.run_code("x = 1")
    before = sandbox.pause(to_disk=True)
    state = state_of(own_server, sandbox)
    _copy(state, tmp_path / "whole")
    harm(state)
    for use in (sandbox.resume, lambda: sandbox.exec(["true"]), lambda: sandbox.resume(keep_memory=False)):
        with pytest.raises(SnapshotDamaged):
            use()
        assert sandbox.info() == before
    shutil.rmtree(state, ignore_errors=True)
    _copy(tmp_path / "whole", state)
    assert sandbox.run_code("x").text == "1", "what is whole again is used"


def test_what_is_of_another_sandbox_is_refused(own_server: Server, sandbox: Sandbox) -> None:
    with own_server.sandbox(timeout=None) as other:
        for paused in (sandbox, other):
            paused.pause(to_disk=True)
        one, two = state_of(own_server, sandbox), state_of(own_server, other)
        aside = one.with_name(".aside")
        one.rename(aside)
        two.rename(one)
        aside.rename(two)
        for paused in (sandbox, other):
            with pytest.raises(SnapshotDamaged):
                paused.resume()
        one.rename(aside)
        two.rename(one)
        aside.rename(two)
        assert sandbox.resume().state is SandboxState.RUNNING


def test_a_damaged_snapshot_starts_nothing_and_rolls_nothing_back(own_server: Server, sandbox: Sandbox) -> None:
    sandbox.run_code("x = 1")
    before = {path.name for path in (own_server.data_dir / "states").iterdir()}
    snapshot = sandbox.snapshot("damaged")
    [state] = [path for path in (own_server.data_dir / "states").iterdir() if path.name not in before]
    _cut_short(state)
    with pytest.raises(SnapshotDamaged):
        own_server.sandbox(snapshot=snapshot)
    with pytest.raises(SnapshotDamaged):
        sandbox.rollback("damaged")
    assert sandbox.run_code("x").text == "1"
    Snapshot.remove("damaged", api_url=own_server.api_url, api_key=own_server.api_key)


def test_a_damaged_sandbox_can_be_killed_and_reset(own_server: Server, sandbox: Sandbox) -> None:
    sandbox.pause(to_disk=True)
    _cut_short(state_of(own_server, sandbox))
    sandbox.stop(reset=True)
    assert sandbox.start().state is SandboxState.RUNNING
    sandbox.pause(to_disk=True)
    _all_gone(state_of(own_server, sandbox))
    sandbox.kill()
    assert sandbox.info().state is SandboxState.DESTROYED


# --- what cannot be saved -------------------------------------------------------------------------------------------


def test_a_deleted_file_in_use_is_named_and_the_sandbox_goes_on(own_server: Server, sandbox: Sandbox) -> None:
    sandbox.run_code(
        "import os\nheld = open('/home/user/held', 'w+')\nheld.write('content')\nos.unlink('/home/user/held')"
    )
    for keep in (sandbox.snapshot, lambda: sandbox.pause(to_disk=True), sandbox.fork):
        with pytest.raises(CannotSnapshot, match="/home/user/held, which was deleted"):
            keep()
        assert sandbox.info().state is SandboxState.RUNNING
        assert sandbox.run_code("held.seek(0); held.read()").text == "'content'"
    assert sandbox.pause().rest.grade is PauseGrade.FROZEN, "memory that stays needs no saving"
    with pytest.raises(CannotSnapshot):
        sandbox.pause(to_disk=True)
    assert sandbox.info().rest.grade is PauseGrade.FROZEN
    assert sandbox.run_code("held.seek(0); held.read()").text == "'content'"
    access = {"api_url": own_server.api_url, "api_key": own_server.api_key}
    Snapshot.remove(sandbox.snapshot(memory=False), **access)
    sandbox.run_code("held.close()")
    Snapshot.remove(sandbox.snapshot(), **access)


# --- no room --------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Server]:
    """A server whose data directory is a small file system of its own."""
    image, data = tmp_path / "small.ext4", tmp_path / "small"
    data.mkdir()
    with image.open("wb") as file:
        file.truncate(700 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-F", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, data], check=True)
    try:
        server = Server(data / "data", settings={"SKERRY_SUBNET": "10.222.0.0/16", "SKERRY_POOL_MIN": "0"})
        yield server
        server.stop()
    finally:
        subprocess.run(["umount", "-l", data], check=True)


def _fill(file: Path, leave_mib: int) -> None:
    free = shutil.disk_usage(file.parent).free
    with file.open("wb", buffering=0) as writer, suppress(OSError):
        os.posix_fallocate(writer.fileno(), 0, max(free - (leave_mib << 20), 1))


def test_a_full_disk_refuses_what_needs_room_and_the_sandbox_goes_on(small: Server) -> None:
    sandbox = small.sandbox(timeout=None)
    sandbox.run_code("import os; x = 1; blob = os.urandom(200 << 20)")
    filler = small.data_dir.parent / "filler"
    _fill(filler, 60)
    before = sorted(path.name for path in (small.data_dir / "states").iterdir())
    for keep in (sandbox.snapshot, lambda: sandbox.pause(to_disk=True), lambda: sandbox.fork(2)):
        with pytest.raises(HostFull) as caught:
            keep()
        assert caught.value.retryable
        assert sandbox.info().state is SandboxState.RUNNING
        assert sandbox.run_code("x, len(blob) >> 20").text == "(1, 200)"
        assert sorted(path.name for path in (small.data_dir / "states").iterdir()) == before, "nothing half written"
    assert sandbox.pause().rest.grade is PauseGrade.FROZEN
    with pytest.raises(HostFull):
        sandbox.pause(to_disk=True)
    assert sandbox.run_code("x").text == "1"
    filler.unlink()
    assert sandbox.pause(to_disk=True).rest.grade is PauseGrade.DISK
    assert sandbox.run_code("x, len(blob) >> 20").text == "(1, 200)"
    sandbox.kill()


# --- another engine -------------------------------------------------------------------------------------------------


def test_memory_of_another_version_of_the_engine_is_refused_and_the_files_are_not(tmp_path: Path) -> None:
    """The first server's runsc calls itself older than it is."""
    real = shutil.which("runsc")
    assert real is not None
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "runsc").write_text(
        f'#!/bin/sh\n[ "$*" = --version ] && {{ echo "runsc version 0.0~20240729.9"; exit; }}\nexec {real} "$@"\n'
    )
    (tools / "runsc").chmod(0o755)
    older = {"PATH": f"{tools}:{os.environ['PATH']}"}
    settings = {"SKERRY_SUBNET": "10.224.0.0/16", "SKERRY_POOL_MIN": "0"}
    server = Server(tmp_path / "data", settings={**settings, **older})
    try:
        sandbox = server.sandbox(timeout=None)
        sandbox.run_code("x = 1; open('/home/user/kept', 'w').write('content')")
        snapshot = sandbox.snapshot()
        sandbox.pause(to_disk=True)
    finally:
        server.stop()
    server = Server(tmp_path / "data", settings=settings)
    try:
        found = server.connect(sandbox.id)
        with pytest.raises(SnapshotIncompatible, match="keep_memory=false"):
            found.resume()
        with pytest.raises(SnapshotIncompatible):
            server.sandbox(snapshot=snapshot)
        assert found.info().state is SandboxState.PAUSED
        found.resume(keep_memory=False)
        assert found.files.read("/home/user/kept") == "content"
        found.kill()
    finally:
        server.stop()


# --- time passes ----------------------------------------------------------------------------------------------------


def test_what_rests_outlives_its_server(tmp_path: Path) -> None:
    server = Server(tmp_path / "data", settings={"SKERRY_SUBNET": "10.225.0.0/16", "SKERRY_POOL_MIN": "0"})
    try:
        frozen, written, stopped = (server.sandbox(timeout=None) for _ in range(3))
        for number, sandbox in enumerate((frozen, written, stopped)):
            sandbox.run_code(f"x = {number}; open('/home/user/kept', 'w').write('{number}')")
        snapshot = written.snapshot("kept")
        frozen.pause()
        written.pause(to_disk=True)
        stopped.stop()
        server.stop()
        server.start()
        states = [server.connect(sandbox.id).info().state for sandbox in (frozen, written, stopped)]
        assert states == [SandboxState.PAUSED, SandboxState.PAUSED, SandboxState.STOPPED]
        assert server.connect(frozen.id).run_code("x").text == "0"
        assert server.connect(written.id).run_code("x").text == "1"
        assert server.connect(stopped.id).start().state is SandboxState.RUNNING
        assert server.connect(stopped.id).files.read("/home/user/kept") == "2"
        assert server.sandbox(snapshot=snapshot).run_code("x").text == "1"
        time.sleep(0.1)
    finally:
        server.stop()

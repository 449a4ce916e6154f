"""Control groups of this machine, with ordinary processes in them."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from skerry.host import cgroups
from skerry.host.cgroups import ControlGroups
from skerry.models import Limits

LIMITS = Limits(cpu=1.5, memory_mib=64, disk_mib=64, pids=10)
MOUNT = Path("/sys/fs/cgroup")
UNIFIED = next((path for path in (MOUNT, MOUNT / "unified") if (path / "cgroup.controllers").exists()), None)
HYBRID = (MOUNT / "memory").is_dir()


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()  # unread: what the process forked may still hold the other end


def enter(entries: list[Path], script: str, started: list[subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    """A Python process that goes into the group, says so, and runs the script."""
    code = f"import os, sys\nfor f in {[str(path) for path in entries]!r}:\n    open(f, 'w').write(str(os.getpid()))\n"
    code += f"print('in', flush=True)\n{script}"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    started.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == b"in\n"
    return process


COUNT = "n = 0\nwhile True:\n    n += 1"


@pytest.fixture
def groups() -> Iterator[ControlGroups]:
    groups = ControlGroups(f"skerry-test/th{secrets.token_hex(3)}")
    yield groups
    for name in groups.names():
        groups.kill(name)
        groups.remove(name)
    groups.remove_root()
    assert groups.names() == []


def test_groups_are_made_named_and_removed(groups: ControlGroups) -> None:
    for name in ("b", "a"):
        groups.create(name, LIMITS)
    assert groups.names() == ["a", "b"]
    with pytest.raises(FileExistsError):
        groups.create("a", LIMITS)
    entries = groups.entry_files("a")
    assert entries
    assert all(entry.is_file() for entry in entries)
    groups.remove("a")
    groups.remove("a")
    assert groups.names() == ["b"]
    assert not any(entry.parent.exists() for entry in entries)
    with pytest.raises(FileNotFoundError):
        groups.usage("a")
    groups.kill("a")
    assert groups.pids("a") == []


def test_groups_made_inside_are_removed_too(groups: ControlGroups) -> None:
    groups.create("a", LIMITS)
    for entry in groups.entry_files("a"):
        (entry.parent / "deep" / "deeper").mkdir(parents=True)
    groups.remove("a")
    assert groups.names() == []


def test_use_is_counted(groups: ControlGroups, started: list[subprocess.Popen[bytes]]) -> None:
    groups.create("a", LIMITS)
    process = enter(
        groups.entry_files("a"),
        "sum(range(3_000_000)); print('done', flush=True); import time; time.sleep(60)",
        started,
    )
    assert process.stdout is not None
    process.stdout.readline()
    usage = groups.usage("a")
    assert usage.cpu_used_s > 0
    assert usage.memory_bytes > 0
    assert usage.memory_peak_bytes is None or usage.memory_peak_bytes >= usage.memory_bytes
    assert (usage.pids, usage.oom_kills) == (1, 0)
    assert groups.pids("a") == [process.pid]


def test_too_much_memory_is_killed_and_counted(groups: ControlGroups, started: list[subprocess.Popen[bytes]]) -> None:
    groups.create("a", LIMITS)
    size = (LIMITS.memory_mib + cgroups.MEMORY_OVERHEAD_MIB + 64) * 1024 * 1024
    process = enter(groups.entry_files("a"), f"b'x' * {size}", started)
    assert process.wait(10) == -9
    assert groups.usage("a").oom_kills >= 1  # version 2 counts a process of a group that goes as a whole twice


def test_no_more_processes_than_allowed(
    groups: ControlGroups, started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroups, "PIDS_OVERHEAD", 0)
    monkeypatch.setattr(cgroups, "HOST_THREADS_PER_PID", 1)
    groups.create("a", LIMITS)
    script = """
children = []
try:
    while len(children) < 50:
        pid = os.fork()
        if not pid:
            import signal
            signal.pause()
        children.append(pid)
except BlockingIOError:
    pass
print(len(children), flush=True)
for pid in children:
    os.kill(pid, 9)
"""
    process = enter(groups.entry_files("a"), script, started)
    assert process.stdout is not None
    assert process.stdout.readline() == b"%d\n" % (LIMITS.pids - 1)


def test_limits_change_both_ways(groups: ControlGroups, started: list[subprocess.Popen[bytes]]) -> None:
    groups.create("a", LIMITS)
    groups.set_limits("a", LIMITS.model_copy(update={"memory_mib": 512, "cpu": 0.5}))
    process = enter(groups.entry_files("a"), "b'x' * (256 * 1024 * 1024); print('fits', flush=True)", started)
    assert process.stdout is not None
    assert process.stdout.readline() == b"fits\n"
    process.wait(10)
    groups.set_limits("a", LIMITS)
    process = enter(groups.entry_files("a"), "b'x' * (256 * 1024 * 1024)", started)
    assert process.wait(10) == -9


def test_a_frozen_group_stands_still_and_goes_on(groups: ControlGroups, started: list[subprocess.Popen[bytes]]) -> None:
    groups.create("a", LIMITS)
    process = enter(groups.entry_files("a"), COUNT, started)
    groups.freeze("a")
    before = cpu_ticks(process.pid)
    for _ in range(5):
        sum(range(200_000))
    assert cpu_ticks(process.pid) == before
    groups.thaw("a")
    while cpu_ticks(process.pid) == before:
        pass


def test_a_frozen_group_can_be_killed(groups: ControlGroups, started: list[subprocess.Popen[bytes]]) -> None:
    groups.create("a", LIMITS)
    process = enter(groups.entry_files("a"), "for _ in range(3):\n    os.fork()\n" + COUNT, started)
    groups.freeze("a")
    groups.kill("a")
    assert process.wait(10) == -9
    groups.remove("a")
    assert groups.names() == []


def test_what_forks_without_end_is_killed(groups: ControlGroups, started: list[subprocess.Popen[bytes]]) -> None:
    groups.create("a", LIMITS)
    process = enter(groups.entry_files("a"), "while True:\n    if os.fork():\n        os._exit(0)", started)
    process.wait(10)
    groups.kill("a")
    groups.remove("a")
    assert groups.names() == []


def test_a_missing_group_has_no_limits_to_set(groups: ControlGroups) -> None:
    with pytest.raises(FileNotFoundError):
        groups.set_limits("none", LIMITS)
    assert groups.names() == []


# What a machine does not have is not there to be tested.
if HYBRID:

    def test_v1_holds_memory_with_swap(groups: ControlGroups) -> None:
        assert groups.version == 1
        groups.create("a", LIMITS)
        memory = next(entry.parent for entry in groups.entry_files("a") if entry.is_relative_to(MOUNT / "memory"))
        wanted = (LIMITS.memory_mib + cgroups.MEMORY_OVERHEAD_MIB) * 1024 * 1024
        for file in memory.glob("memory*limit_in_bytes"):
            if file.name in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"):
                assert int(file.read_text()) == wanted


if UNIFIED is not None:

    def test_v2_freezes_kills_and_removes(started: list[subprocess.Popen[bytes]]) -> None:
        assert UNIFIED is not None
        name = f"skerry-th{secrets.token_hex(3)}"
        # The controllers may all be with v1, so the group is made by hand; its core files are there in any case.
        groups = ControlGroups(name, UNIFIED)
        try:
            assert groups.version == 2
            (UNIFIED / name / "a" / "inner").mkdir(parents=True)
            process = enter([UNIFIED / name / "a" / "inner" / "cgroup.procs"], COUNT, started)
            groups.freeze("a")
            before = cpu_ticks(process.pid)
            sum(range(500_000))
            assert cpu_ticks(process.pid) == before
            groups.thaw("a")
            while cpu_ticks(process.pid) == before:
                pass
            groups.freeze("a")
            groups.kill("a")
            assert process.wait(10) == -9
            groups.remove("a")
            assert groups.names() == []
            groups.kill("a")
        finally:
            groups.remove_root()
        assert not (UNIFIED / name).exists()


def test_v2_files_say_the_limits(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "skerry", tmp_path / "skerry" / "th"):
        directory.mkdir(exist_ok=True)
        (directory / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
        (directory / "cgroup.subtree_control").touch()
    groups = ControlGroups("skerry/th", tmp_path)
    for directory in (tmp_path, tmp_path / "skerry", tmp_path / "skerry" / "th"):
        assert (directory / "cgroup.subtree_control").read_text() == "+memory +cpu +pids"
    group = tmp_path / "skerry" / "th" / "a"
    group.mkdir()
    expected = {
        "memory.max": str((64 + cgroups.MEMORY_OVERHEAD_MIB) * 1024 * 1024),
        "memory.swap.max": "0",
        "cpu.max": "150000 100000",
        "cpu.weight": str(cgroups.SANDBOX_WEIGHT),
        "pids.max": str(cgroups.PIDS_OVERHEAD + 10 * cgroups.HOST_THREADS_PER_PID),
    }
    for name in expected:
        (group / name).touch()
    groups.set_limits("a", LIMITS)
    assert {name: (group / name).read_text() for name in expected} == expected
    assert groups.entry_files("a") == [group / "cgroup.procs"]


def test_v2_counts(tmp_path: Path) -> None:
    group = tmp_path / "th" / "a"
    group.mkdir(parents=True)
    for directory in (tmp_path, tmp_path / "th"):
        (directory / "cgroup.controllers").write_text("")
    contents = {
        "cpu.stat": "usage_usec 2500000\nuser_usec 1\n", "memory.current": "4096\n", "pids.current": "3\n",
        "memory.events": "low 0\noom 2\noom_kill 1\n",
    }  # fmt: skip
    for name, content in contents.items():
        (group / name).write_text(content)
    groups = ControlGroups("th", tmp_path)
    assert groups.usage("a") == cgroups.Usage(2.5, 4096, None, 3, 1)
    (group / "memory.peak").write_text("8192\n")
    assert groups.usage("a").memory_peak_bytes == 8192


def cpu_ticks(pid: int) -> int:
    """CPU time a process has used, in the kernel's ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_the_server_weighs_more_and_leaves_nothing() -> None:
    name = f"skerry-test/th{secrets.token_hex(3)}"
    # In a process of its own: it moves itself.
    script = f"""
import os
from skerry.host.cgroups import ControlGroups
groups = ControlGroups({name!r})
groups.protect_server()
assert {name!r} + "/server" in open("/proc/self/cgroup").read()
assert groups.names() == []
groups.remove_root()
assert {name!r} not in open("/proc/self/cgroup").read()
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=20, env={**os.environ})
    assert not list(MOUNT.glob(f"*/{name}"))

"""Control groups: what a sandbox may use of the host, and what it has used. cgroup v1 and v2.

One group for each sandbox below the server's own subtree. Everything is a read or a write of a small file, so the calls
are plain functions. The two versions differ in where the files lie and what they are called; `_V1` and `_V2` hold that
and nothing else.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from skerry.models import Limits

MEMORY_OVERHEAD_MIB = 64
"""Added to a sandbox's memory limit for the sentry and the gofer, so that the program gets what was asked for."""
PIDS_OVERHEAD = 256
"""Host threads of the sentry and the gofer themselves."""
HOST_THREADS_PER_PID = 8 + 2 * (os.cpu_count() or 1)
"""Host threads that one process of the guest may cost: systrap keeps a stub process for each, with a thread for each
core. Seven were measured on two cores. The guest's own limit is what a fork bomb shall meet: at this one, gVisor dies.
"""
SANDBOX_WEIGHT = 100
SERVER_WEIGHT = 1000

_PERIOD_US = 100_000
_MIB = 1024 * 1024
_MOUNT = Path("/sys/fs/cgroup")
_REMOVE_TIMEOUT_S = 5.0
_FREEZE_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Usage:
    """What a group has used, by the kernel's count."""

    cpu_used_s: float
    memory_bytes: int
    memory_peak_bytes: int | None
    pids: int
    oom_kills: int


class ControlGroups:
    """The control groups of one server.

    Args:
        root: path below the hierarchies' mount point, such as `skerry/<instance>`; made when missing.
        mount: where the hierarchies are mounted.

    Raises:
        OSError: the root group cannot be made.
    """

    def __init__(self, root: str, mount: Path = _MOUNT) -> None:
        self._version: _Version = _V1(mount) if (mount / "memory").is_dir() else _V2(mount)
        self._root = root
        self._version.prepare(root)

    @property
    def version(self) -> int:
        return self._version.number

    def create(self, name: str, limits: Limits) -> None:
        """Make the group with its limits. Raises FileExistsError, OSError."""
        path = f"{self._root}/{name}"
        for directory in self._version.directories(path):
            directory.mkdir()
        self.set_limits(name, limits)

    def set_limits(self, name: str, limits: Limits) -> None:
        """Change the limits of a group, at once. Raises OSError."""
        self._version.set_limits(f"{self._root}/{name}", limits)

    def entry_files(self, name: str) -> list[Path]:
        """The files a process writes its pid to in order to be in the group."""
        return [directory / "cgroup.procs" for directory in self._version.directories(f"{self._root}/{name}")]

    def freeze(self, name: str) -> None:
        """Stop everything in the group; returns when it stands still, or after two seconds of trying."""
        self._version.set_frozen(f"{self._root}/{name}", True)

    def thaw(self, name: str) -> None:
        """Let it run again; returns when it does."""
        self._version.set_frozen(f"{self._root}/{name}", False)

    def usage(self, name: str) -> Usage:
        """Raises FileNotFoundError when there is no such group."""
        return self._version.usage(f"{self._root}/{name}")

    def pids(self, name: str) -> list[int]:
        """Processes in the group, as the host numbers them."""
        path = self._version.directories(f"{self._root}/{name}")[0] / "cgroup.procs"
        with suppress(FileNotFoundError, OSError):
            return [int(pid) for pid in path.read_text().split()]
        return []

    def kill(self, name: str) -> None:
        """SIGKILL for everything in the group, thawed so that it can die. No-op when there is no such group."""
        with suppress(FileNotFoundError):
            self._version.kill(f"{self._root}/{name}")

    def remove(self, name: str) -> None:
        """Remove the group and those that were made in it; waits while the kernel counts a dying task.

        Raises:
            OSError: something in it is still alive after five seconds.
        """
        for directory in self._version.directories(f"{self._root}/{name}"):
            _remove_tree(directory)

    def names(self) -> list[str]:
        """Groups below the root."""
        found: set[str] = set()
        for directory in self._version.directories(self._root):
            with suppress(FileNotFoundError):
                found.update(entry.name for entry in directory.iterdir() if entry.is_dir())
        return sorted(found - {_SERVER})

    def protect_server(self) -> None:
        """Put this process into a group of its own that weighs ten times a sandbox: a busy machine stays answerable."""
        path = f"{self._root}/{_SERVER}"
        directories = self._version.server_directories(path)
        for directory in directories:
            directory.mkdir(parents=True, exist_ok=True)
        self._version.set_weight(path, SERVER_WEIGHT)
        for directory in directories:
            _write(directory / "cgroup.procs", str(os.getpid()))

    def remove_root(self) -> None:
        """Remove the whole subtree, when nothing but this process is in it: it goes back to where all groups hang."""
        for directory in self._version.server_directories(f"{self._root}/{_SERVER}"):
            with suppress(OSError):
                _write(self._version.top(directory) / "cgroup.procs", str(os.getpid()))
        for directory in self._version.directories(self._root):
            with suppress(OSError):
                _remove_tree(directory)
            with suppress(OSError):
                directory.parent.rmdir()


_SERVER = "server"


class _Version(Protocol):
    number: int

    def prepare(self, path: str) -> None: ...
    def directories(self, path: str) -> list[Path]: ...
    def server_directories(self, path: str) -> list[Path]: ...
    def top(self, directory: Path) -> Path: ...
    def set_limits(self, path: str, limits: Limits) -> None: ...
    def set_weight(self, path: str, weight: int) -> None: ...
    def set_frozen(self, path: str, frozen: bool) -> None: ...
    def usage(self, path: str) -> Usage: ...
    def kill(self, path: str) -> None: ...


class _V1:
    """One hierarchy for each controller; weights are `cpu.shares`."""

    number = 1
    _controllers = ("memory", "cpu", "cpuacct", "pids", "freezer")

    def __init__(self, mount: Path) -> None:
        self._mount = mount

    def prepare(self, path: str) -> None:
        for directory in self.directories(path):
            directory.mkdir(parents=True, exist_ok=True)

    def directories(self, path: str) -> list[Path]:
        found: dict[Path, None] = {}
        for controller in self._controllers:
            found[(self._mount / controller).resolve() / path] = None  # cpu and cpuacct are often one
        return list(found)

    def server_directories(self, path: str) -> list[Path]:
        return [self._mount / "cpu" / path]

    def top(self, directory: Path) -> Path:
        return self._mount / "cpu"

    def set_limits(self, path: str, limits: Limits) -> None:
        memory = self._mount / "memory" / path
        wanted = (limits.memory_mib + MEMORY_OVERHEAD_MIB) * _MIB
        # memory + swap may never be the smaller one, so which is written first depends on the direction.
        names = ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]
        growing = int((memory / names[0]).read_text()) < wanted
        for name in reversed(names) if growing else names:
            if (memory / name).exists():
                _write(memory / name, str(wanted))
        _write(self._mount / "cpu" / path / "cpu.cfs_period_us", str(_PERIOD_US))
        _write(self._mount / "cpu" / path / "cpu.cfs_quota_us", str(int(limits.cpu * _PERIOD_US)))
        self.set_weight(path, SANDBOX_WEIGHT)
        _write(self._mount / "pids" / path / "pids.max", str(_host_pids(limits)))

    def set_weight(self, path: str, weight: int) -> None:
        _write(self._mount / "cpu" / path / "cpu.shares", str(weight * 1024 // 100))

    def set_frozen(self, path: str, frozen: bool) -> None:
        file = self._mount / "freezer" / path / "freezer.state"
        wanted = "FROZEN" if frozen else "THAWED"

        def reached() -> bool:
            # A task that is just being created can keep the state at FREEZING; writing again helps it on.
            _write(file, wanted)
            return file.read_text().strip() == wanted

        _until(reached)

    def usage(self, path: str) -> Usage:
        memory = self._mount / "memory" / path
        return Usage(
            cpu_used_s=_number(self._mount / "cpuacct" / path / "cpuacct.usage") / 1e9,
            memory_bytes=_number(memory / "memory.usage_in_bytes"),
            memory_peak_bytes=_number(memory / "memory.max_usage_in_bytes"),
            pids=_number(self._mount / "pids" / path / "pids.current"),
            oom_kills=_field(memory / "memory.oom_control", "oom_kill"),
        )

    def kill(self, path: str) -> None:
        file = self._mount / "memory" / path / "cgroup.procs"
        frozen = self._mount / "freezer" / path / "freezer.state"
        # The signal waits in a frozen task, so it is sent first and nothing runs in between.
        for _ in range(100):
            pids = file.read_text().split()
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            with suppress(FileNotFoundError):
                _write(frozen, "THAWED")
            if set(file.read_text().split()) <= set(pids):
                return  # nothing was forked while we were at it


class _V2:
    """One hierarchy; controllers are switched on for the children of each group on the way."""

    number = 2
    _controllers = ("memory", "cpu", "pids")

    def __init__(self, mount: Path) -> None:
        self._mount = mount

    def prepare(self, path: str) -> None:
        directory = self._mount
        for part in Path(path).parts:
            self._enable(directory)
            directory /= part
            directory.mkdir(exist_ok=True)
        self._enable(directory)

    def _enable(self, directory: Path) -> None:
        available = (directory / "cgroup.controllers").read_text().split()
        wanted = " ".join(f"+{name}" for name in self._controllers if name in available)
        if wanted:
            _write(directory / "cgroup.subtree_control", wanted)

    def directories(self, path: str) -> list[Path]:
        return [self._mount / path]

    def server_directories(self, path: str) -> list[Path]:
        return [self._mount / path]

    def top(self, directory: Path) -> Path:
        return self._mount

    def set_limits(self, path: str, limits: Limits) -> None:
        directory = self._mount / path
        _write(directory / "memory.max", str((limits.memory_mib + MEMORY_OVERHEAD_MIB) * _MIB))
        if (directory / "memory.oom.group").exists():
            # A sandbox of which a part was taken away is of no use: all of it goes, at once.
            _write(directory / "memory.oom.group", "1")
        if (directory / "memory.swap.max").exists():
            _write(directory / "memory.swap.max", "0")
        _write(directory / "cpu.max", f"{int(limits.cpu * _PERIOD_US)} {_PERIOD_US}")
        self.set_weight(path, SANDBOX_WEIGHT)
        _write(directory / "pids.max", str(_host_pids(limits)))

    def set_weight(self, path: str, weight: int) -> None:
        _write(self._mount / path / "cpu.weight", str(weight))

    def set_frozen(self, path: str, frozen: bool) -> None:
        directory = self._mount / path
        _write(directory / "cgroup.freeze", str(int(frozen)))
        _until(lambda: _field(directory / "cgroup.events", "frozen") == int(frozen))

    def usage(self, path: str) -> Usage:
        directory = self._mount / path
        peak = directory / "memory.peak"
        return Usage(
            cpu_used_s=_field(directory / "cpu.stat", "usage_usec") / 1e6,
            memory_bytes=_number(directory / "memory.current"),
            memory_peak_bytes=_number(peak) if peak.exists() else None,
            pids=_number(directory / "pids.current"),
            oom_kills=_field(directory / "memory.events", "oom_kill"),
        )

    def kill(self, path: str) -> None:
        _write(self._mount / path / "cgroup.kill", "1")
        _write(self._mount / path / "cgroup.freeze", "0")


def _host_pids(limits: Limits) -> int:
    return PIDS_OVERHEAD + HOST_THREADS_PER_PID * limits.pids


def _write(path: Path, value: str) -> None:
    """Control files are never created: `O_CREAT` would hide a missing controller on an ordinary file system."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(descriptor, value.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise OSError(error.errno, f"cannot set {path} to {value}: {os.strerror(error.errno or 0)}") from error


def _number(path: Path) -> int:
    return int(path.read_text())


def _field(path: Path, name: str) -> int:
    """The number after `name` in a file of `name number` lines; 0 when there is none."""
    for line in path.read_text().splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


def _until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _FREEZE_TIMEOUT_S
    while not done():
        if time.monotonic() > deadline:
            return
        time.sleep(0.0005)


def _remove_tree(directory: Path) -> None:
    try:
        children = [entry for entry in directory.iterdir() if entry.is_dir()]
    except FileNotFoundError:
        return
    for child in children:
        _remove_tree(child)
    deadline = time.monotonic() + _REMOVE_TIMEOUT_S
    while True:
        try:
            directory.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.005)
        else:
            return

"""gVisor: a sandbox is one `runsc` sentry (the guest's kernel, a host process) and its gofer.

Everything the driver keeps is below its state directory: `runsc/` (runsc's own state) and one bundle directory for each
sandbox. It holds nothing in memory, so a new server process can end a sandbox that an old one started.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import anyio
import anyio.to_thread

from skerry.drivers import launch, slack
from skerry.drivers.bundle import oci_config
from skerry.errors import CannotSnapshot, Error, HostFull, IsolationUnavailable, SandboxLost, SandboxStartFailed
from skerry.models import Isolation, Limits
from skerry.ports import Boot

MINIMUM_VERSION = 20240729
"""First release with systrap, directfs and a choice of checkpoint compression that we have tested."""

_INSTALL_HINT = (
    "install runsc ≥ 20240729: `apt install runsc` on Debian 13, `apt install -t bookworm-backports runsc` on Debian 12"
)

_FLAGS = (
    "--platform=systrap",
    "--network=sandbox",
    "--host-uds=open",  # the agent dials out through the socket in the link directory; nothing may be created
    "--overlay2=none",  # the root file system is already a size-limited overlay
    "--file-access=exclusive",
    "--directfs=true",
    "--ignore-cgroups",  # the node makes and enforces them
    "--net-raw=false",  # no crafted packets
    "--net-disconnect-ok=true",  # or memory with a connection to elsewhere could not be saved
)
_LOG_MAX = 1024 * 1024
_LOG_TAIL = 2000  # characters of runsc's log that an error carries
_DIALLING = "resetConnectionLocked"
"""In the log of a checkpoint that met a TCP connection which is just coming about: runsc cannot reset that one."""
_AGAIN_S = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Until such a checkpoint is tried again: the connection mostly stands by then, or has failed."""
_NO_ROOM = ("no space left on device", "disk quota exceeded")


class Gvisor:
    """`ports.Driver` for gVisor.

    Args:
        directory: the driver's state; short, because a Unix socket of runsc's lies in it.
        entry_files: the `cgroup.procs` files of a control group, by its name (`ControlGroups.entry_files`).
        runsc: the program; default: found by PATH.
    """

    isolation = Isolation.GVISOR

    def __init__(self, directory: Path, entry_files: Callable[[str], Sequence[Path]], *, runsc: str = "runsc") -> None:
        self._bundles = directory / "bundles"
        self._root = directory / "runsc"
        self._entry_files = entry_files
        self._runsc = runsc
        self._known: tuple[tuple[int, ...], str] | None = None
        """What the program looked like when it was asked last, and the version that it told."""
        for path in (self._bundles, self._root):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def check(self) -> None:
        """Raises IsolationUnavailable when runsc is missing, too old, or cannot start a sandbox's kernel here."""
        await self.version()

    async def version(self) -> str:
        """What `runsc --version` calls itself, for example `0.0~20240729.0`. It is asked again when it was replaced.

        Raises:
            IsolationUnavailable: it is missing or older than MINIMUM_VERSION.
        """
        program = shutil.which(self._runsc)
        if program is None:
            raise IsolationUnavailable(f"cannot use gVisor: {self._runsc} is not installed; {_INSTALL_HINT}")
        look = _look(program)
        if self._known is not None and self._known[0] == look:
            return self._known[1]
        reply = await anyio.run_process([program, "--version"], check=False, env=dict(launch.ENVIRONMENT))
        text = reply.stdout.decode(errors="replace")
        version = parse_version(text)
        if version is None or version[1] < MINIMUM_VERSION:
            found = version[0] if version else text.strip()[:200] or "a program that does not tell its version"
            raise IsolationUnavailable(f"cannot use gVisor: {program} is {found}; {_INSTALL_HINT}", found=found)
        self._known = look, version[0]
        return version[0]

    def traits(self) -> str:
        """See `ports.Driver.traits`: how a sandbox is set up, and what its programs were told of the processor."""
        limits = Limits(cpu=1, memory_mib=1, disk_mib=1, pids=1)
        boot = Boot("", Path(), "", "", Path(), Path(), Path(), limits, "")
        return json.dumps([_FLAGS, oci_config(boot), _processor()])

    async def boot(self, boot: Boot) -> int:
        """See `ports.Driver.boot`.

        Raises:
            SandboxStartFailed: details hold the end of runsc's log.
        """
        return await self._start(boot, "run")

    async def restore(self, boot: Boot, directory: Path) -> int:
        """See `ports.Driver.restore`. Raises SandboxStartFailed as `boot` does."""
        return await self._start(boot, "restore", f"--image-path={directory}")

    async def _start(self, boot: Boot, command: str, *options: str) -> int:
        bundle = self._bundles / boot.sandbox_id
        pid_file = bundle / "pid"
        bundle.mkdir(mode=0o700)
        try:
            (bundle / "config.json").write_text(json.dumps(oci_config(boot)))
            status = await launch.run(
                self._command(
                    boot.sandbox_id, command, "--detach", f"--bundle={bundle}", f"--pid-file={pid_file}", *options
                ),
                entry_files=self._entry_files(boot.cgroup),
                cwd=bundle,
            )
            if status != 0:
                raise self._failure(boot.sandbox_id, f"start sandbox {boot.sandbox_id}", status)
            return int(pid_file.read_text())
        except BaseException:
            self._kill_known(boot)
            self._forget(boot.sandbox_id)
            raise

    async def pause(self, sandbox_id: str) -> None:
        """See `ports.Driver.pause`."""
        await self._told(sandbox_id, "pause")

    async def resume(self, sandbox_id: str) -> None:
        """See `ports.Driver.resume`."""
        await self._told(sandbox_id, "resume")

    async def _told(self, sandbox_id: str, command: str) -> None:
        status = await launch.run(self._command(sandbox_id, command))
        if status != 0:
            raise SandboxLost(f"cannot {command} a sandbox: runsc ended with status {status}")

    async def checkpoint(self, sandbox_id: str, directory: Path, *, keep_running: bool) -> None:
        """See `ports.Driver.checkpoint`. Details of the error hold the end of runsc's log."""
        options = ["--compression=none", f"--image-path={directory}"]
        if keep_running:
            options.append("--leave-running")
        for delay_s in (*_AGAIN_S, None):
            await anyio.Path(directory).mkdir(mode=0o700, parents=True, exist_ok=True)
            before = self._log(sandbox_id)
            status = await launch.run(self._command(sandbox_id, "checkpoint", *options))
            if status == 0:
                return
            log = self._log(sandbox_id).removeprefix(before)  # without what was in the way of an earlier one
            if delay_s is None or _DIALLING not in log:
                raise _cannot_save(log)
            os.truncate(self._bundles / sandbox_id / "runsc.log", 0)
            await anyio.to_thread.run_sync(shutil.rmtree, directory)  # runsc refuses to write over what it has left
            await anyio.sleep(delay_s)

    async def destroy(self, sandbox_id: str) -> None:
        """See `ports.Driver.destroy`. Needs no runsc process: the sentry's death takes gofer and stubs with it, and
        what runsc leaves are its own state files."""
        pid_file = self._bundles / sandbox_id / "pid"
        with suppress(FileNotFoundError, ValueError):
            pid = int(pid_file.read_text())
            if _is_runsc(pid, sandbox_id):
                launch.kill(pid)
                await launch.wait_for_exit(pid)
        self._forget(sandbox_id)

    async def tidy(self) -> None:
        """See `ports.Driver.tidy`. The sentry logs warnings that a guest can provoke, without a limit of its own; it
        appends, so that a file cut short goes on from its new end."""
        for log in self._bundles.glob("*/runsc.log"):
            with suppress(FileNotFoundError):
                if log.stat().st_size > _LOG_MAX:
                    os.truncate(log, 0)

    def set_idle(self, pid: int, idle: bool) -> None:
        """See `ports.Driver.set_idle` and `slack`."""
        slack.set_slack(pid, slack.RELAXED_NS if idle else slack.PRECISE_NS)

    def sandbox_ids(self) -> list[str]:
        """Sandboxes of which anything is left here."""
        return [path.name for path in self._bundles.iterdir()]

    def _command(self, sandbox_id: str, command: str, *options: str) -> list[str]:
        log = f"--log={self._bundles / sandbox_id / 'runsc.log'}"
        return [self._runsc, f"--root={self._root}", log, *_FLAGS, command, *options, sandbox_id]

    def _kill_known(self, boot: Boot) -> None:
        """Kill what a failed or cancelled start left in its control group, which is nobody else's."""
        for path in self._entry_files(boot.cgroup)[:1]:
            with suppress(FileNotFoundError):
                for pid in path.read_text().split():
                    launch.kill(int(pid))

    def _forget(self, sandbox_id: str) -> None:
        for path in self._root.glob(f"*{sandbox_id}*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        shutil.rmtree(self._bundles / sandbox_id, ignore_errors=True)

    def _failure(self, sandbox_id: str, what: str, status: int) -> SandboxStartFailed:
        log = self._log(sandbox_id)[-_LOG_TAIL:]
        return SandboxStartFailed(f"cannot {what}: runsc ended with status {status}", log=log)

    def _log(self, sandbox_id: str) -> str:
        """What a failed checkpoint says begins with the reason, and goes on for long. `tidy` keeps it short."""
        try:
            return (self._bundles / sandbox_id / "runsc.log").read_text(errors="replace")
        except FileNotFoundError:
            return ""


def parse_version(text: str) -> tuple[str, int] | None:
    """The version in the output of `runsc --version`, whole and as its date (20240729); None when there is none."""
    found = re.search(r"runsc version (\S*?(\d{8})\S*)", text)
    return (found[1], int(found[2])) if found else None


def _cannot_save(log: str) -> Error:
    said = log[max(0, log.rfind("checkpoint failed")) :][:_LOG_TAIL]
    if any(words in log for words in _NO_ROOM):
        return HostFull("cannot write the sandbox's memory: the data directory has no room", log=said)
    return CannotSnapshot(f"cannot write the sandbox's memory: {obstacle(log)}", log=said)


def obstacle(log: str) -> str:
    """What is in the way of a checkpoint, as runsc's log tells it: releases before 2025 cannot save files that are
    deleted and still open, mapped, or somebody's working directory."""
    if _DIALLING in log:
        return "a TCP connection is being made and gets no answer; try again when it stands, or has failed"
    found = re.findall(r'gofer\.dentry\(\\?"([^"\\]+)\\?"\)\.beforeSave: deleted', log)
    if not found:
        return "the engine failed; details hold what it said"
    return f"a process still uses /{found[-1]}, which was deleted; end that process, or keep the files only"


def _look(program: str) -> tuple[int, ...]:
    stat = os.stat(program)
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


@cache
def _processor() -> list[str]:
    """Model and features of the first processor, as the host's kernel tells them. Asked once: the kernel writes a text
    for all of them, which takes long where there are many."""
    first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
    return [line for line in first if line.startswith(("model name", "flags", "Features", "CPU part"))]


def _is_runsc(pid: int, sandbox_id: str) -> bool:
    """Whether `pid` is a process of that sandbox: pids are reused."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return sandbox_id.encode() in arguments

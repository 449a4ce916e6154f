"""Starting a host program inside a sandbox's control group, and waiting for it without a thread or a pipe."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.to_thread

# The shell writes its own pid into every control group, then becomes the program: none of it runs outside its limits.
_ENTER_AND_EXEC = 'while [ "$1" != -- ]; do echo $$ > "$1" || exit 125; shift; done; shift; exec "$@"'

ENVIRONMENT: Mapping[str, str] = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
"""All that the programs we start see of the server's environment."""


async def run(command: Sequence[str], *, entry_files: Sequence[Path] = (), cwd: Path | None = None) -> int:
    """Run `command` to its end and return its exit status (negative: the signal).

    Its standard streams are /dev/null: what it leaves behind inherits them, and a pipe would never reach its end. When
    the caller is cancelled the program is killed; what it has started is the business of the control group's owner.
    """
    argv = list(command)
    if entry_files:
        argv = ["/bin/sh", "-c", _ENTER_AND_EXEC, "sh", *(str(path) for path in entry_files), "--", *argv]
    process = await anyio.to_thread.run_sync(_spawn, argv, cwd)
    try:
        await wait_for_exit(process.pid)
    except BaseException:
        process.kill()
        raise
    finally:
        # Cheap: it has ended or was just killed.
        process.wait()
    return process.returncode


def _spawn(argv: list[str], cwd: Path | None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        argv,
        cwd=cwd,
        env=dict(ENVIRONMENT),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        close_fds=True,
        start_new_session=True,
    )


async def wait_for_exit(pid: int) -> None:
    """Wait until process `pid` has ended; it need not be a child. Returns at once when there is none."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await anyio.wait_readable(descriptor)
    finally:
        os.close(descriptor)


def kill(pid: int) -> None:
    """SIGKILL, if it still exists."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)

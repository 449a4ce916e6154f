"""The runtime's processes outlive the program that we started, and become the server's children when it is gone: the
server asks to adopt orphans, so that none escapes, and must therefore reap them.

Other parts of the server have children too, and wait for them themselves: only those of the runtime are reaped here.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_RUNTIME_COMMANDS = frozenset({"exe", "runsc-sandbox", "runsc-gofer"})
"""Names of runsc's processes in the kernel's eyes; it starts them as /proc/self/exe."""


def adopt_orphans() -> None:
    """Make this process the parent of every descendant whose parent dies."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot become a child subreaper: {os.strerror(number)}")


def reap() -> int:
    """Reap the runtime's processes that have ended; how many."""
    reaped = 0
    try:
        while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if not _is_runtime(found.si_pid):
                # A child of somebody else's waits for its owner, in front of those that may be ours.
                return reaped + _reap_behind()
            reaped += _wait(found.si_pid)
    except ChildProcessError:
        pass
    return reaped


def _reap_behind() -> int:
    reaped = 0
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError):
            for child in (task / "children").read_text().split():
                if _is_runtime(int(child)):
                    reaped += _wait(int(child))
    return reaped


def _wait(pid: int) -> int:
    try:
        return 1 if os.waitpid(pid, os.WNOHANG)[0] else 0
    except ChildProcessError:
        return 0


def _is_runtime(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() in _RUNTIME_COMMANDS
    except OSError:
        return False

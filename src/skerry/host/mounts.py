"""The few system calls Python has no function for: mount, umount2, unshare.

The server lives in a mount namespace of its own, so that whatever it has mounted is gone when it has died, however
it died.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_REMOUNT = 32
MS_NOATIME = 1024
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SHARED = 1 << 20
MNT_DETACH = 2
CLONE_NEWNS = 0x00020000
_FIFREEZE = 0xC0045877
_FITHAW = 0xC0045878

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: Path, kind: str, flags: int = 0, options: str = "") -> None:
    """mount(2). Raises OSError."""
    if _libc.mount(source.encode(), os.fsencode(target), kind.encode(), flags, options.encode() or None) != 0:
        raise _error(f"mount {kind} on {target}")


def unmount(target: Path) -> None:
    """Detach what is mounted on `target`, also when it is in use; no-op when nothing is. Raises OSError."""
    if _libc.umount2(os.fsencode(target), MNT_DETACH) != 0:
        error = _error(f"unmount {target}")
        if not isinstance(error, FileNotFoundError) and error.errno != 22:  # EINVAL: not a mount point
            raise error


def bind(source: Path, target: Path, *, read_only: bool = False) -> None:
    """Let `target` show what is at `source`, also what is mounted there but not below. Raises OSError.

    `read_only` is of this mount, and so of all that are made from it; it reaches no mount that was made from it before.
    """
    mount(os.fspath(source), target, "", MS_BIND)
    if read_only:
        mount("none", target, "", MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NODEV | MS_NOSUID)


def share(target: Path) -> None:
    """Mounts made below `target` from now on show in the copies of it that others have. Raises OSError."""
    mount("none", target, "", MS_SHARED)


def enter_private_namespace() -> None:
    """Give this process a mount namespace of its own; to be called before it has threads. Raises OSError.

    It also hides /proc/sys/net: runsc 20240729 sees a per-namespace `rmem_default` there on new kernels and then
    refuses to start with `--network=sandbox` (mended upstream two days later).
    """
    if _libc.unshare(CLONE_NEWNS) != 0:
        raise _error("make a mount namespace")
    mount("none", Path("/"), "", MS_REC | MS_PRIVATE)
    mount("tmpfs", Path("/proc/sys/net"), "tmpfs", MS_RDONLY, "size=0,nr_inodes=1")


def sync_file_system(path: Path) -> None:
    """syncfs(2): write out the file system that the directory `path` is on. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(descriptor) != 0:
            raise _error(f"write out {path}")
    finally:
        os.close(descriptor)


@contextmanager
def frozen(path: Path) -> Iterator[None]:
    """Nothing is written to the file system that is mounted at `path`, and what is on its disk is whole; who writes
    waits. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _FIFREEZE, 0)
        try:
            yield
        finally:
            fcntl.ioctl(descriptor, _FITHAW, 0)
    finally:
        os.close(descriptor)


def thaw(path: Path) -> bool:
    """End what `frozen` began in a process that has died; whether there was anything to end. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _FITHAW, 0)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    finally:
        os.close(descriptor)
    return True


def _error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"cannot {what}: {os.strerror(number)}")

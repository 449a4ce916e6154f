"""The few system calls Python has no function for: mount, umount2, unshare.

The server lives in a mount namespace of its own, so that whatever it has mounted is gone when it has died, however
it died.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOATIME = 1024
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2
CLONE_NEWNS = 0x00020000

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


def _error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"cannot {what}: {os.strerror(number)}")

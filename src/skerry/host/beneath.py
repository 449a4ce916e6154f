"""Opening paths that nobody vouches for, beneath a directory that they cannot lead out of: openat2(2).

The kernel resolves the path in one go and gives up at a symbolic link, at a mount point and at what would leave the
directory, so that nothing can be swapped between a look and its use.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

_SYS_OPENAT2 = 437  # on every architecture
_RESOLVE_NO_XDEV = 0x01
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
_RESOLVE = _RESOLVE_NO_XDEV | _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_SYMLINKS | _RESOLVE_BENEATH
_TRIES = 32

_libc = ctypes.CDLL(None, use_errno=True)


def open_beneath(directory: int, path: str, flags: int, mode: int = 0) -> int:
    """A descriptor of `path`, relative to an open directory; no descriptor of it is inherited.

    Raises:
        OSError: ELOOP: a part of the path is a symbolic link. EXDEV: it leaves the directory or its file system.
    """
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC | os.O_NOCTTY, mode, _RESOLVE)
    name = os.fsencode(path)
    for _ in range(_TRIES):
        descriptor = int(_libc.syscall(_SYS_OPENAT2, directory, name, how, len(how)))
        if descriptor >= 0:
            return descriptor
        number = ctypes.get_errno()
        if number not in (errno.EAGAIN, errno.EINTR):  # something was renamed meanwhile: the kernel cannot be sure
            break
    raise OSError(number, os.strerror(number), path)

"""Copies files by their written blocks and leaves their holes; where the file system can share blocks, copies none."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

_FICLONE = 0x40049409
_CANNOT_SHARE = frozenset({errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ETXTBSY, errno.ENOSYS})


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a file to a new one. Raises FileExistsError, OSError."""
    with source.open("rb") as read, target.open("xb") as write:
        copy_blocks(read.fileno(), write.fileno())


def copy_blocks(read: int, write: int) -> None:
    """Copy all of one open file to another that is empty. Raises OSError."""
    if _share(read, write):
        return
    size = os.fstat(read).st_size
    os.truncate(write, size)
    for start, end in data_ranges(read):
        _copy_range(read, write, start, end - start)


def data_ranges(descriptor: int) -> Iterator[tuple[int, int]]:
    """Start and end of each written range of an open file."""
    size = os.fstat(descriptor).st_size
    position = 0
    while position < size:
        try:
            start = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break  # only a hole is left
            raise
        position = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, position


def _share(read: int, write: int) -> bool:
    """Let both files have the same blocks until one is written to; False where that cannot be (XFS and btrfs can)."""
    try:
        fcntl.ioctl(write, _FICLONE, read)
    except OSError as error:
        if error.errno not in _CANNOT_SHARE:
            raise
        return False
    return True


def _copy_range(read: int, write: int, offset: int, count: int) -> None:
    while count:
        try:
            copied = os.copy_file_range(read, write, count, offset, offset)
        except OSError as error:
            if error.errno != errno.EXDEV:  # between two file systems of this kind
                raise
            os.lseek(write, offset, os.SEEK_SET)
            copied = os.sendfile(write, read, offset, count)
        if copied == 0:
            raise OSError(errno.EIO, "cannot copy a file: it became shorter meanwhile")
        offset, count = offset + copied, count - copied

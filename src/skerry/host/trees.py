"""Trees of files that nobody vouches for: copied and unpacked beneath a directory that they cannot lead out of.

Every step goes from an open directory to one name in it and follows no link. What a tree may hold is what a layer of an
overlay holds: files, directories, links, FIFOs, and the two marks for what an upper layer hides. Devices are refused.
"""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from skerry.host.sparse import copy_blocks

DEPTH_MAX = 200
"""Directories below each other."""
BLOCK = 4096
"""Of a file system, in bytes."""
OPAQUE = "trusted.overlay.opaque"
"""The mark on a directory that hides what lower layers have in it."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class UnsafeTree(Exception):
    """It holds what no image may hold, or more than it may; the message says what and where."""


@dataclass(slots=True)
class Allowance:
    """What a tree may still hold."""

    bytes: int = 64 << 30
    """On disk: content fills whole blocks, and every entry has one of its own, whatever it is."""
    entries: int = 4_000_000

    def take(self, size: int, where: str) -> None:
        """One entry with that much content. Raises UnsafeTree."""
        self.entries -= 1
        self.bytes -= (-(-size // BLOCK) + 1) * BLOCK
        if self.entries < 0 or self.bytes < 0:
            raise UnsafeTree(f"cannot take {where!r}: the tree has more files or bytes than an image may have")


class Tree:
    """A directory of ours that entries are put into, by paths relative to it. Close it, or use it with `with`.

    Args:
        allowance: pays for each directory that is made because a path leads through it.
    """

    def __init__(self, path: Path, allowance: Allowance) -> None:
        self._root = os.open(path, _DIRECTORY)
        self._allowance = allowance

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._root)

    def open_directory(self, parts: tuple[str, ...]) -> int:
        """A descriptor of a directory, made (0755, root's) where it is missing.

        Raises:
            UnsafeTree: a part of the path is something else, or the path is too deep, or nothing is left for it.
        """
        if len(parts) > DEPTH_MAX:
            raise UnsafeTree(f"cannot take {'/'.join(parts)[:80]!r}…: more than {DEPTH_MAX} directories deep")
        current = os.dup(self._root)
        for number, part in enumerate(parts):
            try:
                with suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=current)
                    self._allowance.take(0, "/".join(parts[: number + 1])[:200])
                below = os.open(part, _DIRECTORY, dir_fd=current)
            except OSError as error:
                where = "/".join(parts[: number + 1])
                raise UnsafeTree(f"cannot take what is below {where!r}: {error.strerror}") from None
            finally:
                os.close(current)
            current = below
        return current

    def look(self, directory: int, name: str) -> os.stat_result | None:
        with suppress(FileNotFoundError):
            return os.stat(name, dir_fd=directory, follow_symlinks=False)
        return None


def hide(directory: int, name: str) -> None:
    """Hide what lower layers have under that name."""
    os.mknod(name, 0o600 | stat.S_IFCHR, os.makedev(0, 0), dir_fd=directory)


def hide_all(directory: int) -> None:
    """Hide whatever lower layers have in this directory."""
    os.setxattr(directory, OPAQUE, b"y")


def copy_layer(source: Path, target: Path, allowance: Allowance, leave_out: frozenset[str] = frozenset()) -> None:
    """Copy an overlay's upper layer, which a sandbox has written, into the new directory `target`.

    Args:
        leave_out: paths relative to the root that are not copied.

    Raises:
        UnsafeTree, OSError
    """
    target.mkdir(mode=0o755)
    with ExitStack() as stack:
        copying = _Copying(allowance, leave_out, str(target))
        read = os.open(source, _DIRECTORY)
        stack.callback(os.close, read)
        write = os.open(target, _DIRECTORY)
        stack.callback(os.close, write)
        copying.directory(read, write, "", 0)


class _Copying:
    def __init__(self, allowance: Allowance, leave_out: frozenset[str], target: str) -> None:
        self._allowance, self._leave_out, self._target = allowance, leave_out, target
        self._names: dict[tuple[int, int], str] = {}  # files with several names → the first one

    def directory(self, read: int, write: int, path: str, depth: int) -> None:
        """Everything in it, then what it is itself: its times change with its entries."""
        if depth > DEPTH_MAX:
            raise UnsafeTree(f"cannot take {path[:80]!r}…: more than {DEPTH_MAX} directories deep")
        for name in sorted(os.listdir(read)):
            below = f"{path}/{name}" if path else name
            if below not in self._leave_out:
                self._entry(read, write, name, below, depth)
        status = os.fstat(read)
        os.fchown(write, status.st_uid, status.st_gid)
        os.fchmod(write, stat.S_IMODE(status.st_mode))
        with suppress(OSError):
            if os.getxattr(read, OPAQUE) == b"y":
                hide_all(write)
        os.utime(write, ns=(status.st_atime_ns, status.st_mtime_ns))

    def _entry(self, read: int, write: int, name: str, path: str, depth: int) -> None:
        status = os.stat(name, dir_fd=read, follow_symlinks=False)
        self._allowance.take(status.st_size if stat.S_ISREG(status.st_mode) else 0, path)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFDIR:
            os.mkdir(name, 0o700, dir_fd=write)
            with _opened(name, _DIRECTORY, read) as inner, _opened(name, _DIRECTORY, write) as copy:
                self.directory(inner, copy, path, depth + 1)
        elif kind == stat.S_IFREG:
            self._file(read, write, name, path, status)
        elif kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=read), name, dir_fd=write)
            os.chown(name, status.st_uid, status.st_gid, dir_fd=write, follow_symlinks=False)
        elif kind == stat.S_IFCHR and status.st_rdev == os.makedev(0, 0):
            hide(write, name)
        elif kind in (stat.S_IFIFO, stat.S_IFSOCK):
            pass  # of programs that have ended
        else:
            raise UnsafeTree(f"cannot take {path!r}: it is a device")

    def _file(self, read: int, write: int, name: str, path: str, status: os.stat_result) -> None:
        identity = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and identity in self._names:
            os.link(f"{self._target}/{self._names[identity]}", name, dst_dir_fd=write, follow_symlinks=False)
            return
        if status.st_nlink > 1:
            self._names[identity] = path
        with _opened(name, _READ, read) as source, _opened(name, _CREATE, write) as copy:
            copy_blocks(source, copy)
            os.fchown(copy, status.st_uid, status.st_gid)
            os.fchmod(copy, stat.S_IMODE(status.st_mode))
            os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))


class _opened:
    """A descriptor for the time of a `with`."""

    def __init__(self, name: str, flags: int, directory: int) -> None:
        self._descriptor = os.open(name, flags, 0o600, dir_fd=directory)

    def __enter__(self) -> int:
        return self._descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

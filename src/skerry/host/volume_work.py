"""What is done with files beneath a volume's root, in a thread: plain functions over openat2 and open directories.

Sandboxes write to volumes as they like, also while one of these calls is under way. So every path is opened beneath
the volume's root by `open_beneath`, which follows no link and leaves no file system; what must not be followed at the
end of a path is used by its name in an open directory. Only regular files are read and written.
"""

from __future__ import annotations

import errno
import heapq
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from skerry.errors import (
    DirectoryNotEmpty,
    FileError,
    FileExists,
    FileMissing,
    InvalidPath,
    IsADirectory,
    NoSpace,
    NotADirectory,
    NotAFile,
    PermissionDenied,
)
from skerry.host.beneath import open_beneath
from skerry.models import FileType, VolumeEntry

OWNER = 1000
"""Of what is made here unless the call says otherwise: `user` in the templates that ship."""
DEPTH_MAX = 16
"""Of a list: the names of every directory on the way are held."""
_PATH_MAX = 4095
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_NAMED = {0: "root", OWNER: "user"}
_TREE_DEPTH = 100
_REMOVE_S = 600.0
_CLASSES: dict[int, type[FileError]] = {
    errno.ENOENT: FileMissing, errno.EEXIST: FileExists, errno.EISDIR: IsADirectory, errno.ENOTDIR: NotADirectory,
    errno.ENOTEMPTY: DirectoryNotEmpty, errno.ENXIO: NotAFile, errno.EACCES: NotAFile, errno.EPERM: PermissionDenied,
    errno.EROFS: PermissionDenied, errno.ELOOP: InvalidPath, errno.EXDEV: InvalidPath, errno.ENAMETOOLONG: InvalidPath,
    errno.EINVAL: InvalidPath, errno.ENOSPC: NoSpace, errno.EDQUOT: NoSpace, errno.EFBIG: NoSpace,
    errno.EMLINK: NoSpace,
}  # fmt: skip
"""EACCES: we are root, so that only what the mount forbids is left, which is opening a device."""
_WORDS = {
    errno.ELOOP: "a part of it is a symbolic link, and none is followed",
    errno.EXDEV: "it leads out of the volume",
    errno.EACCES: "it is a device",
    errno.ENXIO: "it is a socket or a device",
    errno.ENOSPC: "the volume is full (bytes or inodes)",
}


def parts_of(path: str) -> list[str]:
    """The names in a path, which begins at the volume's root, with a slash or without. Raises InvalidPath."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if "\0" in path or ".." in parts:
        raise InvalidPath(f"cannot use {path[:200]!r}: a path in a volume has no '..' and no NUL", path=path)
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        raise InvalidPath(f"cannot use {path[:200]!r}: it is no text", path=repr(path)) from None
    if size > _PATH_MAX:
        raise InvalidPath(f"cannot use a path of {len(path)} characters: {_PATH_MAX} bytes are the most", path=path)
    return parts


@contextmanager
def _speaking(doing: str, path: str) -> Iterator[None]:
    """Turns the kernel's errors into ours."""
    try:
        yield
    except OSError as error:
        kind = _CLASSES.get(error.errno or 0, FileError)
        why = _WORDS.get(error.errno or 0) or (os.strerror(error.errno) if error.errno else str(error))
        raise kind(f"cannot {doing} {path!r}: {why}", path=path) from error


@contextmanager
def _opened(root: Path) -> Iterator[int]:
    descriptor = os.open(root, _DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _parent(root: Path, parts: list[str], *, make: bool = False) -> Iterator[tuple[int, str]]:
    """The open directory that the last name of a path is in, and that name."""
    with _opened(root) as top:
        directory = _open_made(top, parts[:-1]) if make else open_beneath(top, _joined(parts[:-1]), _DIRECTORY)
        try:
            yield directory, parts[-1]
        finally:
            os.close(directory)


def _open_made(top: int, parts: list[str], mode: int = 0o755, uid: int = OWNER, gid: int = OWNER) -> int:
    """A directory, made with those above it where they are missing."""
    with suppress(FileNotFoundError):
        return open_beneath(top, _joined(parts), _DIRECTORY)
    current = os.dup(top)
    for part in parts:
        try:
            try:
                below = open_beneath(current, part, _DIRECTORY)
            except FileNotFoundError:
                with suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=current)
                below = open_beneath(current, part, _DIRECTORY)
                os.fchown(below, uid, gid)
                os.fchmod(below, mode)
        finally:
            os.close(current)
        current = below
    return current


def _joined(parts: list[str]) -> str:
    return "/".join(parts) or "."


def _shown(parts: list[str]) -> str:
    return "/" + "/".join(parts)


def _entry(name: str, path: str, status: os.stat_result, target: str | None = None) -> VolumeEntry:
    kinds = {stat.S_IFREG: FileType.FILE, stat.S_IFDIR: FileType.DIRECTORY, stat.S_IFLNK: FileType.SYMLINK}
    return VolumeEntry(
        name=_text(name), path=_text(path), type=kinds.get(stat.S_IFMT(status.st_mode), FileType.OTHER),
        size=status.st_size, mode=stat.S_IMODE(status.st_mode), uid=status.st_uid, gid=status.st_gid,
        owner=_NAMED.get(status.st_uid, str(status.st_uid)), group=_NAMED.get(status.st_gid, str(status.st_gid)),
        modified_at=_moment(status.st_mtime), accessed_at=_moment(status.st_atime),
        changed_at=_moment(status.st_ctime), target=None if target is None else _text(target),
    )  # fmt: skip


def _text(name: str) -> str:
    """A name that is no UTF-8 is shown with U+FFFD, and cannot be used in requests."""
    return os.fsencode(name).decode("utf-8", "replace")


def _moment(seconds: float) -> datetime:
    with suppress(ValueError, OverflowError):  # a file may say that it is of the year 200,000
        return datetime.fromtimestamp(seconds, UTC)
    return datetime.fromtimestamp(0, UTC)


def _named(directory: int, name: str, parts: list[str]) -> VolumeEntry:
    """An entry of an open directory; a link itself, not what it leads to."""
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    target = None
    if stat.S_ISLNK(status.st_mode):
        with suppress(OSError):
            target = os.readlink(name, dir_fd=directory)
    return _entry(name, _shown(parts), status, target)


# --- what is done -----------------------------------------------------------------------------------------------------


def open_file(root: Path, path: str) -> tuple[int, VolumeEntry]:
    parts = parts_of(path)
    with _speaking("read", path), _opened(root) as top:
        descriptor = open_beneath(top, _joined(parts), os.O_RDONLY | os.O_NONBLOCK)  # a FIFO keeps nobody waiting
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):
            return descriptor, _entry(parts[-1], _shown(parts), status)
        os.close(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectory(f"cannot read {path!r}: it is a directory", path=path)
        raise NotAFile(f"cannot read {path!r}: it is no regular file", path=path)


def look(root: Path, path: str) -> VolumeEntry:
    parts = parts_of(path)
    with _speaking("look at", path):
        if not parts:
            return _entry("/", "/", root.stat())
        with _parent(root, parts) as (directory, name):
            return _named(directory, name, parts)


def listed(root: Path, path: str, depth: int, limit: int) -> tuple[list[VolumeEntry], bool]:
    parts, found = parts_of(path), []
    with _speaking("list", path), _opened(root) as top:
        directory = open_beneath(top, _joined(parts), _DIRECTORY)
        try:
            for entry in _walk(directory, parts, min(depth, DEPTH_MAX), limit + 1):
                found.append(entry)
                if len(found) > limit:
                    return found[:limit], True
        finally:
            os.close(directory)
    return found, False


def _walk(directory: int, parts: list[str], depth: int, limit: int) -> Iterator[VolumeEntry]:
    with os.scandir(directory) as entries:
        names = heapq.nsmallest(limit, (entry.name for entry in entries))  # a directory may hold millions
    for name in names:
        try:
            entry = _named(directory, name, [*parts, name])
        except FileNotFoundError:
            continue  # removed meanwhile
        yield entry
        if depth > 1 and entry.type is FileType.DIRECTORY:
            try:
                below = open_beneath(directory, name, _DIRECTORY)
            except OSError:
                continue  # removed, or something else by now
            try:
                yield from _walk(below, [*parts, name], depth - 1, limit)
            finally:
                os.close(below)


class NewFile:
    """Content that takes a file's place when it is all there; nameless until then, so that a crash leaves nothing."""

    def __init__(
        self, root: Path, path: str, parents: bool, replace: bool, mode: int | None, uid: int | None, gid: int | None
    ) -> None:
        self._path, self._parts, self._replace = path, parts_of(path), replace
        self._directory = self._file = -1
        if not self._parts:
            raise IsADirectory("cannot write '/': it is the volume's root directory", path=path)
        with _speaking("write", path), _parent(root, self._parts, make=parents) as (directory, name):
            old = self._old(directory, name)
            self._mode = mode if mode is not None else 0o644 if old is None else stat.S_IMODE(old.st_mode)
            self._uid = uid if uid is not None else OWNER if old is None else old.st_uid
            self._gid = gid if gid is not None else OWNER if old is None else old.st_gid
            self._file = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=directory)
            self._directory, self._name = os.dup(directory), name

    def _old(self, directory: int, name: str) -> os.stat_result | None:
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return None
        if not self._replace:
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
        if stat.S_ISLNK(status.st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if stat.S_ISDIR(status.st_mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
        return status

    def write(self, block: bytes) -> None:
        """Raises NoSpace."""
        with _speaking("write", self._path):
            view = memoryview(block)
            while view:
                view = view[os.write(self._file, view) :]

    def finish(self) -> VolumeEntry:
        """Raises FileError: the old file is there still."""
        with _speaking("write", self._path):
            os.fchown(self._file, self._uid, self._gid)
            os.fchmod(self._file, self._mode)
            os.fsync(self._file)
            source = f"/proc/self/fd/{self._file}"
            if self._replace:
                temporary = f".skerry-{secrets.token_hex(8)}"
                os.link(source, temporary, dst_dir_fd=self._directory, follow_symlinks=True)
                try:
                    os.rename(temporary, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
                except OSError:
                    os.unlink(temporary, dir_fd=self._directory)
                    raise
            else:
                os.link(source, self._name, dst_dir_fd=self._directory, follow_symlinks=True)
            os.fsync(self._directory)
            return _entry(self._name, _shown(self._parts), os.fstat(self._file))

    def close(self) -> None:
        for descriptor in (self._file, self._directory):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._directory = -1


def make_directory(root: Path, path: str, parents: bool, mode: int, uid: int | None, gid: int | None) -> VolumeEntry:
    parts = parts_of(path)
    uid, gid = OWNER if uid is None else uid, OWNER if gid is None else gid
    with _speaking("make the directory", path), _opened(root) as top:
        if parents:
            try:
                made = _open_made(top, parts, mode, uid, gid)
            except NotADirectoryError:
                raise FileExists(f"cannot make {path!r}: something else is there", path=path) from None
        elif not parts:
            raise FileExists("cannot make '/': it is the volume's root directory", path=path)
        else:
            with _parent(root, parts) as (directory, name):
                os.mkdir(name, 0o700, dir_fd=directory)
                made = open_beneath(directory, name, _DIRECTORY)
                os.fchown(made, uid, gid)
                os.fchmod(made, mode)
        try:
            return _entry(parts[-1] if parts else "/", _shown(parts), os.fstat(made))
        finally:
            os.close(made)


def rename(root: Path, source: str, target: str) -> VolumeEntry:
    old, new = parts_of(source), parts_of(target)
    if not old or not new:
        raise InvalidPath("cannot move the volume's root directory", path=source)
    with (
        _speaking("move", source),
        _parent(root, old) as (from_directory, from_name),
        _parent(root, new) as (to_directory, to_name),
    ):
        os.rename(from_name, to_name, src_dir_fd=from_directory, dst_dir_fd=to_directory)
        os.fsync(to_directory)
        return _named(to_directory, to_name, new)


def set_attributes(root: Path, path: str, mode: int | None, uid: int | None, gid: int | None) -> VolumeEntry:
    parts = parts_of(path)
    with _speaking("change", path), _opened(root) as top:
        descriptor = open_beneath(top, _joined(parts), os.O_RDONLY | os.O_NONBLOCK)
        try:
            if uid is not None or gid is not None:
                os.fchown(descriptor, -1 if uid is None else uid, -1 if gid is None else gid)
            if mode is not None:
                os.fchmod(descriptor, mode)
            return _entry(parts[-1] if parts else "/", _shown(parts), os.fstat(descriptor))
        finally:
            os.close(descriptor)


def remove(root: Path, path: str, recursive: bool) -> None:
    parts = parts_of(path)
    if not parts:
        raise InvalidPath("cannot remove the volume's root directory; remove the volume, or what is in it", path=path)
    with _speaking("remove", path), _parent(root, parts) as (directory, name):
        if not stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=directory)
            return
        if recursive:
            _empty(directory, name)
        os.rmdir(name, dir_fd=directory)


def _empty(parent: int, name: str) -> None:
    """Remove all that is in a directory. One that lies too deep is moved up first: there may be any depth of them, and
    each that is open takes a descriptor."""
    top = open_beneath(parent, name, _DIRECTORY)
    stack: list[tuple[int, str]] = [(top, name)]
    deadline = time.monotonic() + _REMOVE_S
    try:
        while stack:
            if time.monotonic() > deadline:  # a sandbox can add files as fast as they are removed
                raise OSError(errno.EBUSY, f"not done in {_REMOVE_S:.0f} s")
            current, _ = stack[-1]
            if (below := _removed_files(current)) is None:
                os.close(current)
                _, done = stack.pop()
                if stack:
                    os.rmdir(done, dir_fd=stack[-1][0])
            elif len(stack) < _TREE_DEPTH:
                stack.append((open_beneath(current, below, _DIRECTORY), below))
            else:
                os.rename(below, f".skerry-{secrets.token_hex(8)}", src_dir_fd=current, dst_dir_fd=top)
    finally:
        for descriptor, _ in stack:
            os.close(descriptor)


def _removed_files(directory: int) -> str | None:
    """Remove everything but directories with something in them; the name of one of those, None when there is none."""
    found = None
    with os.scandir(directory) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                with suppress(FileNotFoundError):
                    os.unlink(entry.name, dir_fd=directory)
                continue
            try:
                os.rmdir(entry.name, dir_fd=directory)
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise
                found = entry.name
    return found

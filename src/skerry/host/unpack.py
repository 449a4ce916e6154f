"""Unpacks the tar of an image's layer (OCI image-spec, layer.md) into a tree that overlayfs can mount.

Run as a program of its own, `python -m skerry.host.unpack ARCHIVE TARGET BYTES ENTRIES`: what an archive costs in
memory or time, or breaks, is then that process's. It prints what was wrong and ends with code 1 when the archive is
refused.
"""

from __future__ import annotations

import os
import resource
import stat
import sys
import tarfile
from pathlib import Path

from skerry.host.trees import Allowance, Tree, UnsafeTree, hide, hide_all

_WHITEOUT = ".wh."
_AUFS = ".wh..wh."
"""aufs's own notes: nothing of an image."""
_OPAQUE = ".wh..wh..opq"
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK = 1024 * 1024
_MEMORY_MAX = 1 << 30
_ID_MAX = 1 << 31
_TIME_MAX = 1 << 40
"""Seconds before or after 1970."""


def unpack(archive: Path, target: Path, allowance: Allowance) -> None:
    """Fill the new directory `target`.

    Raises:
        UnsafeTree: an absolute path, `..`, a device, a path through a link, a mark that contradicts the archive, or
            more than is allowed.
        tarfile.TarError, OSError
    """
    target.mkdir(mode=0o755)
    with Tree(target, allowance) as tree, tarfile.open(archive, "r|*", errorlevel=2) as members:
        unpacking = _Unpacking(tree, target, allowance)
        for member in members:
            unpacking.take(members, member)
        unpacking.finish()


def _parts(name: str) -> tuple[str, ...]:
    """Raises UnsafeTree."""
    if name.startswith("/") or "\0" in name:
        raise UnsafeTree(f"cannot take {name[:200]!r}: its path is absolute")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise UnsafeTree(f"cannot take {name[:200]!r}: its path leads upwards")
    if any(part.startswith(_WHITEOUT) and not part.startswith(_AUFS) for part in parts[:-1]):
        raise UnsafeTree(f"cannot take {name[:200]!r}: its path leads through what it hides")
    return parts


class _Unpacking:
    def __init__(self, tree: Tree, target: Path, allowance: Allowance) -> None:
        self._tree, self._target, self._allowance = tree, target, allowance
        self._times: list[tuple[tuple[str, ...], int]] = []  # of directories: set when they are full

    def take(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        """One entry. Raises UnsafeTree."""
        parts = _parts(member.name)
        self._allowance.take(max(0, member.size), member.name)
        if any(part.startswith(_AUFS) for part in parts[:-1]):
            return
        if not abs(member.mtime) < _TIME_MAX:  # nor is what is no number
            raise UnsafeTree(f"cannot take {member.name!r}: its time is no valid number")
        if not 0 <= member.uid < _ID_MAX or not 0 <= member.gid < _ID_MAX:
            raise UnsafeTree(f"cannot take {member.name!r}: its owner is no valid number")
        if not parts:
            if not member.isdir():
                raise UnsafeTree("cannot take the root: it is no directory")
            self._directory(parts, member)
            return
        if parts[-1].startswith(_WHITEOUT):
            self._mark(parts)
        elif member.isdir():
            self._directory(parts, member)
        else:
            self._other(archive, parts, member)

    def _mark(self, parts: tuple[str, ...]) -> None:
        name = parts[-1]
        parent = self._tree.open_directory(parts[:-1])
        try:
            if name == _OPAQUE:
                hide_all(parent)
                return
            if name.startswith(_AUFS):
                return
            hidden = name.removeprefix(_WHITEOUT)
            if hidden in ("", ".", "..") or self._tree.look(parent, hidden) is not None:
                raise UnsafeTree(f"cannot take {'/'.join(parts)!r}: it hides what the same archive holds")
            hide(parent, hidden)
        finally:
            os.close(parent)

    def _directory(self, parts: tuple[str, ...], member: tarfile.TarInfo) -> None:
        directory = self._tree.open_directory(parts)
        try:
            os.fchown(directory, member.uid, member.gid)
            os.fchmod(directory, stat.S_IMODE(member.mode))
        finally:
            os.close(directory)
        self._times.append((parts, int(member.mtime)))

    def _other(self, archive: tarfile.TarFile, parts: tuple[str, ...], member: tarfile.TarInfo) -> None:
        parent = self._tree.open_directory(parts[:-1])
        try:
            there = self._tree.look(parent, parts[-1])
            if there is not None:
                if stat.S_ISDIR(there.st_mode) or stat.S_ISCHR(there.st_mode):
                    raise UnsafeTree(f"cannot take {member.name!r}: the archive holds it as something else already")
                os.unlink(parts[-1], dir_fd=parent)  # the last entry of a name counts
            self._make(archive, parent, parts[-1], member)
        finally:
            os.close(parent)

    def _make(self, archive: tarfile.TarFile, parent: int, name: str, member: tarfile.TarInfo) -> None:
        if member.isreg():
            self._file(archive, parent, name, member)
        elif member.issym():
            os.symlink(member.linkname, name, dir_fd=parent)
            os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
        elif member.islnk():
            self._link(parent, name, member)
        elif member.isfifo():
            os.mkfifo(name, stat.S_IMODE(member.mode), dir_fd=parent)
            os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
        else:
            raise UnsafeTree(f"cannot take {member.name!r}: it is a device, or of a kind unknown here")

    def _file(self, archive: tarfile.TarFile, parent: int, name: str, member: tarfile.TarInfo) -> None:
        content = archive.extractfile(member)
        assert content is not None
        with os.fdopen(os.open(name, _CREATE, 0o600, dir_fd=parent), "wb", buffering=0) as file:
            while block := content.read(_BLOCK):
                file.write(block)
            os.fchown(file.fileno(), member.uid, member.gid)
            os.fchmod(file.fileno(), stat.S_IMODE(member.mode))
            os.utime(file.fileno(), (member.mtime, member.mtime))

    def _link(self, parent: int, name: str, member: tarfile.TarInfo) -> None:
        """Another name of a file of the same archive."""
        *above, last = _parts(member.linkname) or ("",)
        holder = self._tree.open_directory(tuple(above))
        try:
            there = self._tree.look(holder, last) if last else None
            if there is None or not stat.S_ISREG(there.st_mode):
                raise UnsafeTree(f"cannot take {member.name!r}: it links to {member.linkname!r}, which is no file here")
            os.link(last, name, src_dir_fd=holder, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(holder)

    def finish(self) -> None:
        for parts, moment in reversed(self._times):
            directory = self._tree.open_directory(parts)
            os.utime(directory, (moment, moment))
            os.close(directory)


def main(arguments: list[str]) -> int:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_MAX, _MEMORY_MAX))
    archive, target, bytes_left, entries = arguments
    try:
        unpack(Path(archive), Path(target), Allowance(int(bytes_left), int(entries)))
    except (UnsafeTree, tarfile.TarError, OSError, MemoryError, ValueError) as error:
        print(error or type(error).__name__)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

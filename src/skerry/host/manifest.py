"""The digest of a tree of files: what an image is named by."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

_BLOCK = 1024 * 1024


def digest(root: Path) -> str:
    """`sha256:…` over every entry's path, type, mode, owner, content or link target; times do not count.

    Links are never followed. Two trees with the same digest behave the same in a sandbox.
    """
    total = hashlib.sha256()
    for path in _entries(str(root)):
        status = os.lstat(path)
        name = os.fsencode(os.path.relpath(path, root))
        head = f"{status.st_mode:o} {status.st_uid} {status.st_gid} ".encode()
        total.update(b"%d " % len(name) + name + b" " + head + _content(path, status) + b"\n")
    return f"sha256:{total.hexdigest()}"


def size_bytes(root: Path) -> int:
    """What the files of a tree take on the disk; a file with several names counts once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for path in _entries(str(root)):
        status = os.lstat(path)
        if (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            total += status.st_blocks * 512
    return total


def _entries(directory: str) -> list[str]:
    """Everything below, in an order that does not depend on the file system."""
    found: list[str] = []
    for parent, directories, names in os.walk(directory, followlinks=False, onerror=_raise):
        directories.sort(key=os.fsencode)
        found += (os.path.join(parent, name) for name in sorted((*directories, *names), key=os.fsencode))
    return sorted(found, key=os.fsencode)


def _is_opaque(path: str) -> bool:
    try:
        return os.getxattr(path, "trusted.overlay.opaque", follow_symlinks=False) == b"y"
    except OSError:
        return False


def _raise(error: OSError) -> None:
    raise error


def _content(path: str, status: os.stat_result) -> bytes:
    if stat.S_ISREG(status.st_mode):
        hashed = hashlib.sha256()
        with open(path, "rb", buffering=0) as file:
            while block := file.read(_BLOCK):
                hashed.update(block)
        return hashed.hexdigest().encode()
    if stat.S_ISLNK(status.st_mode):
        return os.fsencode(os.readlink(path))
    if stat.S_ISDIR(status.st_mode):
        return b"opaque" if _is_opaque(path) else b""
    if stat.S_ISBLK(status.st_mode) or stat.S_ISCHR(status.st_mode):
        return str(status.st_rdev).encode()
    return b""

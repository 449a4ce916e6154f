"""The few files of a fresh root file system that differ from its image, written before anything has run in it.

This is the one place where the server writes into a sandbox's tree. Nothing of the sandbox's has ever run there; each
directory is still opened beneath the root without following a link, because an image may hold any link.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

IDENTITY_FILES = frozenset({"etc/hostname", "etc/hosts", "etc/machine-id", "etc/resolv.conf"})
"""What is written here; no part of an image."""
_HOSTS = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write_identity(rootfs: Path, *, hostname: str, resolv_conf: str) -> None:
    """Write /etc/hostname, /etc/hosts, /etc/resolv.conf and a new /etc/machine-id, without which D-Bus does not start,
    and make sure that /tmp stays on the disk.

    gVisor mounts a tmpfs on a /tmp that is empty: what is in it would count as memory and have no limit of its own.
    """
    with _directory(None, str(rootfs)) as root:
        with _directory(root, "etc") as etc:
            _replace(etc, "hostname", f"{hostname}\n")
            _replace(etc, "hosts", f"127.0.1.1 {hostname}\n{_HOSTS}")
            _replace(etc, "resolv.conf", resolv_conf)
            _replace(etc, "machine-id", f"{secrets.token_hex(16)}\n")
        with _directory(root, "tmp", 0o1777) as tmp, _directory(tmp, ".X11-unix", 0o1777):
            pass


def _replace(directory: int, name: str, content: str) -> None:
    """Put a new file in place of whatever the image has under that name, which is often a symbolic link."""
    temporary = f".{name}.skerry"
    with os.fdopen(os.open(temporary, _CREATE, 0o644, dir_fd=directory), "w") as file:
        file.write(content)
        os.fchmod(file.fileno(), 0o644)
    os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)


@contextmanager
def _directory(parent: int | None, name: str, mode: int = 0o755) -> Iterator[int]:
    """A descriptor of a directory, which is made with `mode` when it is missing."""
    made = False
    if parent is not None:
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=parent)
            made = True
    descriptor = os.open(name, _OPEN_DIRECTORY, dir_fd=parent)
    try:
        if made:
            os.fchmod(descriptor, mode)  # mkdir's mode is cut by the umask
        yield descriptor
    finally:
        os.close(descriptor)

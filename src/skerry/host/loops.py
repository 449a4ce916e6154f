"""File systems in files: loop devices, formatting, mounting.

A file must never lie behind two loop devices: two mounted file systems that know nothing of each other would write to
one image. Sandboxes keep copies of the mounts of a server that has died, so a new server looks for the device that a
file has already, and mounts that: the kernel then gives the file system that is mounted already, not another one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from skerry.host import mounts

BLOCK = 4096
"""Bytes of a block, of the devices and of the file systems on them."""
PLAIN = ("-O", "^has_journal", "-E", "lazy_itable_init=1,root_owner=0:0,nodiscard")
"""Options of `format_image` for a disk that is given up after a crash of the machine."""
JOURNALLED = ("-E", "lazy_itable_init=0,lazy_journal_init=1,root_owner=0:0")
"""Options of `format_image` for a disk that outlives one."""

_MIB = 1024 * 1024
_GET_FREE = 0x4C82
_CONFIGURE = 0x4C0A
_GET_STATUS64 = 0x4C05
_STATUS_SIZE = 232  # struct loop_info64; it begins with device and inode of the file
_AUTOCLEAR = 4
_MAJOR = 7
_TRIES = 100
ENVIRONMENT = {"PATH": "/usr/sbin:/sbin:/usr/bin:/bin", "LC_ALL": "C"}


def format_image(path: Path, size_mib: int, inodes: int, options: tuple[str, ...]) -> None:
    """Make an ext4 file system in a sparse file; it is there whole, or not at all.

    Raises:
        OSError: ENOSPC when the disk is full.
    """
    new = path.with_name(f"{path.name}.new")
    try:
        with new.open("wb") as file:
            file.truncate(size_mib * _MIB)
        run_tool("mkfs.ext4", "-q", "-F", "-b", str(BLOCK), "-N", str(inodes), "-m", "0", *options, "--", str(new))
        new.rename(path)
    finally:
        new.unlink(missing_ok=True)


def run_tool(*command: str, good: tuple[int, ...] = (0,), timeout_s: float = 60.0) -> str:
    """Run a program of e2fsprogs; returns what it said.

    Raises:
        OSError: its status is none of `good`: ENOSPC when it says so, else EIO.
    """
    done = subprocess.run(
        command, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=timeout_s, env=ENVIRONMENT,
    )  # fmt: skip
    said = done.stdout.decode(errors="replace").strip()
    if done.returncode not in good:
        full = os.strerror(errno.ENOSPC) in said  # they exit alike for every reason
        raise OSError(errno.ENOSPC if full else errno.EIO, said or f"{command[0]} ended with {done.returncode}")
    return said


def mount_image(image: Path, target: Path, options: str, *, share: bool = False) -> None:
    """Mount an ext4 file through a loop device that is freed by the last unmount (or by the end of the last mount
    namespace that has it).

    Args:
        share: another server, or a sandbox that it left, may have the file mounted already.

    Raises:
        OSError
    """
    backing = os.open(image, os.O_RDWR | os.O_CLOEXEC)
    try:
        device, path = (_device_of(image, backing) if share else None) or _new_device(backing)
        try:
            flags = mounts.MS_NODEV | mounts.MS_NOSUID | mounts.MS_NOATIME
            mounts.mount(path, target, "ext4", flags, options)
        finally:
            os.close(device)  # autoclear frees it here when it was not mounted
    finally:
        os.close(backing)


def is_attached(image: Path) -> bool:
    """Whether a loop device has this file. Raises FileNotFoundError."""
    backing = os.open(image, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = _device_of(image, backing)
        if found is not None:
            os.close(found[0])
        return found is not None
    finally:
        os.close(backing)


def wait_until_free(image: Path, timeout_s: float) -> bool:
    """Whether no loop device has the file any more. A device is given back a moment after the last unmount, and a
    sandbox that was killed takes a moment to be gone."""
    deadline = time.monotonic() + timeout_s
    while is_attached(image):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.01)
    return True


def _device_of(image: Path, backing: int) -> tuple[int, str] | None:
    """The loop device that has this file, opened, so that it is not given back meanwhile; None: there is none.

    Only what has a file of that name is opened: whoever has a device open keeps it from being given back. The rest of
    the path tells nothing, since the mount that it was opened through may be gone.
    """
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):  # given back just now
            if entry.read_text().strip().removesuffix(" (deleted)").rpartition("/")[2] != image.name:
                continue
            path = _node(int(entry.parts[-3].removeprefix("loop")))
            device = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _has(device, backing):
                    return device, path
            except OSError:
                pass
            os.close(device)
    return None


def _has(device: int, backing: int) -> bool:
    status = fcntl.ioctl(device, _GET_STATUS64, bytes(_STATUS_SIZE))
    st_dev, inode = struct.unpack_from("=QQ", status)
    known = os.fstat(backing)
    return bool(inode == known.st_ino and st_dev == _encoded(known.st_dev))


def _encoded(device: int) -> int:
    """A device number as the kernel's loop driver tells it (`huge_encode_dev`)."""
    major, minor = os.major(device), os.minor(device)
    return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)


def _new_device(backing: int) -> tuple[int, str]:
    """A free loop device, configured for `backing`. Others may take a device between the question and the answer."""
    # struct loop_config: fd, block size, struct loop_info64 (flags at offset 52), 64 bytes reserved
    config = bytearray(304)
    struct.pack_into("=II", config, 0, backing, BLOCK)
    struct.pack_into("=I", config, 8 + 52, _AUTOCLEAR)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for attempt in range(_TRIES):
            time.sleep(min(0.02, attempt * 0.001))
            path = _node(fcntl.ioctl(control, _GET_FREE))
            device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _CONFIGURE, bytes(config))
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:
                    raise
            else:
                return device, path
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, "cannot get a loop device: all that were free were taken by others")


def _node(number: int) -> str:
    path = f"/dev/loop{number}"
    with suppress(FileExistsError):
        if not os.path.exists(path):
            os.mknod(path, 0o660 | stat.S_IFBLK, os.makedev(_MAJOR, number))
    return path

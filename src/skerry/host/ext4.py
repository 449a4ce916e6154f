"""What a file holds that is an ext4 file system: told by the file, by the kernel that has it mounted, by e2fsprogs."""

from __future__ import annotations

import errno
import os
import shutil
import struct
from pathlib import Path

from skerry.errors import Error, HostFull, InternalError
from skerry.host import loops
from skerry.ports import VolumeUsage

_TOOL_TIMEOUT_S = 3600.0
_MIB = 1024 * 1024
_SUPERBLOCK = 1024


def minimum_mib(image: Path) -> int:
    """The least size that what it holds fits into, as resize2fs estimates it."""
    said = loops.run_tool("resize2fs", "-P", str(image), timeout_s=_TOOL_TIMEOUT_S)
    blocks = int(said.rpartition(":")[2])
    return -(-blocks * loops.BLOCK // _MIB)


def resize(image: Path, size_mib: int) -> None:
    """Of a copy: neither program can be interrupted without harm."""
    loops.run_tool("e2fsck", "-f", "-y", str(image), good=(0, 1), timeout_s=_TOOL_TIMEOUT_S)
    wanted = size_mib * _MIB
    if image.stat().st_size < wanted:
        os.truncate(image, wanted)
    loops.run_tool("resize2fs", str(image), f"{wanted // loops.BLOCK}", timeout_s=_TOOL_TIMEOUT_S)
    os.truncate(image, wanted)


def unmounted_usage(image: Path) -> VolumeUsage | None:
    """From the file alone; None when it is mounted somewhere, or was not unmounted: it is not up to date then."""
    with image.open("rb") as file:
        file.seek(_SUPERBLOCK)
        block = file.read(1024)
        status = os.fstat(file.fileno())
    magic, state = struct.unpack_from("<HH", block, 0x38)
    if magic != 0xEF53:
        raise InternalError(f"the file of volume {image.stem} is damaged: it has no file system")
    (features,) = struct.unpack_from("<I", block, 0x60)
    if not state & 1 or features & 4 or loops.is_attached(image):  # not clean; a journal to be replayed
        return None
    inodes, blocks, _, free, free_inodes = struct.unpack_from("<5I", block)
    (overhead,) = struct.unpack_from("<I", block, 0x248)
    return VolumeUsage(
        size_mib=status.st_size // _MIB, used_bytes=max(0, blocks - overhead - free) * loops.BLOCK,
        stored_bytes=status.st_blocks * 512, inodes=inodes, inodes_used=inodes - free_inodes,
    )  # fmt: skip


def mounted_usage(image: Path, root: Path) -> VolumeUsage:
    status, found = image.stat(), os.statvfs(root)
    return VolumeUsage(
        size_mib=status.st_size // _MIB, used_bytes=(found.f_blocks - found.f_bfree) * found.f_frsize,
        stored_bytes=status.st_blocks * 512, inodes=found.f_files, inodes_used=found.f_files - found.f_ffree,
    )  # fmt: skip


def refusal(error: OSError, directory: Path) -> Error:
    """What a failed write to such a file means. `directory`: where it is."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(directory).free // _MIB
        return HostFull(
            f"cannot write a volume: {directory} has {free} MiB free; free some, or use another data directory",
            directory=str(directory), free_mib=free,
        )  # fmt: skip
    return InternalError(f"cannot use a volume: {error.strerror or error}")

"""A sandbox's root file system: its image, shared and read-only, under a layer of its own that has a hard size.

The layer is an ext4 file system in a sparse file, on a loop device: bytes and inodes end in ENOSPC, and nothing else
happens. It has no journal; after a crash of the machine it is not used again. Nothing here starts a process, but for
one `mkfs.ext4` for each size never asked for before: the formatted file is kept, and copied by its written blocks.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.to_thread

from skerry.errors import HostFull, SandboxStartFailed
from skerry.host import loops, mounts
from skerry.host.sparse import copy_sparse

BYTES_PER_INODE = 16_384
MINIMUM_INODES = 8192

_MIB = 1024 * 1024


class Disks:
    """Root file systems of sandboxes.

    Args:
        directory: where the sparse files are kept; on a file system with room for what sandboxes write.
        mounts: where the file systems are mounted, below this process's own mount namespace.
    """

    def __init__(self, directory: Path, mounts: Path) -> None:
        self._images = directory / "disks"
        self._blank = directory / "blank"
        self._mounts = mounts
        self._formatting = anyio.Lock()
        for path in (self._images, self._blank, self._mounts):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def create(self, name: str, *, layers: Sequence[Path], size_mib: int, source: Path | None = None) -> Path:
        """Make and mount the root file system of sandbox `name`.

        Args:
            layers: the image's layers, the lowest first.
            size_mib: bytes that may be written.
            source: a disk file to start from instead of an empty one; it has its own size.

        Raises:
            HostFull: the data directory has no room.
            SandboxStartFailed: the kernel refused; nothing is left behind.
                Or the name is taken: that disk is not touched.
        """
        if self.image_path(name).exists():
            raise SandboxStartFailed(f"cannot make a disk: there is one named {name}")
        try:
            blank = source or await self._formatted(size_mib)
            return await anyio.to_thread.run_sync(self._create, name, layers, blank)
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await self.remove(name)
            if isinstance(error, OSError):
                raise _refusal(error, self._images) from error
            raise

    async def adopt(self, name: str) -> None:
        """Mount the layer of a sandbox that an earlier server has left running: its own mount went with it. Without it
        the disk could not be flushed, and so not be copied. Raises OSError."""
        await anyio.to_thread.run_sync(self._adopt, name)

    async def remove(self, name: str) -> None:
        """Unmount and delete; no-op for what is not there."""
        await anyio.to_thread.run_sync(self._remove, name)

    async def export(self, name: str, target: Path, *, last: bool = False) -> None:
        """Copy the disk file of a sandbox that stands still, by its written blocks.

        Args:
            last: the sandbox never goes on: the file itself gets a second name. It is whole when the disk is removed.

        Raises:
            HostFull: the data directory has no room.
        """
        try:
            await anyio.to_thread.run_sync(self._export, name, target, last)
        except OSError as error:
            raise _refusal(error, target.parent) from error

    def upper(self, name: str) -> Path:
        """The layer of sandbox `name`: what it has changed in its image."""
        return self._mounts / name / "layer/upper"

    def image_path(self, name: str) -> Path:
        return self._images / f"{name}.ext4"

    def used_bytes(self, name: str) -> int:
        """Bytes that the sandbox holds on the host's disk."""
        with suppress(FileNotFoundError):
            return self.image_path(name).stat().st_blocks * 512
        return 0

    def names(self) -> list[str]:
        return sorted(path.stem for path in self._images.glob("*.ext4"))

    async def _formatted(self, size_mib: int) -> Path:
        path = self._blank / f"{size_mib}.ext4"
        if not path.exists():
            async with self._formatting:
                if not path.exists():
                    await anyio.to_thread.run_sync(_format, path, size_mib)
        return path

    def _create(self, name: str, layers: Sequence[Path], blank: Path) -> Path:
        image = self.image_path(name)
        copy_sparse(blank, image)
        base = self._mounts / name
        layer, root = base / "layer", base / "root"
        layer.mkdir(parents=True)
        root.mkdir()
        loops.mount_image(image, layer, "errors=continue")
        upper, work = layer / "upper", layer / "work"
        upper.mkdir(exist_ok=True)
        shutil.rmtree(work, ignore_errors=True)  # a copied disk may carry a used one, which overlayfs refuses
        work.mkdir()
        lower = ":".join(map(str, reversed(layers)))
        # The layer's root shows inside as /, so it looks like the image's.
        os.chmod(upper, stat.S_IMODE(layers[-1].stat().st_mode))
        mounts.mount(
            "overlay",
            root,
            "overlay",
            mounts.MS_NODEV | mounts.MS_NOSUID | mounts.MS_NOATIME,
            # Without redirects the upper layer stands for itself, so that it can become a layer of an image.
            f"lowerdir={lower},upperdir={upper},workdir={work},redirect_dir=off,metacopy=off",
        )
        return root

    def _adopt(self, name: str) -> None:
        layer = self._mounts / name / "layer"
        layer.mkdir(parents=True, exist_ok=True)
        loops.mount_image(self.image_path(name), layer, "errors=continue", share=True)

    def _remove(self, name: str) -> None:
        base = self._mounts / name
        for part in ("root", "layer"):
            mounts.unmount(base / part)
            with suppress(FileNotFoundError):
                (base / part).rmdir()
        with suppress(FileNotFoundError):
            base.rmdir()
        self.image_path(name).unlink(missing_ok=True)

    def _export(self, name: str, target: Path, last: bool) -> None:
        mounts.sync_file_system(self._mounts / name / "layer")
        if last:
            target.hardlink_to(self.image_path(name))
        else:
            copy_sparse(self.image_path(name), target)


def _format(path: Path, size_mib: int) -> None:
    inodes = max(MINIMUM_INODES, size_mib * _MIB // BYTES_PER_INODE)
    loops.format_image(path, size_mib, inodes, loops.PLAIN)


def _refusal(error: OSError, directory: Path) -> HostFull | SandboxStartFailed:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(directory).free // _MIB
        return HostFull(
            f"cannot make a disk: {directory} has {free} MiB free; free some, or use another data directory",
            directory=str(directory), free_mib=free,
        )  # fmt: skip
    return SandboxStartFailed(f"cannot make a disk: {error.strerror or error}")

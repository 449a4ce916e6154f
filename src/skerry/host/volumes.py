"""Volumes: file systems that outlive sandboxes, and how sandboxes get to see them.

A volume is a sparse ext4 file with a journal: its size and its inodes end in ENOSPC, and nothing else happens. Its
snapshots are files of the same kind that are never mounted. A file comes into being under a temporary name and is
renamed when it is whole, so that a crash leaves the old one or the new one.

A file is mounted when somebody uses it and unmounted when nobody does. Each sandbox has a directory of its own below
`shared`, which it sees from its start, as a slave: what is mounted there later appears inside. `shared` is read-only,
or root inside could fill the host's disk; the mount points are made through `tree`, which is the same directory. A
read-only volume is mounted from a read-only mount of it, because flags that are set later do not travel to slaves.

Threads do all that touches a disk: a volume that is being copied is frozen, and whoever writes to it waits.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread

from skerry.errors import VolumeInUse, VolumeTooSmall
from skerry.failpoints import reached
from skerry.host import ext4, loops, mounts
from skerry.host.sparse import copy_sparse
from skerry.ports import VolumeUsage

logger = logging.getLogger(__name__)
T = TypeVar("T")

FREE_TIMEOUT_S = 10.0
"""How long a change waits for the last user of a volume to be gone."""
_THREADS = 4
"""Of one volume: those that wait for it while it is frozen keep nobody else waiting."""
_MIB = 1024 * 1024
_OPTIONS = "errors=remount-ro,discard,noinit_itable"


@dataclass(eq=False)
class _Held:
    """What this server does with one volume."""

    lock: anyio.Lock = field(default_factory=anyio.Lock)
    """Held while it is mounted or unmounted, and for changes that need it unmounted."""
    users: int = 0
    gone: anyio.Event = field(default_factory=anyio.Event)
    """Set when the last user has left."""
    threads: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(_THREADS))


class Volumes:
    """The files of volumes and of their snapshots, by names that their owner makes up. `start` before use.

    Args:
        directory: where the files are kept.
        mounts: where they are mounted, below this process's own mount namespace. Nothing below it is ever removed but
            empty directories: what is mounted there is users' data.
    """

    def __init__(self, directory: Path, mounts: Path) -> None:
        self._files = directory
        self._bases, self._tree, self._shared = mounts / "base", mounts / "tree", mounts / "shared"
        self._mounts = mounts
        self._held: dict[str, _Held] = {}
        self._attached: dict[str, list[str]] = {}
        self._started = False

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Prepare the mounts; undo what a dead server has left half done."""
        await anyio.to_thread.run_sync(self._start)

    async def stop(self, *, keep: bool = False) -> None:
        """Unmount everything. `keep`: sandboxes go on, and keep what they see."""
        if not keep:
            await anyio.to_thread.run_sync(self._stop)

    def _start(self) -> None:
        for path in (self._files, self._bases, self._tree, self._shared):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in self._files.glob("*.new"):
            path.unlink()
        for path in self._bases.iterdir():
            _remove_mount_point(path)
        if not self._started:
            mounts.bind(self._tree, self._shared, read_only=True)
            mounts.share(self._shared)
            self._started = True
        for name in self.names():
            with suppress(OSError):
                if loops.is_attached(self._file(name)):
                    self._thaw(name)

    def _thaw(self, name: str) -> None:
        """A sandbox has it mounted still, or it was being copied when the server died: then it must be thawed."""
        self._mount(name)
        try:
            if mounts.thaw(self._bases / name):
                logger.warning("volume %s was frozen by a server that has died; it goes on", name)
        finally:
            self._unmount(name)

    def _stop(self) -> None:
        if not self._started:
            return
        for unit in self.units():
            self._take_down(unit)
        for path in list(self._bases.iterdir()):
            _remove_mount_point(path)
        mounts.unmount(self._shared)
        self._started = False
        for path in (self._bases, self._tree, self._shared, self._mounts):
            with suppress(OSError):
                path.rmdir()

    # --- files ------------------------------------------------------------------------------------------------------

    def names(self) -> set[str]:
        """Of all files: volumes and snapshots."""
        return {path.stem for path in self._files.glob("*.ext4")}

    async def create(self, name: str, size_mib: int, inodes: int) -> None:
        """A new, empty volume that every user may write to. Raises HostFull."""

        def make() -> None:
            with self._making(name) as new:
                loops.format_image(new, size_mib, inodes, loops.JOURNALLED)
                self._open_to_all(new, self._bases / f"{name}.new")

        await self._work(name, make)

    async def copy(self, source: str, name: str, *, live: bool) -> None:
        """A copy of a volume or snapshot, of a moment at which it was whole.

        Args:
            live: the source is a volume, which may be in use: it is frozen meanwhile.

        Raises:
            HostFull
        """

        def copy(root: Path | None) -> None:
            with self._making(name) as new:
                if root is None:
                    copy_sparse(self._file(source), new)
                    return
                mounts.sync_file_system(root)  # most of it now, so that the freeze is short
                with mounts.frozen(root):
                    copy_sparse(self._file(source), new)

        if not live:
            await self._work(source, lambda: copy(None))
            return
        async with self.use(source) as root:
            await self._work(source, lambda: copy(root))

    async def replace(self, name: str, source: str) -> None:
        """Give a volume that nobody uses the content of a snapshot. Raises VolumeInUse, HostFull."""

        def replace() -> None:
            with self._making(name) as new:
                copy_sparse(self._file(source), new)

        async with self._alone(name):
            await self._work(name, replace)

    async def resize(self, name: str, size_mib: int) -> None:
        """Make a volume that nobody uses larger or smaller. Its free inodes change with it.

        Raises:
            VolumeInUse: by a sandbox or a transfer.
            VolumeTooSmall: it holds more than that; details hold the `minimum_mib`.
            HostFull: there is no room for the copy that it is done on.
        """

        def resize() -> None:
            old = self._file(name)
            if size_mib < old.stat().st_size // _MIB and size_mib < (least := ext4.minimum_mib(old)):
                raise VolumeTooSmall(
                    f"cannot shrink the volume to {size_mib} MiB: what it holds needs {least} MiB; remove some of it",
                    size_mib=size_mib, minimum_mib=least, current_mib=old.stat().st_size // _MIB,
                )  # fmt: skip
            with self._making(name) as new:
                copy_sparse(old, new)
                ext4.resize(new, size_mib)
                self._open_to_all(new, self._bases / f"{name}.new", fresh=False)

        async with self._alone(name):
            await self._work(name, resize)

    async def remove(self, name: str) -> None:
        """No-op when it is not there. Raises VolumeInUse."""
        if not self._file(name).exists():
            return
        async with self._alone(name):
            await self._work(name, lambda: self._file(name).unlink(missing_ok=True))
        self._held.pop(name, None)

    async def usage(self, name: str) -> VolumeUsage:
        """What it may hold and what it holds. Raises InternalError: its file is damaged."""
        held = self._held.get(name)
        if held is None or held.users == 0:
            known = await self._work(name, lambda: ext4.unmounted_usage(self._file(name)))
            if known is not None:
                return known
        async with self.use(name) as root:
            return await self._work(name, lambda: ext4.mounted_usage(self._file(name), root))

    # --- use --------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def use(self, name: str) -> AsyncIterator[Path]:
        """The volume's root directory on this host, for as long as the context lasts."""
        await self._enter(name)
        try:
            yield self._bases / name
        finally:
            with anyio.CancelScope(shield=True):
                await self._leave(name)

    async def run(self, name: str, work: Callable[[], T]) -> T:
        """Do what touches a volume's files, in one of its threads."""
        return await anyio.to_thread.run_sync(work, limiter=self._of(name).threads)

    async def _enter(self, name: str) -> None:
        held = self._of(name)
        async with held.lock:
            if held.users == 0:
                with anyio.CancelScope(shield=True):
                    await self._work(name, lambda: self._mount(name))
            held.users += 1

    async def _leave(self, name: str) -> None:
        held = self._of(name)
        async with held.lock:
            held.users -= 1
            if held.users == 0:
                try:
                    await anyio.to_thread.run_sync(self._unmount, name)
                finally:
                    held.gone.set()
                    held.gone = anyio.Event()

    @asynccontextmanager
    async def _alone(self, name: str) -> AsyncIterator[None]:
        """Nobody uses it, and nobody begins to. Raises VolumeInUse: somebody goes on using it."""
        held = self._of(name)
        deadline = anyio.current_time() + FREE_TIMEOUT_S
        while True:
            async with held.lock:
                if held.users == 0:
                    left = max(0.0, deadline - anyio.current_time())
                    if await anyio.to_thread.run_sync(loops.wait_until_free, self._file(name), left):
                        yield
                        return
                    break
                gone = held.gone
            with anyio.move_on_at(deadline) as waiting:
                await gone.wait()
            if waiting.cancelled_caught:
                break
        raise VolumeInUse("cannot change the volume: it is in use, by a sandbox or by a transfer; try again later")

    def _of(self, name: str) -> _Held:
        return self._held.setdefault(name, _Held())

    def _mount(self, name: str) -> None:
        base = self._bases / name
        base.mkdir(exist_ok=True)
        try:
            loops.mount_image(self._file(name), base, _OPTIONS, share=True)
        except BaseException:
            base.rmdir()
            raise

    def _unmount(self, name: str) -> None:
        for path in (self._bases / f"{name}.ro", self._bases / name):
            _remove_mount_point(path)

    # --- sandboxes --------------------------------------------------------------------------------------------------

    def directory(self, unit: str) -> Path:
        """A unit's own directory, which it shall see as a slave; made when it is not there."""
        (self._tree / unit).mkdir(mode=0o700, exist_ok=True)
        return self._shared / unit

    def units(self) -> set[str]:
        """Those that have a directory."""
        return {path.name for path in self._tree.iterdir()} if self._tree.exists() else set()

    async def attach(self, unit: str, volumes: Sequence[tuple[str, bool]]) -> None:
        """Show volumes in a unit's directory, under their names; before or after its start.

        Args:
            volumes: name, and whether it is read-only.

        Raises:
            OSError, Error: none of them is attached then.
        """
        self.directory(unit)
        attached = self._attached.setdefault(unit, [])
        try:
            for name, read_only in volumes:
                await self._enter(name)
                attached.append(name)
                await self._work(name, partial(self._put_up, unit, name, read_only))
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self.detach(unit, remove=False)
            raise

    async def detach(self, unit: str, *, remove: bool = True) -> None:
        """Take away all that a unit sees, and its directory; no-op when there is none."""
        try:
            await anyio.to_thread.run_sync(self._take_down, unit, remove)
        finally:
            for name in self._attached.pop(unit, []):
                await self._leave(name)

    def _put_up(self, unit: str, name: str, read_only: bool) -> None:
        source = self._bases / name
        if read_only:
            source = self._bases / f"{name}.ro"
            if not source.exists():
                source.mkdir()
                mounts.bind(self._bases / name, source, read_only=True)
        (self._tree / unit / name).mkdir(mode=0o700, exist_ok=True)
        mounts.bind(source, self._shared / unit / name)

    def _take_down(self, unit: str, remove: bool = True) -> None:
        with suppress(FileNotFoundError):
            for path in list((self._tree / unit).iterdir()):
                mounts.unmount(self._shared / unit / path.name)
                _remove_mount_point(path)
            if remove:
                (self._tree / unit).rmdir()

    # --- helpers ----------------------------------------------------------------------------------------------------

    def _file(self, name: str) -> Path:
        return self._files / f"{name}.ext4"

    @contextmanager
    def _making(self, name: str) -> Iterator[Path]:
        """A temporary path; what is there at the end of the context takes the place of the volume's file."""
        new = self._files / f"{name}.part.new"
        new.unlink(missing_ok=True)
        try:
            yield new
            _sync(new)
            reached("volume: written")
            new.rename(self._file(name))
            _sync(self._files)
            reached("volume: published")
        finally:
            new.unlink(missing_ok=True)

    def _open_to_all(self, image: Path, target: Path, *, fresh: bool = True) -> None:
        """Its root is for users of any id, and has nothing in it that they have not put there."""
        target.mkdir(exist_ok=True)
        try:
            loops.mount_image(image, target, _OPTIONS)
            if fresh:
                target.chmod(0o777)
            with suppress(OSError):
                (target / "lost+found").rmdir()  # empty, or no directory of ext4's
        finally:
            _remove_mount_point(target)
        loops.wait_until_free(image, FREE_TIMEOUT_S)

    async def _work(self, name: str, work: Callable[[], T]) -> T:
        try:
            return await self.run(name, work)
        except OSError as error:
            raise ext4.refusal(error, self._files) from error


def _remove_mount_point(path: Path) -> None:
    """Unmount and remove a directory, which is empty then. Never more than that."""
    mounts.unmount(path)
    with suppress(FileNotFoundError):
        path.rmdir()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

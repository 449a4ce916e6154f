"""What is kept of sandboxes that stand still: one directory for each state, whole or not there.

    <directory>/<id>/disk.img       the sandbox's own layer, sparse
                     checkpoint/    its memory, when that is kept
                     state.json     what they belong to: image, runtime, engine's version

A state is written beside its place and renamed when it is whole. It is sealed by one digest of all that it holds, which
the store keeps: what was cut short, changed, or brought from elsewhere is refused before anything of it is used.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
from collections.abc import AsyncIterator, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from skerry.errors import SnapshotDamaged
from skerry.failpoints import reached
from skerry.host.sparse import data_ranges
from skerry.ports import State

FORMAT = 1
"""Raised when the content of a state changes its meaning."""
_META = "state.json"
_BLOCK = 1 << 16
_ZEROS = bytes(_BLOCK)


@dataclass(frozen=True, slots=True)
class Meta:
    """What the files of a state belong to."""

    image: str
    disk_mib: int
    runtime: str
    """Name of the runtime directory whose agent and interpreters its processes run."""
    engine: str | None = None
    """What a restore of its memory depends on: the isolation's version and traits; None: there is no memory."""
    interpreters: dict[str, int] = field(default_factory=dict[str, int])
    """Language → pid inside of the interpreters that came with the sandbox."""
    format: int = FORMAT


class States:
    """The states below one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known: dict[str, tuple[Any, str]] = {}
        """State → what its files looked like when they were hashed last, and the digest."""
        self._remover = ThreadPoolExecutor(1, "removal of states")
        self._removal: Future[None] | None = None
        """The last one; those before it are done before it."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def disk(self, state_id: str) -> Path:
        return self._directory / state_id / "disk.img"

    def checkpoint(self, state_id: str) -> Path:
        return self._directory / state_id / "checkpoint"

    def ids(self) -> list[str]:
        return sorted(path.name for path in self._directory.iterdir() if not path.name.startswith("."))

    @asynccontextmanager
    async def writing(self, state_id: str) -> AsyncIterator[Path]:
        """A directory to write a state into; it is the state when the block ends without an error. It has the room of
        all that was removed before."""
        if self._removal is not None:
            await anyio.to_thread.run_sync(self._removal.result)
        partial = self._directory / f".{state_id}"
        await anyio.to_thread.run_sync(lambda: partial.mkdir(mode=0o700))
        try:
            yield partial
            await anyio.to_thread.run_sync(partial.rename, self._directory / state_id)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(lambda: shutil.rmtree(partial, ignore_errors=True))
            raise

    def meta(self, state_id: str) -> Meta:
        """Raises SnapshotDamaged."""
        try:
            content = json.loads((self._directory / state_id / _META).read_text())
            meta = Meta(**content)
        except (OSError, ValueError, TypeError):
            raise _damaged(state_id, "it is not there, or cannot be read") from None
        if meta.format != FORMAT:
            raise _damaged(state_id, f"it has format {meta.format}; this server knows {FORMAT}")
        return meta

    def size_bytes(self, state_id: str) -> int:
        """On the disk."""
        return sum(path.stat().st_blocks * 512 for path in _files(self._directory / state_id))

    async def copy(self, state_id: str, copy_id: str) -> None:
        """Raises SnapshotDamaged, OSError."""
        self.meta(state_id)
        async with self.writing(copy_id) as directory:
            try:
                await anyio.to_thread.run_sync(_copy_tree, self._directory / state_id, directory)
            except FileNotFoundError:
                raise _damaged(state_id, "it was removed meanwhile") from None

    async def seal(self, state_id: str) -> str:
        """The digest of all that a state holds, and its disk's promise that it stays. Raises SnapshotDamaged."""
        self.meta(state_id)
        return await anyio.to_thread.run_sync(self._seal, state_id, True)

    async def verify(self, state: State) -> None:
        """Raises SnapshotDamaged when it is not what was sealed. A state is read once for each server, and again only
        when its files look different."""
        self.meta(state.id)
        if state.seal is not None:
            digest = await anyio.to_thread.run_sync(self._seal, state.id, False)
            if digest != state.seal:
                raise _damaged(state.id, "its files are not those that were written")

    def _seal(self, state_id: str, sync: bool) -> str:
        directory = self._directory / state_id
        try:
            look = [(str(path), *_look(path)) for path in _files(directory)]
            known = self._known.get(state_id)
            if known is not None and known[0] == look:
                return known[1]
            digest = hashlib.sha256()
            for path in _files(directory):
                digest.update(f"{path.relative_to(directory)}\0{path.stat().st_size}\0".encode())
                digest.update(_file_digest(path, sync))
        except OSError as error:
            raise _damaged(state_id, error.strerror or str(error)) from error
        self._known[state_id] = (look, digest.hexdigest())
        return digest.hexdigest()

    async def remove(self, state_id: str) -> None:
        """No-op when there is none. Nobody waits until its blocks are freed, which takes a file system a third of a
        second for a GiB."""
        self._known.pop(state_id, None)
        await anyio.to_thread.run_sync(self._remove, state_id)

    def _remove(self, state_id: str) -> None:
        gone = self._directory / f".gone-{state_id}"
        with suppress(FileNotFoundError):
            (self._directory / state_id).rename(gone)  # so that half of it is never taken for a state
            reached("state: set aside")
            self._removal = self._remover.submit(shutil.rmtree, gone, ignore_errors=True)

    async def collect(self, wanted: Collection[str]) -> list[str]:
        """Remove all states but `wanted`, and what is half written; returns the ids of the states removed. To be called
        before anything is written."""
        removed = [state_id for state_id in self.ids() if state_id not in wanted]
        for state_id in removed:
            await self.remove(state_id)
        if self._removal is not None:
            await anyio.to_thread.run_sync(self._removal.result)
        for path in self._directory.glob(".*"):
            await anyio.to_thread.run_sync(shutil.rmtree, path, True)
        return removed


def write_meta(directory: Path, meta: Meta) -> None:
    """Into the directory of a state that is being written."""
    (directory / _META).write_text(json.dumps(asdict(meta), sort_keys=True))


def _files(directory: Path) -> list[Path]:
    """Raises OSError: something of it is neither a file nor a directory."""
    found = [path for path in directory.rglob("*") if path.is_symlink() or not path.is_dir()]
    for path in found:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise OSError(errno.EINVAL, f"{path.name} is no file")
    return sorted(found)


def _look(path: Path) -> tuple[int, int, int]:
    looked = path.lstat()
    return looked.st_ino, looked.st_size, looked.st_mtime_ns


def _file_digest(path: Path, sync: bool) -> bytes:
    """Of the file's blocks that are not all zeros: what of the rest is a hole may change without anybody writing."""
    digest = hashlib.sha256()
    done = 0
    with path.open("rb", buffering=0) as file:
        for start, end in list(data_ranges(file.fileno())):
            position = max(done, start - start % _BLOCK)
            file.seek(position)
            while position < end:
                block = file.read(_BLOCK)
                if not block:
                    break
                if block != _ZEROS[: len(block)]:
                    digest.update(f"{position}\0".encode())
                    digest.update(block)
                position += len(block)
            done = position
        if sync:
            os.fdatasync(file.fileno())
    return digest.digest()


def _copy_tree(source: Path, target: Path) -> None:
    for path in _files(source):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        copy.hardlink_to(path)  # nothing writes into a state


def _damaged(state_id: str, why: str) -> SnapshotDamaged:
    return SnapshotDamaged(f"cannot use what was kept as {state_id}: {why}", state=state_id)

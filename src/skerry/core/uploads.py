"""Files that builds copy or start from: archives that clients upload beforehand, each under a hash of their choice."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import anyio
from anyio.to_thread import run_sync as to_thread

from skerry.errors import InvalidRequest, LimitExceeded, RequestTooLarge

UPLOAD_MAX = 4 << 30
"""Bytes of one archive."""
UPLOADS_MAX = 32 << 30
"""Bytes of all archives of one tenant."""
KEPT_S = 7 * 24 * 3600.0
_MEASURED = 1024
"""How often it is measured what a tenant keeps, while as much as it may keep arrives."""


class Uploads:
    """All archives on this server, below a directory for each tenant.

    Every call raises InvalidRequest for what is no hash.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def has(self, tenant_id: str, digest: str) -> bool:
        """Whether there is an archive of that hash; if so it is kept on."""
        try:
            os.utime(self._path(tenant_id, digest))
        except FileNotFoundError:
            return False
        return True

    async def find(self, tenant_id: str, digest: str) -> Path | None:
        """The archive of that hash, if there is one."""
        path = self._path(tenant_id, digest)
        return path if await anyio.Path(path).exists() else None

    async def keep(self, tenant_id: str, digest: str, chunks: AsyncIterator[bytes]) -> None:
        """Keep an archive for the recipes that name that hash, for KEPT_S: wholly or not at all.

        Raises:
            RequestTooLarge: it is larger than UPLOAD_MAX. LimitExceeded: the tenant's are larger than UPLOADS_MAX.
        """
        path = anyio.Path(self._path(tenant_id, digest))
        await path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = path.with_suffix(f".{uuid.uuid4().hex}")
        try:
            async with await anyio.open_file(partial, "wb") as file:
                size = measured_until = 0
                async for chunk in chunks:
                    size += len(chunk)
                    if size > UPLOAD_MAX:
                        raise RequestTooLarge(
                            f"cannot take files of more than {UPLOAD_MAX} bytes for one step", limit=UPLOAD_MAX
                        )
                    if size > measured_until:
                        await _require_room(Path(path.parent), len(chunk))
                        measured_until = size + UPLOADS_MAX // _MEASURED
                    await file.write(chunk)
            await partial.rename(path)
        finally:
            with anyio.CancelScope(shield=True):
                await partial.unlink(missing_ok=True)

    async def tidy(self) -> None:
        """To be called from time to time: forget what is old."""
        await to_thread(self._sweep)

    def _sweep(self) -> None:
        for path in self._directory.glob("*/*"):
            with suppress(FileNotFoundError):  # an upload that has just been finished
                if time.time() - path.stat().st_mtime > KEPT_S:
                    path.unlink()

    def _path(self, tenant_id: str, digest: str) -> Path:
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise InvalidRequest(f"cannot use {digest[:80]!r} as the hash of files: 64 hexadecimal digits are one")
        return self._directory / tenant_id / f"{digest}.tar"


async def _require_room(directory: Path, more: int) -> None:
    """Raises LimitExceeded. What others bring at the same time is counted as far as it has arrived."""
    held = await to_thread(_size_bytes, directory)
    if held + more > UPLOADS_MAX:
        raise LimitExceeded(
            f"cannot take more files: {held} bytes of yours are kept, each for a week; {UPLOADS_MAX} are possible",
            limit=UPLOADS_MAX, current=held,
        )  # fmt: skip


def _size_bytes(directory: Path) -> int:
    total = 0
    for path in directory.iterdir():
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total

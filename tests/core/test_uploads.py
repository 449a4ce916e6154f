"""Archives that are kept for builds."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from skerry.core import uploads
from skerry.core.uploads import Uploads
from skerry.errors import InvalidRequest, LimitExceeded, RequestTooLarge

pytestmark = pytest.mark.anyio
ONE, OTHER = "ab" * 32, "cd" * 32


async def content(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def test_an_archive_is_its_tenants(tmp_path: Path) -> None:
    kept = Uploads(tmp_path)
    assert not kept.has("t", ONE)
    await kept.keep("t", ONE, content(b"arch", b"ive"))
    assert kept.has("t", ONE)
    found = await kept.find("t", ONE)
    assert found is not None
    assert found.read_bytes() == b"archive"
    assert await kept.find("another", ONE) is None


@pytest.mark.parametrize("digest", ["../../etc/passwd", "", "AB" * 32, "ab" * 31])
async def test_only_hashes_name_archives(tmp_path: Path, digest: str) -> None:
    kept = Uploads(tmp_path)
    with pytest.raises(InvalidRequest):
        kept.has("t", digest)
    with pytest.raises(InvalidRequest):
        await kept.keep("t", digest, content(b"x"))


async def test_what_is_kept_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "UPLOADS_MAX", 10)
    monkeypatch.setattr(uploads, "UPLOAD_MAX", 8)
    kept = Uploads(tmp_path)
    await kept.keep("t", ONE, content(b"123456"))
    with pytest.raises(LimitExceeded, match="6 bytes of yours are kept"):
        await kept.keep("t", OTHER, content(b"123456"))
    await kept.keep("another", OTHER, content(b"123456"))
    with pytest.raises(RequestTooLarge):
        await kept.keep("third", ONE, content(b"12345", b"6789"))
    assert sorted(path.name for path in tmp_path.glob("*/*")) == [f"{ONE}.tar", f"{OTHER}.tar"]


async def test_bounds_hold_for_many_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "UPLOADS_MAX", 1_000_000)
    kept, refused = Uploads(tmp_path), []

    async def keep(number: int) -> None:
        try:
            await kept.keep("t", f"{number:064x}", content(*[bytes(100_000)] * 4))
        except LimitExceeded as error:
            refused.append(error)

    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(keep, number)
    assert refused
    # Each may have been measured before the others' last chunks came.
    assert sum(path.stat().st_size for path in tmp_path.glob("*/*")) <= 1_000_000 + 4 * 100_000


async def test_old_archives_go_unless_somebody_asks_for_them(tmp_path: Path) -> None:
    kept = Uploads(tmp_path)
    for digest in (ONE, OTHER):
        await kept.keep("t", digest, content(b"x"))
        os.utime(tmp_path / "t" / f"{digest}.tar", (0, 0))
    assert kept.has("t", OTHER)
    await kept.tidy()
    assert not kept.has("t", ONE)
    assert kept.has("t", OTHER)

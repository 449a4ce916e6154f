"""Which part of a file is asked for, and what becomes of a reply whose file breaks off."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from skerry.errors import FileMissing, SandboxLost
from skerry.facades.download import Download, parse_range
from skerry.facades.streams import RESET


@pytest.mark.parametrize(
    ("header", "found"),
    [(None, None), ("bytes=0-9", (0, 9)), ("bytes=5-", (5, None)), ("bytes=-5", (None, 5)), ("bytes=9-0", None), ("bytes=-", None),
     (f"bytes={'9' * 20}-", (10**18, None)), (f"bytes=0-{'9' * 20}", (0, 10**18)), (f"bytes=-{'9' * 20}", (None, 10**18)),
     ("lines=1-2", None), ("bytes=0-1,3-4", None)],
)  # fmt: skip
def test_ranges(header: str | None, found: object) -> None:
    assert parse_range(header) == found


@pytest.mark.anyio
@pytest.mark.parametrize("pieces", [[], [b"b12224eb"], [b"b1", b"22"]])
async def test_the_kernels_files_have_content_without_a_size(pieces: list[bytes]) -> None:
    @asynccontextmanager
    async def read(*where: str, **how: Any) -> AsyncIterator[Any]:
        async def chunks() -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece

        yield SimpleNamespace(info=SimpleNamespace(size=0), chunks=chunks())

    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    core: Any = SimpleNamespace(files=SimpleNamespace(read=read))
    await Download(core, ("t", "sb", "/proc/f"), "user", None)({"type": "http"}, None, send)  # type: ignore[arg-type]
    assert b"".join(message.get("body", b"") for message in sent) == b"".join(pieces)
    assert sent[-1]["more_body"] is False
    assert ((b"content-length", b"0") in sent[0]["headers"]) is not bool(pieces)


@pytest.mark.anyio
@pytest.mark.parametrize("early", [True, False])
async def test_an_error_is_raised_before_the_reply_and_resets_it_later(early: bool) -> None:
    @asynccontextmanager
    async def read(*where: str, **how: Any) -> AsyncIterator[Any]:
        if early:
            raise FileMissing("no such file")

        async def chunks() -> AsyncIterator[bytes]:
            yield b"half"
            raise SandboxLost("it is gone")

        yield SimpleNamespace(info=SimpleNamespace(size=8), chunks=chunks())

    sent: list[dict[str, Any]] = []
    resets: list[bool] = []

    async def send(message: Any) -> None:
        sent.append(message)

    core: Any = SimpleNamespace(files=SimpleNamespace(read=read))
    scope: Any = {"type": "http", RESET: lambda: resets.append(True)}
    download = Download(core, ("t", "sb", "/f"), "user", None)
    if early:
        with pytest.raises(FileMissing):
            await download(scope, None, send)  # type: ignore[arg-type]
        assert sent == []
    else:
        await download(scope, None, send)  # type: ignore[arg-type]
        assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert resets == [True] * (not early)

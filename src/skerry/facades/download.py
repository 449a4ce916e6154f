"""A file's content as a reply: whole, or the range that was asked for."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from skerry.core import Core
from skerry.errors import Error
from skerry.facades.streams import STALLED_S, reset
from skerry.models import FileInfo
from skerry.ports import FileContent

_BEYOND = 10**18
"""An offset beyond the end of every file."""


class FileDownload(Response):
    """Opens the file when it is sent, so that an error, which it then raises, can be an ordinary reply."""

    media_type = "application/octet-stream"

    def __init__(
        self, look: Callable[[], Awaitable[FileInfo]],
        read: Callable[[int, int | None], AbstractAsyncContextManager[FileContent]], range_header: str | None,
    ) -> None:  # fmt: skip
        """
        Args:
            look: says what the file is.
            read: gives what it holds, by offset and length.
        """
        self._look, self._read = look, read
        self._range = parse_range(range_header)
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ranged = self._range is not None
        async with AsyncExitStack() as stack:
            first, last = self._range or (0, None)
            if first is None:  # a suffix: its beginning depends on the size
                assert last is not None
                size = (await self._look()).size
                first, last = max(0, size - last), None
            length = None if last is None else last - first + 1
            content = await stack.enter_async_context(self._read(first, length))
            size = content.info.size
            if ranged and first >= size:
                await Response(status_code=416, headers={"Content-Range": f"bytes */{size}"})(scope, receive, send)
                return
            end = size if length is None else min(size, first + length)
            headers, chunks = {**content_headers(end - first), **self.more_headers(content.info)}, content.chunks
            if not ranged and not size and (begun := await anext(chunks, b"")):
                del headers["Content-Length"]  # the kernel's files have no size, and content nevertheless
                chunks, end = _joined(begun, chunks), _BEYOND
            if ranged:
                headers["Content-Range"] = f"bytes {first}-{end - 1}/{size}"
            self.init_headers(headers)
            status = 206 if ranged else 200
            await send({"type": "http.response.start", "status": status, "headers": self.raw_headers})
            try:
                await _send_exactly(chunks, end - first, send)
            except (TimeoutError, Error):  # nobody reads, or there is no more to read: it is too late for a reply
                reset(scope)

    def more_headers(self, info: FileInfo) -> Mapping[str, str]:
        """What a façade says beside length and type."""
        return {}


async def _joined(begun: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield begun
    async for chunk in rest:
        yield chunk


class Download(FileDownload):
    """Of a sandbox's file."""

    def __init__(self, core: Core, where: tuple[str, str, str], user: str | None, range_header: str | None) -> None:
        """
        Args:
            where: tenant, sandbox and path.
        """
        files = core.files
        super().__init__(
            lambda: files.stat(*where, user=user),
            lambda offset, length: files.read(*where, user=user, offset=offset, length=length),
            range_header,
        )


async def _send_exactly(chunks: AsyncIterator[bytes], left: int, send: Send) -> None:
    """What Content-Length says: a file that grows meanwhile is cut, one that shrinks breaks off.

    Raises:
        TimeoutError: the caller takes nothing for STALLED_S.
    """
    async for chunk in chunks:
        piece = chunk[:left]
        left -= len(piece)
        with anyio.fail_after(STALLED_S):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        if not left:
            break
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def content_headers(size: int) -> dict[str, str]:
    """Of a reply that is a file's content."""
    return {"Content-Length": str(size), "Accept-Ranges": "bytes", "X-Content-Type-Options": "nosniff"}


def parse_range(header: str | None) -> tuple[int | None, int | None] | None:
    """First and last byte; (None, n) for the last n. None when there is no range we serve, which means all."""
    found = re.fullmatch(r"bytes=([0-9]{0,1000})-([0-9]{0,1000})", header or "")
    if found is None or found.groups() == ("", ""):
        return None
    first, last = (min(int(digits), _BEYOND) if digits else None for digits in found.groups())
    if first is not None and last is not None and last < first:
        return None
    return first, last

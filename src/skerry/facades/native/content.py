"""A file's content on the wire, whatever holds the file: a sandbox or a volume."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query
from starlette.responses import Response

from skerry.errors import IsADirectory
from skerry.facades.download import content_headers
from skerry.models import FileType

Mode = Annotated[str | None, Query(pattern="^[0-7]{3,4}$")]
"""Permission bits, octal."""
_BINARY = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
REPLIES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The content", **_BINARY},
    206: {"description": "The range asked for"},
    416: {"description": "The file has no such range"},
}
"""Of a route that answers with content, for its description."""
BODY = {"requestBody": _BINARY}
"""Of a route that takes content, for its description."""


def octal(mode: str | None) -> int | None:
    return None if mode is None else int(mode, 8)


def without_content(path: str, type: FileType, size: int) -> Response:
    """The reply to HEAD. Raises IsADirectory."""
    if type is FileType.DIRECTORY:
        raise IsADirectory(f"cannot read {path!r}: it is a directory", path=path)
    return Response(headers=content_headers(size), media_type="application/octet-stream")

"""envd's `/files`: content up and down, with signed addresses; and its other plain HTTP endpoints."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from base64 import b64encode
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from email.utils import format_datetime
from typing import Any
from urllib.parse import quote

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from skerry.core import Core
from skerry.errors import FileMissing, IsADirectory, NoSpace, RequestTooLarge
from skerry.facades.download import Download, parse_range
from skerry.facades.e2b import encodings, ownership
from skerry.facades.e2b.connect import Endpoint
from skerry.facades.e2b.errors import CALLERS_MISTAKES, GONE, HTTP_STATUS, ConnectError, connect_error, plain_error
from skerry.facades.e2b.sandbox import ENVD, SandboxCall, gone, measured, sandbox_of
from skerry.facades.file_metadata import file_metadata
from skerry.models import FileInfo

_SIGNATURE = "v1_"
_PART_HEADER_MAX, _PART_HEADERS_MAX = 16 * 1024, 16


def answered(endpoint: Endpoint) -> Endpoint:
    """Errors in the words of envd's HTTP endpoints."""

    async def guarded(request: Request) -> Response:
        user = request.query_params.get("username") or sandbox_of(request).user
        try:
            return await endpoint(request)
        except (ClientDisconnect, *GONE):
            raise
        except Exception as error:
            return _refused(error, user)

    return guarded


def _refused(error: Exception, user: str) -> Response:
    shown = connect_error(error, user)
    if isinstance(error, NoSpace):
        return plain_error(507, error.message)
    if isinstance(error, RequestTooLarge):
        return plain_error(413, error.message)
    status = 404 if isinstance(error, FileMissing) else HTTP_STATUS[shown.code]
    return plain_error(status, shown.message)


# --- who may --------------------------------------------------------------------------------------------------------


def signature(path: str, operation: str, user: str, token: str, expiration: int | None) -> str:
    """What a signed address carries.

    Args:
        operation: `read` or `write`.
        expiration: Unix seconds; None: never.
    """
    text = f"{path}:{operation}:{user}:{token}" + (f":{expiration}" if expiration is not None else "")
    return _SIGNATURE + b64encode(hashlib.sha256(text.encode(errors="replace")).digest()).decode().rstrip("=")


def _authorize(request: Request, sandbox: SandboxCall, operation: str) -> None:
    """By the token in the header, else by the signature of the address. Raises ConnectError."""
    if not sandbox.facts.secure:
        return
    given = request.headers.get("x-access-token")
    if given is not None:
        if not sandbox.tokens.fits(given, sandbox.id, ENVD):
            raise ConnectError("unauthenticated", "access token present in header but does not match")
        return
    query = request.query_params
    shown = query.get("signature")
    if shown is None:
        raise ConnectError("unauthenticated", "missing signature query parameter")
    expires = query.get("signature_expiration")
    if expires is not None and not re.fullmatch(r"-?\d{1,15}", expires):
        raise ConnectError("invalid_argument", "signature_expiration must be a number of seconds")
    wanted = signature(
        query.get("path", ""), operation, query.get("username", ""), sandbox.tokens.of(sandbox.id, ENVD),
        None if expires is None else int(expires),
    )  # fmt: skip
    if not hmac.compare_digest(wanted.encode(), shown.encode(errors="replace")):
        raise ConnectError("unauthenticated", "invalid signature")
    if expires is not None and int(expires) < time.time():
        raise ConnectError("unauthenticated", "signature is already expired")


# --- download -------------------------------------------------------------------------------------------------------


@answered
async def download(request: Request) -> Response:
    """`GET /files`."""
    sandbox = sandbox_of(request)
    user = request.query_params.get("username") or sandbox.user
    _authorize(request, sandbox, "read")
    path = _checked(request.query_params.get("path", ""))
    part = request.headers.get("range")
    encoding = encodings.chosen(request.headers.get("accept-encoding", ""), ranged=parse_range(part) is not None)
    if encoding is None:
        return plain_error(406, "Accept-Encoding must allow gzip, for a whole file, or identity")
    return _Download(sandbox.core, (*sandbox.where, path), user, part, packed=encoding == "gzip")


class _Download(Download):
    """In envd's words."""

    def __init__(
        self, core: Core, where: tuple[str, str, str], user: str, range_header: str | None, *, packed: bool
    ) -> None:
        super().__init__(core, where, user, range_header)
        self._user, self._packed = user, packed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, encodings.gzipped(send) if self._packed else send)
        except GONE as error:
            await (await gone(HTTPConnection(scope), error))(scope, receive, send)
        except CALLERS_MISTAKES as error:
            await _refused(error, self._user or "")(scope, receive, send)

    def more_headers(self, info: FileInfo) -> Mapping[str, str]:
        return {
            "Content-Disposition": f"inline; filename*=utf-8''{quote(info.name, safe='', errors='replace')}",
            "Last-Modified": format_datetime(info.modified_at, usegmt=True),
            "Vary": "Accept-Encoding",
        }


# --- upload ---------------------------------------------------------------------------------------------------------


@answered
async def upload(request: Request) -> Response:
    """`POST /files`: the body is the file, or a form with one part for each file."""
    sandbox = sandbox_of(request)
    user = request.query_params.get("username") or sandbox.user
    _authorize(request, sandbox, "write")
    body = encodings.inflated(request)
    path, metadata = request.query_params.get("path", ""), file_metadata(request.headers)
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    written = []
    if kind == b"multipart/form-data":
        async for part in _parts(body, options.get(b"boundary", b"")):
            if part.name == "file":
                target = _checked(path or part.filename)
                written.append(await _write(sandbox, target, part.chunks(), user, metadata))
        if not written:
            raise ConnectError("invalid_argument", "the form holds no part named 'file'")
    else:
        written.append(await _write(sandbox, _checked(path), body, user, metadata))
    return JSONResponse([_written(info) for info in written])


def _written(info: FileInfo) -> dict[str, Any]:
    noted = {"metadata": info.metadata} if info.metadata else {}
    return {"path": info.path, "name": info.name, "type": "file", **noted}


async def _write(
    sandbox: SandboxCall, path: str, chunks: AsyncIterator[bytes], user: str, metadata: Mapping[str, str]
) -> FileInfo:
    try:
        return await ownership.write(sandbox, path, chunks, user, metadata)
    except IsADirectory:
        raise ConnectError("invalid_argument", f"path is a directory: {path}") from None


def _checked(path: str) -> str:
    if not path or "\0" in path:
        raise ConnectError("invalid_argument", "path must be given, and must not hold a NUL character")
    return path


@dataclass(eq=False)
class _Part:
    """One part of a form; its content must be read before the next part is asked for."""

    source: _Form
    name: str = ""
    filename: str = ""
    held: deque[bytes] = field(default_factory=deque)
    ended: bool = False

    async def chunks(self) -> AsyncIterator[bytes]:
        while True:
            while self.held:
                yield self.held.popleft()
            if self.ended:
                return
            await self.source.more()


class _Form:
    """Feeds a parser and keeps what it finds."""

    def __init__(self, body: AsyncIterator[bytes], boundary: bytes) -> None:
        if not boundary:
            raise ConnectError("invalid_argument", "the form has no boundary")
        self._body = body
        self._field = self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self.parts: deque[_Part] = deque()
        self._open: _Part | None = None
        self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._headers.clear, "on_header_begin": self._clear, "on_header_field": self._on_field,
                "on_header_value": self._on_value, "on_header_end": self._on_header, "on_headers_finished": self._begin,
                "on_part_data": self._data, "on_part_end": self._end, "on_end": self._end_form,
            },
        )  # fmt: skip

    async def more(self) -> None:
        """Read on. Raises ConnectError for what is no form, and when it ends too early."""
        chunk = await anext(self._body, None)
        if chunk is None:
            raise ConnectError("invalid_argument", "the form ended before its last boundary")
        try:
            self._parser.write(chunk)
        except MultipartParseError as error:
            raise ConnectError("invalid_argument", f"the form cannot be read: {error}") from None

    async def next(self) -> _Part | None:
        while not self.parts:
            if self._ended:
                return None
            await self.more()
        return self.parts.popleft()

    def _end_form(self) -> None:
        self._ended = True

    def _clear(self) -> None:
        self._field = self._value = b""

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._field = _bounded(self._field + data[start:end])

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value = _bounded(self._value + data[start:end])

    def _on_header(self) -> None:
        if len(self._headers) < _PART_HEADERS_MAX:
            self._headers[self._field.lower()] = self._value

    def _begin(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name, filename = (options.get(key, b"").decode(errors="replace") for key in (b"name", b"filename"))
        self._open = _Part(self, name, filename)
        self.parts.append(self._open)

    def _data(self, data: bytes, start: int, end: int) -> None:
        assert self._open is not None
        self._open.held.append(data[start:end])

    def _end(self) -> None:
        assert self._open is not None
        self._open.ended = True


def _bounded(header: bytes) -> bytes:
    if len(header) > _PART_HEADER_MAX:
        raise ConnectError("invalid_argument", f"a header of a part exceeds {_PART_HEADER_MAX} bytes")
    return header


async def _parts(body: AsyncIterator[bytes], boundary: bytes) -> AsyncIterator[_Part]:
    form = _Form(body, boundary)
    while (part := await form.next()) is not None:
        yield part
        async for _ in part.chunks():  # what its taker has left
            pass


# --- the rest -------------------------------------------------------------------------------------------------------


async def health(request: Request) -> Response:
    """`GET /health`: the front has answered already when the sandbox is gone."""
    return Response(status_code=204)


@answered
async def metrics(request: Request) -> Response:
    """`GET /metrics`."""
    sandbox = sandbox_of(request)
    sandbox.check_token(request.headers.get("x-access-token"))
    use = (await measured(sandbox.core, *sandbox.where))[-1]
    return JSONResponse(
        {
            "ts": int(use.at.timestamp()), "cpu_count": use.cpu_count, "cpu_used_pct": use.cpu_used_pct,
            "mem_total": use.mem_total, "mem_used": use.mem_used, "mem_cache": 0, "disk_used": use.disk_used,
            "disk_total": use.disk_total,
        }
    )  # fmt: skip


@answered
async def envs(request: Request) -> Response:
    """`GET /envs`: the environment of everything in the sandbox."""
    sandbox = sandbox_of(request)
    sandbox.check_token(request.headers.get("x-access-token"))
    return JSONResponse(dict((await sandbox.core.sandboxes.record(*sandbox.where)).env))

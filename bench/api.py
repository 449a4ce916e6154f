"""The HTTP API through one kept-alive blocking connection: as little client as there can be, so that what is measured
is the server. Rows measured with the SDK say so."""

from __future__ import annotations

import http.client
import json
import select
from collections.abc import Iterator
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

BLOCK = 1024 * 1024


class ApiFailure(Exception):
    """The server answered with an error."""


class Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class RawApi:
    """One connection. Not for use by two threads at a time."""

    def __init__(self, url: str, key: str, *, timeout_s: float = 120.0) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(
            parts.hostname or "127.0.0.1", parts.port or 80, timeout=timeout_s, blocksize=BLOCK
        )
        self._authorization = {"Authorization": f"Bearer {key}"}

    def close(self) -> None:
        self._connection.close()

    def _drop_if_closed(self) -> None:
        """A server closes connections that idle for some seconds; the next request then opens a new one."""
        sock = self._connection.sock
        if sock is not None and select.select([sock], [], [], 0)[0]:
            self._connection.close()

    def _open(self, method: str, path: str, body: Any, headers: dict[str, str]) -> http.client.HTTPResponse:
        self._drop_if_closed()
        self._connection.request(method, path, body=body, headers=self._authorization | headers)
        response = self._connection.getresponse()
        if response.status >= 400:
            text = response.read().decode(errors="replace")
            raise ApiFailure(f"{method} {path}: {response.status} {text[:500]}")
        return response

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """One request with a JSON body (or none) and its decoded JSON reply (None when it has no body)."""
        encoded = None if body is None else json.dumps(body).encode()
        headers = {} if encoded is None else {"Content-Type": "application/json"}
        content = self._open(method, path, encoded, headers).read()
        return json.loads(content) if content else None

    def connect(self) -> None:
        """Make sure that the next request finds the connection open."""
        self.text("/health")

    def text(self, path: str) -> str:
        """The body of a GET, as text."""
        return self._open("GET", path, None, {}).read().decode()

    def create(self, **spec: Any) -> dict[str, Any]:
        created: dict[str, Any] = self.call("POST", "/v1/sandboxes", spec)
        return created

    def destroy(self, sandbox_id: str) -> None:
        self.call("DELETE", f"/v1/sandboxes/{sandbox_id}")

    def run(self, sandbox_id: str, command: list[str]) -> dict[str, Any]:
        """Run a command to its end; its failure is an ApiFailure here, for a benchmark of failures is none."""
        done: dict[str, Any] = self.call("POST", f"/v1/sandboxes/{sandbox_id}/processes/run", {"command": command})
        if done["exit"]["exit_code"] != 0:
            raise ApiFailure(f"{command!r} ended with {done['exit']}")
        return done

    def run_code(self, sandbox_id: str, code: str) -> dict[str, Any]:
        done: dict[str, Any] = self.call("POST", f"/v1/sandboxes/{sandbox_id}/code/run", {"code": code})
        if done["error"] is not None:
            raise ApiFailure(f"{code!r} raised {done['error']}")
        return done

    def upload(self, path: str, source: Readable, size: int) -> None:
        """PUT `size` bytes read from `source` in blocks of 1 MiB."""
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        self._open("PUT", path, source, headers).read()

    def download(self, path: str) -> int:
        """GET and throw away; how many bytes came."""
        response = self._open("GET", path, None, {})
        buffer, count = bytearray(BLOCK), 0
        while taken := response.readinto(buffer):
            count += taken
        return count

    def lines(self, path: str, body: Any) -> Iterator[bytes]:
        """POST and yield the lines of an NDJSON reply as they come."""
        response = self._open("POST", path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        yield from response


def files_path(sandbox_id: str, path: str) -> str:
    return f"/v1/sandboxes/{sandbox_id}/files?path={quote(path, safe='')}"

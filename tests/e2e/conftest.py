"""A real server with real gVisor, started as a person would start it, and a few looks at it from outside."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest

from skerry import Sandbox

T = TypeVar("T")


def eventually(look: Callable[[], T], timeout_s: float = 20.0) -> T:
    """The first true answer of `look`; fails the test when there is none in time."""
    deadline = time.monotonic() + timeout_s
    while not (answer := look()):
        assert time.monotonic() < deadline, f"still {answer!r} after {timeout_s} s"
        time.sleep(0.1)
    return answer


class Server:
    """`skerry up` as a child process."""

    def __init__(
        self, data_dir: Path, *, settings: dict[str, str] | None = None, arguments: tuple[str, ...] = ()
    ) -> None:
        self.data_dir = data_dir
        self.log = data_dir.with_suffix(".log")
        self._environment = {**os.environ, **(settings or {})}
        self._arguments = arguments
        self.start()

    def start(self) -> None:
        """Start (again, on the same data directory) and wait for the ready line."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "skerry", "up", "--json", "--port", "0", "--data-dir", self.data_dir, *self._arguments],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=self._environment,
            )  # fmt: skip
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait(30)
            self._process.stdout.close()
            pytest.fail(f"the server did not start:\n{self.log.read_text()[-4000:]}")
        self.ready: dict[str, Any] = json.loads(line)
        self.api_url: str = self.ready["api_url"]
        self.api_key: str = self.ready["api_key"]
        self.pid: int = self.ready["pid"]

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Stop and wait; the exit status."""
        os.kill(self.pid, how)
        status = self._process.wait(60)
        assert self._process.stdout is not None
        assert self._process.stdout.read() == b"", "exactly one line is printed"
        self._process.stdout.close()
        return status

    def sandbox(self, **options: Any) -> Sandbox:
        return Sandbox.create(api_url=self.api_url, api_key=self.api_key, **options)

    def connect(self, sandbox_id: str) -> Sandbox:
        return Sandbox.connect(sandbox_id, api_url=self.api_url, api_key=self.api_key)

    def memory_mib(self) -> float:
        """Resident memory of the server process."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))

    def open_socket(self) -> socket.socket:
        address = urlsplit(self.api_url)
        return socket.create_connection((address.hostname, address.port), timeout=30)

    def send_raw(self, request: bytes) -> bytes:
        """Send these bytes, close the sending half, and read what comes back."""
        with self.open_socket() as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b""))

    def request(
        self, method: str, path: str, body: bytes = b"", *headers: str, key: str | None = None
    ) -> tuple[int, Any]:
        """One plain HTTP request, with the server's key unless another is given: the status and the content, decoded
        when it is JSON."""
        secret = self.api_key if key is None else key
        head = [f"{method} {path} HTTP/1.1", "host: localhost", f"authorization: Bearer {secret}",
                f"content-length: {len(body)}", "connection: close", *headers]  # fmt: skip
        with self.open_socket() as connection:
            connection.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + body)
            reply = b"".join(iter(lambda: connection.recv(65536), b""))
        status_line, _, rest = reply.partition(b"\r\n")
        headers_part, _, content = rest.partition(b"\r\n\r\n")
        if b"transfer-encoding: chunked" in headers_part.lower():
            content = _join_chunks(content)
        status = int(status_line.split()[1])
        if b"content-type: application/json" in headers_part.lower():
            return status, json.loads(content)
        return status, content.decode(errors="replace") or None


def _join_chunks(content: bytes) -> bytes:
    joined = b""
    while content:
        size, _, content = content.partition(b"\r\n")
        joined, content = joined + content[: int(size, 16)], content[int(size, 16) + 2 :]
    return joined


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("skerry") / "data")
    yield server
    assert server.stop() == 0

"""The native SDK, blocking as E2B's is here: `python -m bench.clients.as_native`. The server and the key come by
environment."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO

from bench.clients.answer import expect, length, seconds, serve
from skerry import Sandbox

TEMPLATE = "code-interpreter-v1"
_BLOCK = 1024 * 1024


def start() -> float:
    """Seconds from nothing to the first result; the end is not counted."""
    begun = time.perf_counter()
    sandbox = Sandbox.create(TEMPLATE)
    try:
        found = sandbox.run_code("1+1").text
        taken = time.perf_counter() - begun
    finally:
        sandbox.kill()
    expect(found, "2")
    return taken


class InOne:
    """Calls to one sandbox that is there."""

    def use(self, sandbox: str) -> None:
        self._sandbox = Sandbox.connect(sandbox)

    def run_code(self) -> float:
        return seconds(lambda: expect(self._sandbox.run_code("1+1").text, "2"))

    def command(self) -> float:
        return seconds(lambda: expect(self._sandbox.exec("true").returncode, 0))

    def write(self, path: str, source: str) -> float:
        """What is in the file `source`, as bytes in memory."""
        data = Path(source).read_bytes()
        return seconds(lambda: self._sandbox.files.write(path, data))

    def write_stream(self, path: str, source: str) -> float:
        with open(source, "rb") as file:
            return seconds(lambda: self._sandbox.files.write(path, _blocks(file)))

    def read(self, path: str, size: int) -> float:
        return seconds(lambda: expect(len(self._sandbox.files.read_bytes(path)), size))

    def read_stream(self, path: str, size: int) -> float:
        def stream() -> None:
            with self._sandbox.files.read_stream(path) as chunks:
                expect(length(chunks), size)

        return seconds(stream)

    def output(self, size: int) -> float:
        """That many bytes of a command's output, each piece handed to a function."""
        count = 0

        def take(piece: str) -> None:
            nonlocal count
            count += len(piece)

        taken = seconds(lambda: self._sandbox.exec(f"head -c {size} /dev/zero", on_stdout=take))
        expect(count, size)
        return taken


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    return iter(partial(file.read, _BLOCK), b"")


if __name__ == "__main__":
    inside = InOne()
    serve(
        {
            "start": start, "use": inside.use, "run_code": inside.run_code, "command": inside.command,
            "write": inside.write, "write_stream": inside.write_stream, "read": inside.read,
            "read_stream": inside.read_stream, "output": inside.output,
        }
    )  # fmt: skip

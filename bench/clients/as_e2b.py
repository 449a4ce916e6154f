"""E2B's own client, unmodified: `python -m bench.clients.as_e2b`, by an interpreter that has it. The server and the key
come by environment."""

from __future__ import annotations

import time
from pathlib import Path

from e2b_code_interpreter import Sandbox

from bench.clients.answer import expect, length, seconds, serve


def start() -> float:
    """Seconds from nothing to the first result; the end is not counted."""
    begun = time.perf_counter()
    sandbox = Sandbox.create()
    try:
        found = sandbox.run_code("1+1").text
        taken = time.perf_counter() - begun
    finally:
        sandbox.kill()
    expect(found, "2")
    return taken


class InOne:
    """Calls to one sandbox, which it makes."""

    def open(self) -> str:
        self._sandbox = Sandbox.create(timeout=3600)
        return str(self._sandbox.sandbox_id)

    def close(self) -> None:
        self._sandbox.kill()

    def run_code(self) -> float:
        return seconds(lambda: expect(self._sandbox.run_code("1+1").text, "2"))

    def command(self) -> float:
        return seconds(lambda: expect(self._sandbox.commands.run("true").exit_code, 0))

    def write(self, path: str, source: str) -> float:
        """What is in the file `source`, as bytes in memory: the client makes a form of them."""
        data = Path(source).read_bytes()
        return seconds(lambda: self._sandbox.files.write(path, data))

    def write_stream(self, path: str, source: str) -> float:
        """From an open file: the client sends it as it is."""
        with open(source, "rb") as file:
            return seconds(lambda: self._sandbox.files.write(path, file))

    def read(self, path: str, size: int) -> float:
        return seconds(lambda: expect(len(self._sandbox.files.read(path, format="bytes")), size))

    def read_stream(self, path: str, size: int) -> float:
        return seconds(lambda: expect(length(self._sandbox.files.read(path, format="stream")), size))

    def output(self, size: int) -> float:
        """That many bytes of a command's output, each piece handed to a function."""
        count = 0

        def take(piece: str) -> None:
            nonlocal count
            count += len(piece)

        taken = seconds(lambda: self._sandbox.commands.run(f"head -c {size} /dev/zero", on_stdout=take, timeout=0))
        expect(count, size)
        return taken


if __name__ == "__main__":
    inside = InOne()
    serve(
        {
            "start": start, "open": inside.open, "close": inside.close, "run_code": inside.run_code,
            "command": inside.command, "write": inside.write, "write_stream": inside.write_stream,
            "read": inside.read, "read_stream": inside.read_stream, "output": inside.output,
        }
    )  # fmt: skip

"""The parent's side: starts a client and tells it what to do."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ANSWER_TIMEOUT_S = 180.0


class ChildFailed(Exception):
    """The client says that something went wrong, or says nothing any more."""


class Child:
    """A client that runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def call(self, action: str, **arguments: Any) -> Any:
        """What `action` returns there. Blocks.

        Raises:
            ChildFailed: it failed, or there was no answer within ANSWER_TIMEOUT_S; then the child is killed.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        too_late = threading.Timer(ANSWER_TIMEOUT_S, self._process.kill)
        too_late.start()
        try:
            self._process.stdin.write(json.dumps({"do": action, "with": arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            too_late.cancel()
        if not line:
            raise ChildFailed(f"{action}: the client has ended")
        answer = json.loads(line)
        if "error" in answer:
            raise ChildFailed(f"{action}: {answer['error']}")
        return answer["result"]


@contextmanager
def started(command: Sequence[str | Path], env: Mapping[str, str]) -> Iterator[Child]:
    """A client, ended afterwards. It starts in the directory where `python -m bench.clients.…` is found."""
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **env}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield Child(process)
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):  # of a call that it did not read
            process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
        process.stdout.close()

"""The protocol's private descriptors: requests are read from one, events written to the other, line by line."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

from .interrupts import Interrupts

LINE_MAX = 16 * 1024 * 1024
"""Bytes of one event, as the protocol has it."""
IDLE_OUTPUT_MAX = 64 * 1024
"""Characters that background threads and processes may write between two runs; more of it is dropped. Nobody may be
reading then, and the agent holds one MiB."""

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
_PRIVATE = 100  # descriptors of ours are at least this, away from those that programs count on


def private_descriptor(descriptor: int) -> int:
    """A copy that is not inherited by programs, with a high number where the limit allows it."""
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _PRIVATE)
    except OSError:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)


class Channel:
    """Safe for threads. A forked child must `disown` it: to the child everything written is dropped."""

    def __init__(self, interrupts: Interrupts) -> None:
        self._requests = private_descriptor(0)
        self._events = private_descriptor(1)
        self._interrupts = interrupts
        self._main_thread = threading.get_ident()
        self._held = b""
        self._idle_left = IDLE_OUTPUT_MAX
        self._running = False
        self.lock = threading.RLock()
        self.run_id: str | None = None
        """Of the run under way, or of the last one."""
        self.muted = False
        """Drop all events: while warming up."""
        self.owned = True

    def requests(self) -> Iterator[dict[str, Any]]:
        """Requests as they come, until the end of input. A line that is no object is an error of the server's."""
        with open(self._requests, "rb", closefd=False) as stream:
            for line in stream:
                request = json.loads(line)
                if not isinstance(request, dict):
                    raise ValueError("a request is a JSON object")
                yield request

    def begin(self, run_id: str | None) -> None:
        """What is sent from now on belongs to this run."""
        with self.lock:
            self.run_id, self._running = run_id, True

    def end(self, execution_count: int) -> None:
        """Send `done`: all that the run has written is sent before."""
        with self.lock:
            self.send("done", execution_count=execution_count)
            self._running, self._idle_left = False, IDLE_OUTPUT_MAX

    def send(self, event: str, /, *, hold: bool = False, **fields: Any) -> None:
        """Write one event of the present run.

        Args:
            hold: it may wait for the next event, which follows at once: one write for both.
        """
        self._write(encode({"event": event, "id": self.run_id, **fields}), hold)

    def send_plain(self, event: str, /, **fields: Any) -> None:
        """Write an event that belongs to no run."""
        self._write(encode({"event": event, **fields}), False)

    def send_text(self, stream: str, text: str) -> None:
        """Output of user code; `stream` is `stdout` or `stderr`."""
        if not self._running:
            if self._idle_left <= 0:
                return
            self._idle_left -= len(text)
        self.send(stream, text=text)

    def disown(self) -> None:
        """In a forked child: this is not our process's conversation."""
        self.owned = False
        self.lock = threading.RLock()  # another thread of the parent may have held it
        for descriptor in (self._requests, self._events):
            os.close(descriptor)

    def _write(self, line: bytes, hold: bool) -> None:
        if self.muted or not self.owned:
            return
        main = threading.get_ident() == self._main_thread
        # Half a line would end the conversation: an interrupt waits until the line is out.
        with self._interrupts.shielded() if main else nullcontext(), self.lock:
            self._held += line
            if hold and len(self._held) < 65_536:
                return
            data, self._held = memoryview(self._held), b""
            while data:
                data = data[os.write(self._events, data) :]


def encode(event: dict[str, Any]) -> bytes:
    """One line. Strings that are no Unicode text (lone surrogates) are shown as `?`."""
    return _ENCODER.encode(event).encode(errors="replace") + b"\n"

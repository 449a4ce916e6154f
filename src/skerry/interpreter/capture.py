"""What is written to descriptors 1 and 2, by Python, by C code or by child processes, becomes events as it comes."""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import io
import os
import select
import sys
import threading
import time
from typing import TextIO

from .channel import Channel, private_descriptor

_READ = 65_536
_PIPE = 1024 * 1024
"""C code that holds the interpreter lock can write this much before it waits for a reader who waits for the lock."""


class _Pipe:
    """One of the two descriptors: its pipe and its decoder."""

    def __init__(self, name: str, descriptor: int) -> None:
        self.name = name
        self._descriptor = descriptor
        reader, writer = os.pipe()
        with contextlib.suppress(OSError):
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIPE)
        self.reader, self._writer = private_descriptor(reader), private_descriptor(writer)
        os.close(reader)
        os.close(writer)
        os.set_blocking(self.reader, False)
        self._identity = os.fstat(self._writer)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        os.dup2(self._writer, descriptor)

    def restore(self) -> None:
        """Put the descriptor back where user code closed or replaced it."""
        try:
            if os.path.samestat(os.fstat(self._descriptor), self._identity):
                return
        except OSError:
            pass
        os.dup2(self._writer, self._descriptor)

    def read(self) -> tuple[int, str]:
        """Bytes read and their text; (0, "") when nothing is waiting."""
        try:
            data = os.read(self.reader, _READ)
        except BlockingIOError:
            return 0, ""
        return len(data), self._decoder.decode(data)

    def rest(self) -> str:
        """What is left of a character that was begun and not finished."""
        return self._decoder.decode(b"", final=True)

    def close(self) -> None:
        os.close(self.reader)
        os.close(self._writer)


class Stream(io.TextIOWrapper):
    """`sys.stdout` and `sys.stderr`: a write for each line; parts of a line wait for at most EVERY_S."""

    EVERY_S = 0.1
    waiting: threading.Event | None = None
    """Set when something waits; None in a forked child."""

    def write(self, text: str, /) -> int:
        count = super().write(text)
        if self.waiting and not text.endswith("\n"):
            self.waiting.set()
        return count


def _stream(descriptor: int, name: str) -> Stream:
    raw = io.FileIO(descriptor, "w", closefd=False)
    stream = Stream(io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace", line_buffering=True)
    raw.name = name
    return stream


class Capture:
    """Reads both pipes: a thread as output comes, and the main thread when it needs to be sure that it has all."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._pipes = (_Pipe("stdout", 1), _Pipe("stderr", 2))
        self._poll = select.poll()
        for pipe in self._pipes:
            self._poll.register(pipe.reader, select.POLLIN)
        self._streams: list[TextIO] = []
        self._replace_streams()
        os.register_at_fork(before=self.flush, after_in_child=self._disown)
        Stream.waiting = threading.Event()
        for task in (self._follow, self._flush_parts):
            threading.Thread(target=task, name="skerry-output", daemon=True).start()

    def _replace_streams(self) -> None:
        sys.stdout = sys.__stdout__ = _stream(1, "<stdout>")  # type: ignore[misc]
        sys.stderr = sys.__stderr__ = _stream(2, "<stderr>")  # type: ignore[misc]
        self._streams = [sys.stdout, sys.stderr]

    def repair(self) -> None:
        """After a run: descriptors and streams that user code closed are usable again. One that it replaced stays."""
        for pipe in self._pipes:
            pipe.restore()
        for name, descriptor in (("stdout", 1), ("stderr", 2)):
            if getattr(getattr(sys, name), "closed", True) is True:
                setattr(sys, name, _stream(descriptor, f"<{name}>"))
                self._streams.append(getattr(sys, name))

    def flush(self) -> None:
        """Write out what Python holds back."""
        for stream in {id(stream): stream for stream in (*self._streams, sys.stdout, sys.stderr)}.values():
            with contextlib.suppress(Exception):  # closed, or no stream at all
                stream.flush()

    def drain(self) -> None:
        """Send all that was written until now."""
        self.flush()
        with self._channel.lock:
            if not self._poll.poll(0):
                return
            for pipe in self._pipes:
                seen = 0
                while seen <= _PIPE:  # a background writer may go on for ever; what came before is in the pipe's size
                    count, text = pipe.read()
                    if not count:
                        break
                    seen += count
                    self._send(pipe, text)

    def finish(self) -> None:
        """Send all, and what is left of a character too: the run is over."""
        self.drain()
        for pipe in self._pipes:
            self._send(pipe, pipe.rest())

    def _send(self, pipe: _Pipe, text: str) -> None:
        if text:
            self._channel.send_text(pipe.name, text)

    def _follow(self) -> None:
        poll = select.poll()
        pipes = {pipe.reader: pipe for pipe in self._pipes}
        for reader in pipes:
            poll.register(reader, select.POLLIN)
        while True:
            for reader, _ in poll.poll():
                with self._channel.lock:
                    self._send(pipes[reader], pipes[reader].read()[1])

    def _flush_parts(self) -> None:
        """Apart from the reader: a flush may wait for it."""
        waiting = Stream.waiting
        assert waiting is not None
        while waiting.wait():
            time.sleep(Stream.EVERY_S)
            waiting.clear()
            self.flush()

    def _disown(self) -> None:
        """In a forked child: it goes on writing to the pipes, and never reads them."""
        Stream.waiting = None
        self._channel.disown()
        for pipe in self._pipes:
            pipe.close()

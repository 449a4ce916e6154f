"""One piece of code under way in a context, and its events gathered into one reply."""

from __future__ import annotations

import secrets
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import anyio

from skerry.core.interpreters import RunEvent as InterpreterEvent
from skerry.errors import Error, ProcessNotFound
from skerry.models import CodeReply, Done, ExecutionError, Result, Stderr, Stdout

RunEvent = InterpreterEvent | Done

GATHERED_MAX = 8 * 1024 * 1024
"""Characters of each stream, and a quarter of the bytes of results, that one gathered reply holds."""
GRACE_S = 5.0
"""From an interrupt to the kill."""
_QUEUE = 64

Signaller = Callable[[int, bool], Awaitable[None]]
"""Sends a signal to the interpreter, or to its whole group."""


class Run:
    """One piece of code under way in a context; iterate over its events."""

    def __init__(self, context_id: str, timeout_s: float | None, signaller: Signaller) -> None:
        self.id = secrets.token_hex(8)
        self.context_id = context_id
        self.started = anyio.current_time()
        self.finished = anyio.Event()
        self.failure: Error | None = None
        self._signaller = signaller
        self._timeout_s = timeout_s
        self._deadline = None if timeout_s is None else self.started + timeout_s
        self._timed_out = self._killed = False
        self._send, self._receive = anyio.create_memory_object_stream[RunEvent](_QUEUE)
        self.abandoned = False

    async def put(self, event: RunEvent) -> None:
        """Called by the context's reader."""
        if isinstance(event, Done):
            self.finished.set()
        if not self.abandoned:
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                await self._send.send(event)

    def __aiter__(self) -> AsyncIterator[RunEvent]:
        return self._events()

    async def _events(self) -> AsyncIterator[RunEvent]:
        while True:
            event = await self._next()
            if isinstance(event, ExecutionError) and self._timed_out:
                event = self._timeout_error(event)
            yield event
            if isinstance(event, Done):
                return

    async def _next(self) -> RunEvent:
        while True:
            with anyio.move_on_at(float("inf") if self._deadline is None else self._deadline):
                try:
                    return await self._receive.receive()
                except anyio.EndOfStream:
                    assert self.failure is not None
                    raise self.failure from None
            await self._escalate()

    async def _escalate(self) -> None:
        """Its time is over: interrupt it; if that does not help, kill it."""
        if not self._timed_out:
            self._timed_out = True
            self._deadline = anyio.current_time() + GRACE_S
            await self.interrupt()
        elif not self._killed:
            self._killed = True
            self._deadline = None
            await self.kill()

    def _timeout_error(self, error: ExecutionError) -> ExecutionError:
        how = "interrupted" if not self._killed else "killed, because it did not react to an interrupt"
        return ExecutionError(
            name="TimeoutError", value=f"the code ran longer than {self._timeout_s:g} s and was {how}",
            traceback=error.traceback,
        )  # fmt: skip

    async def interrupt(self) -> None:
        await self._signal(signal.SIGINT, group=False)

    async def kill(self) -> None:
        await self._signal(signal.SIGKILL, group=True)

    async def _signal(self, number: int, *, group: bool) -> None:
        with suppress(ProcessNotFound):
            await self._signaller(number, group)

    async def finish(self, count: int | None, *, restarted: bool = False) -> None:
        """The interpreter is done with it. `restarted`: because it ended."""
        await self.put(
            Done(
                execution_count=count, duration_s=anyio.current_time() - self.started, context_id=self.context_id,
                context_restarted=restarted,
            )
        )  # fmt: skip

    def fail(self, error: Error) -> None:
        """Nothing more can come: the sandbox is lost."""
        self.failure = error
        self.finished.set()
        self._send.close()

    async def settle(self) -> None:
        """The caller has left: make it end."""
        self.abandoned = True
        self._receive.close()
        if self.finished.is_set():
            return
        with suppress(Error):
            await self.interrupt()
            with anyio.move_on_after(GRACE_S):
                await self.finished.wait()
                return
            await self.kill()
            await self.finished.wait()

    def close(self) -> None:
        self._send.close()
        self._receive.close()


class Gathering:
    """All events of a run in one reply, up to GATHERED_MAX of each."""

    def __init__(self) -> None:
        self._text: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._sizes = {"stdout": 0, "stderr": 0, "results": 0}
        self._results: list[Result] = []
        self._error: ExecutionError | None = None
        self._done: Done | None = None
        self._truncated = False

    def take(self, event: RunEvent) -> None:
        if isinstance(event, Stdout | Stderr):
            room = GATHERED_MAX - self._sizes[event.type]
            if room > 0:
                self._text[event.type].append(event.text[:room])
            self._sizes[event.type] += len(event.text)
            self._truncated |= len(event.text) > room
        elif isinstance(event, Result):
            self._sizes["results"] += sum(len(str(content)) for content in event.data.values())
            if self._sizes["results"] <= 4 * GATHERED_MAX:
                self._results.append(event)
            else:
                self._truncated = True
        elif isinstance(event, ExecutionError):
            self._error = event
        else:
            self._done = event

    def reply(self) -> CodeReply:
        assert self._done is not None
        return CodeReply(
            stdout="".join(self._text["stdout"]), stderr="".join(self._text["stderr"]), results=self._results,
            error=self._error, execution_count=self._done.execution_count, duration_s=self._done.duration_s,
            context_id=self._done.context_id, context_restarted=self._done.context_restarted,
            truncated=self._truncated,
        )  # fmt: skip

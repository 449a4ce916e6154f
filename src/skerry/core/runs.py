"""One piece of code under way in a context, and its events gathered into one reply."""

from __future__ import annotations

import secrets
import signal
from collections import deque
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
        # Not a memory object stream: that gives other tasks a turn at each event, which a short run feels.
        self._events: deque[RunEvent] = deque()
        self._changed = anyio.Event()
        self.abandoned = False
        """Its caller has left: nobody takes events any more."""

    async def put(self, event: RunEvent) -> None:
        """Called by the context's reader; waits while the caller is far behind."""
        if isinstance(event, Done):
            self.finished.set()
        while len(self._events) >= _QUEUE and not self.abandoned:
            await self._changed.wait()
        if not self.abandoned:
            self._events.append(event)
            if len(self._events) == 1:
                self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    def __aiter__(self) -> AsyncIterator[RunEvent]:
        return self._taken()

    async def _taken(self) -> AsyncIterator[RunEvent]:
        while True:
            if self._deadline is not None and anyio.current_time() >= self._deadline:
                await self._escalate()  # however many events there are to read
            if not self._events:
                await self._await_event()
            event = self._events.popleft()
            if len(self._events) == _QUEUE - 1:
                self._change()
            if isinstance(event, ExecutionError) and self._timed_out:
                event = self._timeout_error(event)
            yield event
            if isinstance(event, Done):
                return

    async def _await_event(self) -> None:
        """Raises the failure when nothing more can come."""
        while not self._events:
            if self.failure is not None:
                raise self.failure
            with anyio.move_on_at(float("inf") if self._deadline is None else self._deadline) as waiting:
                await self._changed.wait()
            if waiting.cancelled_caught:
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
        self._change()

    async def settle(self) -> None:
        """The caller has left: make it end."""
        self.abandoned = True
        self._change()
        if self.finished.is_set():
            return
        with suppress(Error):
            await self.interrupt()
            with anyio.move_on_after(GRACE_S):
                await self.finished.wait()
                return
            await self.kill()
            await self.finished.wait()


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

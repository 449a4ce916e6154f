"""Programs in sandboxes."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import anyio

from skerry.core.sandboxes import Live, Sandboxes
from skerry.errors import Error
from skerry.models import Exit, ExitReason, Output, Process, ProcessResult, ProcessSpec, Signal, Started, TerminalSize
from skerry.ports import Agent

ProcessEvent = Started | Output | Exit

GATHERED_MAX = 8 * 1024 * 1024
"""Bytes of each stream that one gathered reply holds."""
_KILL_WAIT_S = 5.0


class Processes:
    def __init__(self, sandboxes: Sandboxes) -> None:
        self._sandboxes = sandboxes

    @asynccontextmanager
    async def run(
        self, tenant_id: str, sandbox_id: str, spec: ProcessSpec
    ) -> AsyncIterator[AsyncIterator[ProcessEvent]]:
        """Start a process and follow it. It goes on when the follower leaves.

        Raises:
            SandboxNotFound, SandboxNotRunning, CannotStartProcess
        """
        async with self._sandboxes.use(tenant_id, sandbox_id) as (live, agent), _start(live, agent, spec) as events:
            yield self._explained(live, events)

    async def start(self, tenant_id: str, sandbox_id: str, spec: ProcessSpec) -> Process:
        """Start a process and leave it alone. Raises as `run`."""
        async with self.run(tenant_id, sandbox_id, spec) as events:
            first = await anext(events)
            assert isinstance(first, Started)
            return first.process

    async def gather(self, tenant_id: str, sandbox_id: str, spec: ProcessSpec) -> ProcessResult:
        """Run a process to its end. It is killed when the caller is cancelled. Raises as `run`."""
        async with self._sandboxes.use(tenant_id, sandbox_id) as (live, agent), _start(live, agent, spec) as events:
            gathering = _Gathering()
            try:
                async for event in self._explained(live, events):
                    gathering.take(event)
            except anyio.get_cancelled_exc_class():
                with anyio.move_on_after(_KILL_WAIT_S, shield=True), suppress(Error):
                    if gathering.pid is not None:
                        await agent.signal(gathering.pid, signal.SIGKILL)
                raise
            return gathering.result()

    @asynccontextmanager
    async def attach(
        self, tenant_id: str, sandbox_id: str, pid: int, *, stdout_offset: int | None = None,
        stderr_offset: int | None = None,
    ) -> AsyncIterator[AsyncIterator[ProcessEvent]]:  # fmt: skip
        """Follow a process from an offset of each stream (default: all that is held). Raises ProcessNotFound."""
        async with (
            self._sandboxes.use(tenant_id, sandbox_id) as (live, agent),
            agent.attach(pid, stdout_offset=stdout_offset, stderr_offset=stderr_offset) as events,
        ):
            yield self._explained(live, events)

    async def list(self, tenant_id: str, sandbox_id: str) -> list[Process]:
        """Those that run, and those that ended in the last minute."""
        async with self._sandboxes.use(tenant_id, sandbox_id) as (_, agent):
            return await agent.processes()

    async def signal(self, tenant_id: str, sandbox_id: str, pid: int, wanted: Signal) -> None:
        """Raises ProcessNotFound."""
        async with self._sandboxes.use(tenant_id, sandbox_id) as (_, agent):
            await agent.signal(pid, wanted.signal, group=wanted.group)

    async def resize(self, tenant_id: str, sandbox_id: str, pid: int, size: TerminalSize) -> None:
        """Raises ProcessNotFound."""
        async with self._sandboxes.use(tenant_id, sandbox_id) as (_, agent):
            await agent.resize(pid, size)

    async def write_stdin(
        self, tenant_id: str, sandbox_id: str, pid: int, chunks: AsyncIterable[bytes] | bytes, *, eof: bool = False
    ) -> None:
        """Returns when the process's pipe or terminal has taken all. Raises ProcessNotFound."""
        async with self._sandboxes.use(tenant_id, sandbox_id) as (_, agent):
            await agent.write_stdin(pid, chunks, eof=eof)

    async def _explained(self, live: Live, events: AsyncIterator[ProcessEvent]) -> AsyncIterator[ProcessEvent]:
        """The same events; a kill for lack of memory is called so."""
        async for event in events:
            # gVisor lets a process whose memory the kernel took away end by SIGKILL or with a plain status 1.
            failed = isinstance(event, Exit) and event.exit_code != 0 and event.reason is not ExitReason.TIMEOUT
            if failed and await self._sandboxes.out_of_memory(live):
                yield event.model_copy(update={"reason": ExitReason.OUT_OF_MEMORY})
            else:
                yield event


def _start(live: Live, agent: Agent, spec: ProcessSpec) -> AbstractAsyncContextManager[AsyncIterator[ProcessEvent]]:
    command = ["/bin/bash", "-l", "-c", spec.command] if isinstance(spec.command, str) else spec.command
    return agent.run(
        command, env=spec.env, cwd=spec.cwd or live.template.workdir, user=spec.user or live.template.user,
        timeout_s=spec.timeout_s, stdin=spec.stdin, terminal=spec.terminal, tag=spec.tag,
    )  # fmt: skip


class _Gathering:
    """A process's output so far, up to GATHERED_MAX of each stream."""

    def __init__(self) -> None:
        self._streams = {"stdout": bytearray(), "stderr": bytearray()}
        self._truncated = False
        self._exit: Exit | None = None
        self.pid: int | None = None

    def take(self, event: ProcessEvent) -> None:
        if isinstance(event, Output):
            stream = self._streams[event.type]
            room = GATHERED_MAX - len(stream)
            stream += event.data[:room]
            self._truncated |= len(event.data) > room or event.dropped > 0
        elif isinstance(event, Started):
            self.pid = event.process.pid
        else:
            self._exit = event

    def result(self) -> ProcessResult:
        assert self.pid is not None
        assert self._exit is not None
        # Not validated: the bytes are no base64 yet.
        return ProcessResult.model_construct(
            pid=self.pid, exit=self._exit, stdout=bytes(self._streams["stdout"]),
            stderr=bytes(self._streams["stderr"]), truncated=self._truncated,
        )  # fmt: skip

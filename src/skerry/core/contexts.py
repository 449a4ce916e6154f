"""`run_code`: interpreters that keep their state between calls.

A context is one interpreter process. Its output is read by one task for as long as it lives; the run under way gets
the events, through a bounded queue, so that a caller who reads slowly slows the code down as a pipe would. Runs wait
for each other. A run whose caller has left is interrupted, and the next one waits until it has really ended.
"""

from __future__ import annotations

import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import anyio
import anyio.abc

from skerry.core import interpreters
from skerry.core.interpreters import Nonsense
from skerry.core.runs import GRACE_S, Gathering, Run, RunEvent
from skerry.core.sandboxes import Live, Sandboxes
from skerry.errors import (
    CannotStartProcess,
    ContextBusy,
    ContextNotFound,
    Error,
    LanguageNotFound,
    ProcessNotFound,
    SandboxLost,
    SandboxStartFailed,
)
from skerry.models import (
    CodeReply,
    CodeSpec,
    Context,
    ContextSpec,
    ExecutionError,
    Exit,
    Output,
    Started,
)
from skerry.ports import Agent, interpreter_command

WAITING_MAX = 32
"""Runs that may wait for a context."""
CONTEXTS_MAX = 64
"""Contexts of one sandbox."""
_START_S = 120.0
_REATTACH_S = 0.05
"""Between two tries to follow an interpreter again whose connection was lost."""


@dataclass(eq=False)
class _State:
    """One context."""

    live: Live
    spec: ContextSpec
    id: str
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    pid: int | None = None
    reading: bool = False
    executions: int = 0
    run: Run | None = None
    turn: anyio.Semaphore = field(default_factory=lambda: anyio.Semaphore(1))
    waiting: int = 0
    configured: bool = False
    attached: anyio.Event = field(default_factory=anyio.Event)
    """Its reader follows the interpreter, or has found that it is gone."""
    ready: anyio.Event = field(default_factory=anyio.Event)
    """It has said so, or is gone."""
    gone: anyio.Event = field(default_factory=anyio.Event)
    died: str | None = None
    """How the interpreter ended, if it has."""
    unavailable: str | None = None
    """Why the template has no interpreter for the language, if it has said so."""
    start_s: float | None = None

    @property
    def is_default(self) -> bool:
        return self.id == f"default-{self.spec.language}"

    def shown(self) -> Context:
        return Context(
            id=self.id, language=self.spec.language, cwd=self.spec.cwd or "~", created_at=self.created_at,
            executions=self.executions, busy=self.run is not None, start_s=self.start_s,
        )  # fmt: skip

    def stored(self) -> dict[str, Any]:
        """What a later server needs to go on with it."""
        return {
            "spec": self.spec.model_dump(mode="json"), "pid": self.pid, "created_at": self.created_at.isoformat(),
        }  # fmt: skip


class Contexts:
    """The contexts of all sandboxes."""

    def __init__(self, sandboxes: Sandboxes) -> None:
        self._sandboxes = sandboxes
        self._states: dict[str, dict[str, _State]] = {}
        self._group: anyio.abc.TaskGroup | None = None
        sandboxes.on_end = (*sandboxes.on_end, self._forget)

    def start(self, group: anyio.abc.TaskGroup) -> None:
        """Readers run in `group`."""
        self._group = group

    # --- contexts ---------------------------------------------------------------------------------------------------

    async def create(self, tenant_id: str, sandbox_id: str, spec: ContextSpec) -> Context:
        """A new context with its interpreter started.

        Raises:
            LanguageNotFound, CannotStartProcess, ContextBusy, SandboxNotRunning
        """
        async with self._sandboxes.use(tenant_id, sandbox_id) as (live, agent):
            state = self._add(live, "ctx_" + secrets.token_hex(6), spec)
            try:
                await self._ensure(state, agent)
            except BaseException:
                self._contexts(live).pop(state.id, None)
                raise
            await self._save(live)
            return state.shown()

    async def list(self, tenant_id: str, sandbox_id: str) -> list[Context]:
        """Those that were made or used, and the default one of each language of the template."""
        async with self._sandboxes.use(tenant_id, sandbox_id) as (live, _):
            for language in live.template.languages:
                self._default(live, language)
            states = sorted(self._contexts(live).values(), key=lambda state: not state.is_default)
            return [state.shown() for state in states]

    async def remove(self, tenant_id: str, sandbox_id: str, context_id: str) -> None:
        """End its interpreter. Raises ContextNotFound."""
        async with self._sandboxes.use(tenant_id, sandbox_id) as (live, agent):
            state = self._known(live, context_id)
            self._contexts(live).pop(context_id)
            await _kill(state, agent)
            await self._save(live)

    async def restart(self, tenant_id: str, sandbox_id: str, context_id: str) -> Context:
        """The same context with a fresh interpreter. Raises ContextNotFound."""
        async with self._sandboxes.use(tenant_id, sandbox_id) as (live, agent):
            state = self._known(live, context_id)
            await _kill(state, agent)
            async with self._turn(state):
                await self._ensure(state, agent)
            await self._save(live)
            return state.shown()

    async def interrupt(self, tenant_id: str, sandbox_id: str, context_id: str) -> None:
        """Interrupt what runs in it, if anything does. Raises ContextNotFound."""
        async with self._sandboxes.use(tenant_id, sandbox_id) as (live, _):
            run = self._known(live, context_id).run
            if run is not None:
                await run.interrupt()

    # --- runs -------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def run(self, tenant_id: str, sandbox_id: str, spec: CodeSpec) -> AsyncIterator[AsyncIterator[RunEvent]]:
        """Run code and follow it; the last event is `Done`. Leaving before that interrupts the code.

        Raises:
            ContextNotFound, ContextBusy, LanguageNotFound, SandboxNotFound, SandboxNotRunning
        """
        async with self._sandboxes.use(tenant_id, sandbox_id) as (live, agent):
            state = self._chosen(live, spec)
            async with self._turn(state):
                await self._ensure(state, agent)

                async def signaller(number: int, group: bool) -> None:
                    if state.pid is not None:
                        await agent.signal(state.pid, number, group=group)

                run = state.run = Run(state.id, spec.timeout_s, signaller)
                try:
                    assert state.pid is not None
                    line = interpreters.request(
                        "run", id=run.id, code=spec.code, env=dict(spec.env), structured=spec.structured
                    )
                    if not state.configured:
                        line, state.configured = self._configuration(state) + line, True
                    with suppress(ProcessNotFound):  # it has just died: its reader will say so
                        await agent.write_stdin(state.pid, line)
                    yield aiter(run)
                finally:
                    with anyio.CancelScope(shield=True):
                        await run.settle()
                    state.run = None

    async def gather(self, tenant_id: str, sandbox_id: str, spec: CodeSpec) -> CodeReply:
        """Run code to its end. Raises as `run`."""
        gathering = Gathering()
        async with self.run(tenant_id, sandbox_id, spec) as events:
            async for event in events:
                gathering.take(event)
        return gathering.reply()

    @asynccontextmanager
    async def _turn(self, state: _State) -> AsyncIterator[None]:
        if state.waiting >= WAITING_MAX:
            raise ContextBusy(
                f"cannot run code in context {state.id}: {WAITING_MAX} runs wait for it already",
                limit=WAITING_MAX, current=state.waiting,
            )  # fmt: skip
        state.waiting += 1
        try:
            await state.turn.acquire()
        finally:
            state.waiting -= 1
        try:
            yield
        finally:
            state.turn.release()

    # --- interpreters -----------------------------------------------------------------------------------------------

    async def _ensure(self, state: _State, agent: Agent) -> None:
        """Make sure that the interpreter runs and is read."""
        if state.pid is not None and not state.reading:
            await self._read(state, agent)  # may find that it is gone
        if state.pid is None:
            try:
                await self._spawn(state, agent)
            except LanguageNotFound:
                self._contexts(state.live).pop(state.id, None)
                raise
            await self._save(state.live)
            if state.pid is None:
                raise SandboxStartFailed(
                    f"cannot start the {state.spec.language} interpreter: {state.died or 'it ended at once'}"
                )

    def _configuration(self, state: _State) -> bytes:
        env = {**state.live.record.env, **state.spec.env}
        return interpreters.request("configure", env=env, cwd=state.spec.cwd, entropy=secrets.token_hex(32))

    async def _spawn(self, state: _State, agent: Agent) -> None:
        began = anyio.current_time()
        command = interpreter_command(state.spec.language)
        state.ready, state.died, state.configured = anyio.Event(), None, False
        try:
            async with agent.run(command, env=state.spec.env, user=state.spec.user, stdin=True) as events:
                started = await anext(events)
        except CannotStartProcess as error:
            raise self._no_language(state, error.message) from error
        assert isinstance(started, Started)
        state.pid = started.process.pid
        await self._read(state, agent)
        with anyio.move_on_after(_START_S):
            await state.ready.wait()
        state.start_s = round(anyio.current_time() - began, 3)
        if state.unavailable is not None:
            raise self._no_language(state, state.unavailable)
        if state.died is not None or not state.ready.is_set():
            await _kill(state, agent)
            raise SandboxStartFailed(
                f"cannot start the {state.spec.language} interpreter: {state.died or 'it does not get ready'}"
            )

    def _no_language(self, state: _State, why: str) -> LanguageNotFound:
        known = sorted(state.live.template.languages)
        return LanguageNotFound(
            f"cannot run {state.spec.language!r}: {why}; this template has {', '.join(known) or 'no language'}",
            languages=known,
        )  # fmt: skip

    async def _read(self, state: _State, agent: Agent) -> None:
        """Have the interpreter's output read; returns when it is, or when the interpreter turns out to be gone."""
        assert self._group is not None
        state.reading, state.attached, state.gone = True, anyio.Event(), anyio.Event()
        self._group.start_soon(self._reader, state, agent)
        await state.attached.wait()

    async def _reader(self, state: _State, agent: Agent) -> None:
        """Follow an interpreter to its end."""
        assert state.pid is not None
        pid, reading = state.pid, _Reading(state)
        lost: Error | None = None
        try:
            # An agent that stays away ends its sandbox, and that ends this.
            while (lost := await self._follow(pid, agent, reading)) and not state.live.ended.is_set():
                with anyio.move_on_after(_REATTACH_S):
                    await state.live.ended.wait()
        finally:
            state.reading = False
            state.gone.set()
            state.attached.set()
            if state.pid == pid:
                state.pid = None
            if reading.end is None and state.run is not None:
                state.run.fail(lost or SandboxLost("cannot follow the code: the server is stopping"))
        if reading.end is not None:
            await self._died(state, reading)

    async def _follow(self, pid: int, agent: Agent, reading: _Reading) -> Error | None:
        """Until the interpreter's end, which `reading` then knows, or until the connection is lost: the error."""
        try:
            async with agent.attach(
                pid, stdout_offset=reading.read_stdout, stderr_offset=reading.read_stderr
            ) as events:
                async for event in events:
                    await reading.take(event)
        except Nonsense as nonsense:
            reading.end = str(nonsense)
            with suppress(Error):
                await agent.signal(pid, signal.SIGKILL)
        except SandboxLost as error:
            return error
        except Error as error:
            reading.end = error.message
        return None

    async def _died(self, state: _State, reading: _Reading) -> None:
        end = reading.end or "it ended"
        if not state.ready.is_set() and (words := reading.last_words.strip()):
            end = f"{end}: {words.splitlines()[-1][:500]}"
        if reading.ended and not state.live.ended.is_set() and await self._sandboxes.out_of_memory(state.live):
            end = f"it needed more memory than the sandbox's {state.live.sandbox.limits.memory_mib} MiB"
        state.died = end
        state.ready.set()
        if run := state.run:
            words = reading.last_words or f"InterpreterDied: {end}"
            await run.put(ExecutionError(name="InterpreterDied", value=end, traceback=words))
            await run.finish(None, restarted=True)

    # --- bookkeeping ------------------------------------------------------------------------------------------------

    def _contexts(self, live: Live) -> dict[str, _State]:
        """The contexts of a sandbox; those that an earlier server knew come back here."""
        if live.id not in self._states:
            self._states[live.id] = {}
            for context_id, stored in live.record.internal.get("contexts", {}).items():
                state = self._add(live, context_id, ContextSpec.model_validate(stored["spec"], strict=False))
                state.pid = stored["pid"]
                state.created_at = datetime.fromisoformat(stored["created_at"])
        return self._states[live.id]

    def _add(self, live: Live, context_id: str, spec: ContextSpec) -> _State:
        contexts = self._contexts(live)
        if len(contexts) >= CONTEXTS_MAX:
            raise ContextBusy(
                f"cannot make another context: the sandbox has {CONTEXTS_MAX} already; remove one",
                limit=CONTEXTS_MAX, current=len(contexts),
            )  # fmt: skip
        state = contexts[context_id] = _State(live, spec, context_id)
        return state

    def _known(self, live: Live, context_id: str) -> _State:
        try:
            return self._contexts(live)[context_id]
        except KeyError:
            raise ContextNotFound(
                f"cannot find context {context_id}: the sandbox has none with that id", context_id=context_id
            ) from None

    def _chosen(self, live: Live, spec: CodeSpec) -> _State:
        """The context asked for, or the default one of the language, which takes the interpreter that came with the
        sandbox."""
        if spec.context_id is not None:
            return self._known(live, spec.context_id)
        return self._default(live, spec.language)

    def _default(self, live: Live, language: str) -> _State:
        context_id = f"default-{language}"
        state = self._contexts(live).get(context_id)
        if state is None:
            state = self._add(live, context_id, ContextSpec(language=language))
            state.pid = live.warm.get(language)
        return state

    async def _save(self, live: Live) -> None:
        """Write down what a later server needs."""
        contexts = {state.id: state.stored() for state in self._contexts(live).values()}
        if contexts != live.record.internal.get("contexts"):
            await self._sandboxes.save(live, internal={**live.record.internal, "contexts": contexts})

    def _forget(self, sandbox_id: str) -> None:
        self._states.pop(sandbox_id, None)


class _Reading:
    """Turns an interpreter's output into what its context and its run need to know."""

    def __init__(self, state: _State) -> None:
        self._state = state
        self._lines = interpreters.Lines()
        self._stderr = bytearray()
        self.read_stdout: int | None = None
        self.read_stderr: int | None = None
        """Offsets up to which the output was read; None: nothing yet."""
        self.end: str | None = None
        self.ended = False

    @property
    def last_words(self) -> str:
        return self._stderr.decode(errors="replace")

    async def take(self, event: Started | Output | Exit) -> None:
        """Raises Nonsense."""
        if isinstance(event, Started):
            self._state.attached.set()
        elif isinstance(event, Exit):
            self.ended = True
            self.end = _how(event)
        elif event.type == "stderr":
            self.read_stderr = event.offset + len(event.data)
            self._stderr += event.data
            del self._stderr[:-16_384]
        else:
            if event.dropped or (event.offset and self.read_stdout is None):
                self._lines.skip_to_next()
            self.read_stdout = event.offset + len(event.data)
            for line in self._lines.feed(event.data):
                await self._line(line)

    async def _line(self, line: bytes) -> None:
        event = interpreters.parse(line)
        name = event["event"]
        if name == "ready":
            self._state.ready.set()
            return
        if name == "unavailable":
            self._state.unavailable = str(event.get("reason"))[:1000]
            return
        run = self._state.run
        if run is None or event.get("id") != run.id:
            return  # of an earlier run, whose caller has left, or of an earlier server
        if name == "done":
            self._state.executions += 1
            count = event.get("execution_count")
            await run.finish(count if type(count) is int else None)
        elif (shown := interpreters.run_event(event)) is not None:
            await run.put(shown)


def _how(exit: Exit) -> str:
    """How an interpreter ended, for people."""
    if exit.signal is not None:
        try:
            name = signal.Signals(exit.signal).name
        except ValueError:
            name = str(exit.signal)
        return f"its interpreter was ended by signal {name}"
    return f"its interpreter exited with status {exit.exit_code}"


async def _kill(state: _State, agent: Agent) -> None:
    """End the interpreter, and wait for its reader to notice."""
    if state.pid is not None:
        with suppress(ProcessNotFound):
            await agent.signal(state.pid, signal.SIGKILL)
        if state.reading:
            with anyio.move_on_after(GRACE_S):
                await state.gone.wait()
        state.pid = None

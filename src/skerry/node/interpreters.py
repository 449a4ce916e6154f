"""What runs in a sandbox before anybody has claimed it: its interpreters' first cells, and one of each first call."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from skerry.errors import SandboxStartFailed
from skerry.models import Exit, Output, Started
from skerry.ports import WARM_LANGUAGES, Agent, interpreter_command

FIRST_CELLS = ("1+1", "print('warm')", "1/0", "%time None", "display({'warm': 1})")
"""A value, output, an error, a magic, a display: what a first run would load and compile is then in memory."""

REHEARSAL_CELLS = ("1+1", "print('warm')")
"""What a restored interpreter runs, so that the memory that every cell needs is mapped in its new sandbox."""

_LINE_MAX = 16 * 1024 * 1024


async def start(agent: Agent, language: str) -> int:
    """Start the interpreter of `language`, wait until it is ready, and run FIRST_CELLS in it.

    Returns:
        Its pid inside. It runs on, with its input open; its output so far stays readable by `Agent.attach`.

    Raises:
        SandboxStartFailed: it ended or said something that is not its protocol.
    """
    async with agent.run((*interpreter_command(language), "--warm"), stdin=True, user="user") as events:
        conversation = _Conversation(language, events)
        await conversation.expect("ready")
        await conversation.run(agent, FIRST_CELLS)
        return conversation.pid


async def start_all(agent: Agent, languages: Sequence[str]) -> dict[str, int]:
    """Start the interpreters of the languages that are kept warm; returns language → pid. Raises as `start` does."""
    return {language: await start(agent, language) for language in languages if language in WARM_LANGUAGES}


async def rehearse(agent: Agent, running: Mapping[str, int]) -> None:
    """Make the calls that a caller will make first, in a sandbox that was just restored: its memory is mapped page by
    page as it is touched, which makes each first call many times slower than the second.

    Args:
        running: language → pid of its interpreter.

    Raises:
        SandboxStartFailed: an interpreter ended or said something that is not its protocol.
    """
    for language, pid in running.items():
        async with agent.attach(pid) as events:
            conversation = _Conversation(language, events, pid)
            await conversation.configure(agent)
            await conversation.run(agent, REHEARSAL_CELLS)
    async with agent.run(["true"]) as events:
        async for _ in events:
            pass
    await agent.stat("/")


class _Conversation:
    """Reads an interpreter's events from its process's output."""

    def __init__(self, language: str, events: AsyncIterator[Started | Output | Exit], pid: int = 0) -> None:
        self._language = language
        self._events = events
        self._held = bytearray()
        self._errors = bytearray()
        self.pid = pid

    async def configure(self, agent: Agent) -> None:
        """Reseed it, and let the caller's own configuration still be its first."""
        request = {"op": "configure", "entropy": secrets.token_hex(32), "rehearsal": True}
        await agent.write_stdin(self.pid, json.dumps(request).encode() + b"\n")
        await self.expect("configured")

    async def run(self, agent: Agent, cells: Sequence[str]) -> None:
        """Run cells one after the other."""
        for code in cells:
            run_id = f"warm-{secrets.token_hex(4)}"  # earlier events are replayed: an id is never used twice
            request = {"op": "run", "id": run_id, "code": code, "env": {}}
            await agent.write_stdin(self.pid, json.dumps(request).encode() + b"\n")
            while (await self.expect("done")).get("id") != run_id:
                pass

    async def expect(self, name: str) -> dict[str, Any]:
        """Read until an event of that name."""
        while True:
            line, found, rest = self._held.partition(b"\n")
            if not found:
                await self._read()
                continue
            self._held = rest
            event = self._parse(bytes(line))
            if event.get("event") == name:
                return event

    async def _read(self) -> None:
        event = await anext(self._events, None)
        if event is None or isinstance(event, Exit):
            raise self._failure("it ended")
        if isinstance(event, Started):
            self.pid = event.process.pid
        elif event.type == "stdout":
            self._held += event.data
            if len(self._held) > _LINE_MAX:
                raise self._failure("its line is too long")
        else:
            self._errors += event.data
            del self._errors[:-2000]

    def _parse(self, line: bytes) -> dict[str, Any]:
        try:
            event = json.loads(line)
        except ValueError:
            raise self._failure("it wrote no JSON") from None
        if not isinstance(event, dict):
            raise self._failure("it wrote no JSON object")
        return event

    def _failure(self, why: str) -> SandboxStartFailed:
        return SandboxStartFailed(
            f"cannot start the {self._language} interpreter: {why}", stderr=self._errors.decode(errors="replace")
        )

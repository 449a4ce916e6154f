"""Starting an interpreter in a sandbox and running its first cells, before anybody has claimed it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from skerry.errors import SandboxStartFailed
from skerry.models import Exit, Output, Started
from skerry.ports import INTERPRETERS, Agent

FIRST_CELLS = ("1+1", "print('warm')", "1/0", "%time None", "display({'warm': 1})")
"""A value, output, an error, a magic, a display: what a first run would load and compile is then in memory."""

_LINE_MAX = 16 * 1024 * 1024


async def start(agent: Agent, language: str) -> int:
    """Start the interpreter of `language`, wait until it is ready, and run FIRST_CELLS in it.

    Returns:
        Its pid inside. It runs on, with its input open; its output so far stays readable by `Agent.attach`.

    Raises:
        SandboxStartFailed: it ended or said something that is not its protocol.
    """
    async with agent.run(INTERPRETERS[language], stdin=True, user="user") as events:
        conversation = _Conversation(language, events)
        await conversation.expect("ready")
        for number, code in enumerate(FIRST_CELLS):
            request = {"op": "run", "id": f"warm-{number}", "code": code, "env": {}}
            await agent.write_stdin(conversation.pid, json.dumps(request).encode() + b"\n")
            await conversation.expect("done")
        return conversation.pid


async def start_all(agent: Agent, languages: Sequence[str]) -> dict[str, int]:
    """Start the interpreter of each language that has one; returns language → pid. Raises as `start` does."""
    return {language: await start(agent, language) for language in languages if language in INTERPRETERS}


class _Conversation:
    """Reads an interpreter's events from its process's output."""

    def __init__(self, language: str, events: AsyncIterator[Started | Output | Exit]) -> None:
        self._language = language
        self._events = events
        self._held = bytearray()
        self._errors = bytearray()
        self.pid = 0

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

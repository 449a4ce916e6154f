"""Long commands with their output as it comes; nothing of them survives the caller."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence

import anyio
from anyio.abc import Process

_LINE_MAX = 4096


class CommandFailed(Exception):
    """It ended with another code than 0."""


ISOLATED = (
    "unshare",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child=KILL",
    "--mount-proc",
    "--propagation",
    "private",
    "--",
)
"""Before a command: with mounts and processes of its own, which end with it, however it ends."""


async def follow(command: Sequence[str], env: Mapping[str, str]) -> AsyncGenerator[str, None]:
    """Yield a command's output, both streams in one, line by line.

    Args:
        env: its whole environment.

    Raises:
        CommandFailed: it failed or could not be started.
    """
    try:
        process = await anyio.open_process(
            command, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT, env=env, start_new_session=True
        )
    except OSError as error:
        raise CommandFailed(f"cannot start {command[0]}: {error.strerror}") from error
    try:
        async for line in _lines(process):
            yield line
        if code := await process.wait():
            raise CommandFailed(f"{command[0]} ended with code {code}")
    finally:
        with anyio.CancelScope(shield=True):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.aclose()


async def _lines(process: Process) -> AsyncIterator[str]:
    assert process.stdout is not None
    held = b""
    async for data in process.stdout:
        *lines, held = (held + data).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace").rstrip()
        if len(held) > _LINE_MAX:
            yield held.decode(errors="replace")
            held = b""
    if held:
        yield held.decode(errors="replace")

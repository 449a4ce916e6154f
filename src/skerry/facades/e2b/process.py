"""envd's Process service (`process.Process`): programs, their input and output, terminals."""

from __future__ import annotations

import signal
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from skerry.errors import ProcessNotFound
from skerry.facades.e2b.connect import Call
from skerry.facades.e2b.errors import ConnectError
from skerry.facades.e2b.read import Content, integer, mapping, optional_text, text, texts
from skerry.models import Exit, ExitReason, Output, Process, ProcessSpec, Signal, Started, TerminalSize
from skerry.ports import is_interpreter

_SIGNALS = {"SIGNAL_SIGTERM": signal.SIGTERM, "SIGNAL_SIGKILL": signal.SIGKILL, 15: signal.SIGTERM, 9: signal.SIGKILL}


async def list_processes(call: Call, _: Content) -> Content:
    """`List`: those that run, but for interpreters."""
    known = await call.sandbox.core.processes.list(*call.sandbox.where)
    running = [process for process in known if not process.exit and not is_interpreter(process.command)]
    return {"processes": [_process_info(process) for process in running]}


def _process_info(process: Process) -> Content:
    config = {"cmd": process.command[0], "args": process.command[1:], "envs": {}, "cwd": process.cwd}
    return {"config": config, "pid": process.pid, **({"tag": process.tag} if process.tag is not None else {})}


@asynccontextmanager
async def start(call: Call, content: Content) -> AsyncIterator[AsyncIterator[Content]]:
    """`Start`: a process, followed. It goes on when the client leaves; it is killed when its time is over."""
    config = mapping(content, "process")
    terminal = _size(content) if content.get("pty") is not None else None
    spec = ProcessSpec(
        command=[text(config, "cmd"), *texts(config, "args")],
        env={name: text(mapping(config, "envs"), name) for name in mapping(config, "envs")},
        cwd=optional_text(config, "cwd") or None, user=call.user, timeout_s=call.timeout_s, terminal=terminal,
        stdin=terminal is None and content.get("stdin", True) is not False, tag=optional_text(content, "tag"),
    )  # fmt: skip
    async with call.sandbox.core.processes.run(*call.sandbox.where, spec) as events:
        yield _shown(events, pty=terminal is not None)


@asynccontextmanager
async def connect(call: Call, content: Content) -> AsyncIterator[AsyncIterator[Content]]:
    """`Connect`: follow a process that runs, or ended a moment ago, from now on."""
    process = await _selected(call, content)
    processes = call.sandbox.core.processes
    async with processes.attach(*call.sandbox.where, process.pid) as events:
        yield _shown(events, pty=process.terminal)


async def _shown(events: AsyncIterator[Started | Output | Exit], *, pty: bool) -> AsyncIterator[Content]:
    async for event in events:
        if isinstance(event, Output):
            name = "pty" if pty else event.type
            yield {"event": {"data": {name: b64encode(event.data).decode()}}}
        elif isinstance(event, Started):
            yield {"event": {"start": {"pid": event.process.pid}}}
        elif event.reason is ExitReason.TIMEOUT:
            raise ConnectError("deadline_exceeded", "context deadline exceeded: the process was killed")
        else:
            yield {"event": {"end": _end(event)}}


def _end(exit: Exit) -> Content:
    """As Go's `os/exec` words it, which envd is written with."""
    if exit.signal is not None:
        status = f"signal: {_SIGNAL_WORDS.get(exit.signal, f'signal {exit.signal}')}"
        return {"exitCode": -1, "exited": False, "status": status, "error": status}
    status = f"exit status {exit.exit_code}"
    error = {"error": status} if exit.exit_code else {}
    return {"exitCode": exit.exit_code, "exited": True, "status": status, **error}


_SIGNAL_WORDS = {
    1: "hangup", 2: "interrupt", 3: "quit", 4: "illegal instruction", 5: "trace/breakpoint trap", 6: "aborted",
    7: "bus error", 8: "floating point exception", 9: "killed", 10: "user defined signal 1", 11: "segmentation fault",
    12: "user defined signal 2", 13: "broken pipe", 14: "alarm clock", 15: "terminated",
}  # fmt: skip


async def send_input(call: Call, content: Content) -> Content:
    """`SendInput`."""
    process = await _selected(call, content)
    await _write(call, process, mapping(content, "input"))
    return {}


async def stream_input(call: Call, messages: AsyncIterator[Content]) -> Content:
    """`StreamInput`: the first message selects the process, the others are its input."""
    process: Process | None = None
    async for message in messages:
        if "start" in message:
            process = await _selected(call, mapping(message, "start"))
        elif "data" in message:
            if process is None:
                raise ConnectError("invalid_argument", "the first message must select a process")
            await _write(call, process, mapping(mapping(message, "data"), "input"))
    return {}


async def _write(call: Call, process: Process, given: Content) -> None:
    kind = "pty" if "pty" in given else "stdin"
    if (kind == "pty") != process.terminal:
        have = "a terminal" if process.terminal else "no terminal"
        raise ConnectError("failed_precondition", f"cannot write {kind}: process {process.pid} has {have}")
    try:
        data = b64decode(text(given, kind), validate=True)
    except ValueError:
        raise ConnectError("invalid_argument", f"{kind} is not base64") from None
    await call.sandbox.core.processes.write_stdin(*call.sandbox.where, process.pid, data)


async def close_stdin(call: Call, content: Content) -> Content:
    """`CloseStdin`."""
    process = await _selected(call, content)
    if process.terminal:
        raise ConnectError("failed_precondition", "a terminal's input is ended by sending it 0x04")
    await call.sandbox.core.processes.write_stdin(*call.sandbox.where, process.pid, b"", eof=True)
    return {}


async def send_signal(call: Call, content: Content) -> Content:
    """`SendSignal`: to the process and its group: what a killed shell started goes with it."""
    process = await _selected(call, content)
    wanted = content.get("signal")
    number = _SIGNALS.get(wanted) if isinstance(wanted, str | int) else None
    if number is None:
        raise ConnectError("invalid_argument", f"invalid signal: {wanted!r}")
    await call.sandbox.core.processes.signal(*call.sandbox.where, process.pid, Signal(signal=int(number)))
    return {}


async def update(call: Call, content: Content) -> Content:
    """`Update`: resize the terminal."""
    process = await _selected(call, content)
    if content.get("pty") is not None:
        await call.sandbox.core.processes.resize(*call.sandbox.where, process.pid, _size(content))
    return {}


def _size(content: Content) -> TerminalSize:
    size = mapping(mapping(content, "pty"), "size")
    cols, rows = integer(size, "cols", 80), integer(size, "rows", 24)
    if not (1 <= cols <= 4096 and 1 <= rows <= 4096):
        raise ConnectError("invalid_argument", f"a terminal of {cols} x {rows} is not possible: 1 to 4096 each")
    return TerminalSize(cols=cols, rows=rows)


async def _selected(call: Call, content: Content) -> Process:
    """The process that a ProcessSelector means; one that runs comes before one that has ended."""
    selector: dict[str, Any] = mapping(content, "process")
    known = sorted(await call.sandbox.core.processes.list(*call.sandbox.where), key=lambda process: bool(process.exit))
    if "pid" in selector:
        pid = integer(selector, "pid")
        for process in known:
            if process.pid == pid:
                return process
        raise ProcessNotFound(f"process with pid {pid} not found")
    tag = text(selector, "tag")
    for process in known:
        if process.tag == tag:
            return process
    raise ProcessNotFound(f"process with tag {tag} not found")

"""Every call, with the real agent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from skerry.agentlink import Link
from skerry.errors import CannotStartProcess, FileMissing, IsADirectory, PortNotOpen, ProcessNotFound
from skerry.models import Exit, ExitReason, FileType, Output, Started, TerminalSize, WatchEventType

pytestmark = pytest.mark.anyio


async def run(link: Link, script: str, **options) -> tuple[bytes, bytes, Exit]:
    streams = {"stdout": b"", "stderr": b""}
    exit: Exit | None = None
    async with link.run(["/bin/sh", "-c", script], user="root", **options) as events:
        async for event in events:
            if isinstance(event, Output):
                assert event.offset == len(streams[event.type])
                streams[event.type] += event.data
            elif isinstance(event, Exit):
                exit = event
    assert exit is not None
    return streams["stdout"], streams["stderr"], exit


async def test_a_process_from_start_to_exit(link: Link) -> None:
    out, err, exit = await run(link, "echo $A; echo err >&2; pwd; exit 3", env={"A": "b"}, cwd="/usr")
    assert (out, err) == (b"b\n/usr\n", b"err\n")
    assert (exit.exit_code, exit.signal, exit.reason) == (3, None, ExitReason.EXITED)


async def test_signals_timeouts_and_input(link: Link) -> None:
    _, _, exit = await run(link, "sleep 60", timeout_s=0.2)
    assert exit.reason is ExitReason.TIMEOUT
    async with link.run(["cat"], user="root", stdin=True) as events:
        started = await anext(events)
        assert isinstance(started, Started)
        pid = started.process.pid
        await link.write_stdin(pid, b"typed")
        assert (await anext(events)).data == b"typed"
        await link.write_stdin(pid, b"", eof=True)
        assert isinstance(await anext(events), Exit)
    with pytest.raises(ProcessNotFound):
        await link.signal(2**30, 9)
    with pytest.raises(CannotStartProcess):
        await run(link, "true", cwd="/nowhere")


async def test_a_terminal_and_its_size(link: Link) -> None:
    out, _, exit = await run(link, "stty size", terminal=TerminalSize(cols=91, rows=31))
    assert out == b"31 91\r\n"
    assert exit.exit_code == 0


async def test_attaching_from_an_offset(link: Link) -> None:
    async with link.run(["/bin/sh", "-c", "printf 0123456789; sleep 0.3; printf end"], user="root") as events:
        pid = (await anext(events)).process.pid
        assert (await anext(events)).data == b"0123456789", "an offset is of what was there already"
    async with link.attach(pid, stdout_offset=4) as events:
        await anext(events)
        first = await anext(events)
        assert (first.offset, first.data) == (4, b"456789")
        assert (await anext(events)).data == b"end"
        assert isinstance(await anext(events), Exit)
    assert pid in [process.pid for process in await link.processes()]


async def test_output_that_nobody_reads_is_dropped_and_counted(link: Link) -> None:
    async with link.run(["/bin/sh", "-c", "head -c 3000000 /dev/zero; sleep 0.2"], user="root") as events:
        pid = (await anext(events)).process.pid
    await anyio.sleep(0.5)
    async with link.attach(pid) as events:
        pieces = [event async for event in events if isinstance(event, Output)]
    held = sum(len(piece.data) for piece in pieces)
    assert pieces[0].offset == 3_000_000 - held
    assert 2**19 <= held < 2**21


async def test_a_reader_that_stalls_holds_up_only_its_own_process(link: Link) -> None:
    async with link.run(["/bin/sh", "-c", "head -c 50000000 /dev/zero"], user="root") as stalled:
        await anext(stalled)
        out, _, _ = await run(link, "head -c 5000000 /dev/zero")
        assert len(out) == 5_000_000
        rest = sum([len(event.data) async for event in stalled if isinstance(event, Output)])
        assert rest == 50_000_000


async def test_files(link: Link, tmp_path: Path) -> None:
    path = str(tmp_path / "deep" / "file")
    content = bytes(range(256)) * 40_000

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(content), 70_001):
            yield content[start : start + 70_001]

    info = await link.write_file(path, pieces(), user="root", mode=0o640)
    assert (info.size, info.mode, info.type) == (len(content), 0o640, FileType.FILE)
    async with link.read_file(path, user="root") as file:
        assert b"".join([chunk async for chunk in file.chunks]) == content
    async with link.read_file(path, user="root", offset=100, length=50) as file:
        assert b"".join([chunk async for chunk in file.chunks]) == content[100:150]
    assert (await link.stat(path, user="root")).size == len(content)
    await link.make_directory(str(tmp_path / "made"), user="root")
    await link.rename(path, str(tmp_path / "made" / "moved"), user="root")
    entries, truncated = await link.list_files(str(tmp_path), user="root", depth=2)
    assert {entry.path for entry in entries} >= {str(tmp_path / "deep"), str(tmp_path / "made" / "moved")}
    assert not truncated
    assert (await link.list_files(str(tmp_path), user="root", limit=1))[1]
    assert (await link.set_attributes(str(tmp_path / "made"), user="root", mode=0o700)).mode == 0o700
    await link.remove(str(tmp_path / "made"), user="root", recursive=True)
    with pytest.raises(FileMissing):
        await link.stat(str(tmp_path / "made"), user="root")
    with pytest.raises(IsADirectory):
        async with link.read_file(str(tmp_path), user="root"):
            pass


async def test_a_write_that_breaks_off_changes_nothing(link: Link, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old")

    async def breaking() -> AsyncIterator[bytes]:
        yield b"x" * 2_000_000
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011
        await link.write_file(str(tmp_path / "f"), breaking(), user="root")
    await link.ping()
    assert (tmp_path / "f").read_text() == "old"
    with anyio.fail_after(5):  # the agent cleans up after the cancellation, for which nobody waits
        while list(tmp_path.glob(".skerry-*")):
            await anyio.sleep(0.01)
    assert (tmp_path / "f").read_text() == "old"


async def test_watching(link: Link, tmp_path: Path) -> None:
    async with link.watch(str(tmp_path), user="root") as events:
        (tmp_path / "new").write_text("x")
        event = await anext(aiter(events))
    assert (event.type, event.path) == (WatchEventType.CREATE, str(tmp_path / "new"))


async def test_dialling(link: Link) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    stream = await link.dial(port)
    await stream.send(b"said ")
    await stream.send(b"loud")
    await stream.send_eof()
    heard = b""
    while data := await stream.receive():
        heard += data
    assert heard == b"SAID LOUD"
    await stream.aclose()
    server.close()
    await server.wait_closed()
    with pytest.raises(PortNotOpen):
        await link.dial(port)


async def test_the_environment_of_later_processes(link: Link) -> None:
    await link.configure(env={"GIVEN": "later"})
    assert (await run(link, "echo $GIVEN"))[0] == b"later\n"
    assert set(await link.stats()) >= {"processes", "memory_bytes"}

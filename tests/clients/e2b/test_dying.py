"""Sandboxes that end while something waits for them: the client says so, soon, whatever it was waiting for."""

import asyncio
import io
import threading
import time

import pytest
from e2b import PtySize, TimeoutException
from e2b_code_interpreter import AsyncSandbox, Sandbox

GONE = TimeoutException
"""And what is derived from it: newer clients have a class for this. Of a download that breaks off some clients pass on
what their HTTP library says."""


class Slow(io.RawIOBase):
    """A file that takes ten seconds to read."""

    left = 100

    def read(self, size=-1):
        self.left -= 1
        time.sleep(0.1)
        return b"x" * 10_000 if self.left > 0 else b""


WAITING = {
    "a command": lambda sandbox: sandbox.commands.run("sleep 50"),
    "a command in the background": lambda sandbox: sandbox.commands.run("sleep 50", background=True).wait(),
    "a terminal": lambda sandbox: sandbox.pty.create(PtySize(rows=20, cols=70)).wait(),
    "code": lambda sandbox: sandbox.run_code("import time; time.sleep(50)"),
    "an upload": lambda sandbox: sandbox.files.write("/tmp/up", Slow()),
    "a download": lambda sandbox: [sandbox.files.read("/tmp/large", format="bytes") for _ in range(50)],
    "a download in pieces": lambda sandbox: [
        time.sleep(0.01) for _ in range(50) for _ in sandbox.files.read("/tmp/large", format="stream")
    ],
}


@pytest.mark.parametrize("what", WAITING)
def test_it_is_killed(what):
    sandbox = Sandbox.create("base", timeout=120)
    if "download" in what:
        sandbox.commands.run("head -c 300000000 /dev/zero > /tmp/large")
    killing = threading.Timer(1, sandbox.kill)
    killing.start()
    with pytest.raises(Exception if "download" in what else GONE):  # a client that was not told would say "timeout"
        WAITING[what](sandbox)
    killing.join()
    for call in (
        lambda: sandbox.run_code("1"), lambda: sandbox.commands.run("true"), lambda: sandbox.files.read("/etc/hostname"),
        lambda: sandbox.files.write("/tmp/x", "y"), sandbox.commands.list,
    ):  # fmt: skip
        with pytest.raises(GONE):
            call()


def test_it_runs_out_of_memory():
    sandbox = Sandbox.create("base", timeout=120)
    with pytest.raises(GONE):
        sandbox.run_code("held = []\nwhile True: held.append(bytearray(10**7))")
    assert not sandbox.is_running()


async def test_it_is_killed_while_many_wait():
    sandbox = await AsyncSandbox.create("base", timeout=120)
    watched = asyncio.get_running_loop().create_future()
    await sandbox.files.watch_dir("/tmp", on_event=lambda event: None, on_exit=watched.set_result)
    background = await sandbox.commands.run("sleep 50", background=True)
    terminal = await sandbox.pty.create(PtySize(rows=20, cols=70), on_data=lambda data: None)
    waiting = [
        asyncio.ensure_future(work)
        for work in (
            sandbox.commands.run("sleep 50"), background.wait(), terminal.wait(), sandbox.run_code("import time; time.sleep(50)"),
        )
    ]  # fmt: skip
    await asyncio.sleep(1)
    await sandbox.kill()
    ended = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 15)
    assert [type(error) for error in ended if not isinstance(error, GONE)] == []
    assert isinstance(await asyncio.wait_for(watched, 15), Exception)

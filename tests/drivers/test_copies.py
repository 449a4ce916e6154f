"""What a copy of a running sandbox has of its own: real checkpoints, restored twice (docs/explanation/fork-correctness.md)."""

from __future__ import annotations

import json
import random
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import pytest

from skerry.drivers.gvisor import Gvisor
from skerry.models import Exit, ExitReason, Output, Started
from skerry.ports import interpreter_command
from tests.drivers.rig import Box, Rig

pytestmark = pytest.mark.anyio


@pytest.fixture
def gvisor(rig: Rig) -> Rig:
    rig.driver = Gvisor(rig.directory / "state", rig.cgroups.entry_files)
    return rig


@asynccontextmanager
async def held(rig: Rig, box: Box) -> AsyncIterator[None]:
    """It stands still for the block, as the node lets it."""
    await box.listener.hold()
    await rig.driver.pause(box.boot.sandbox_id)
    yield
    await rig.driver.resume(box.boot.sandbox_id)
    await box.listener.release()


@asynccontextmanager
async def copies(rig: Rig, box: Box, count: int = 2, *, after_s: float = 0) -> AsyncIterator[list[Box]]:
    """Running copies of a box as it is now; it goes on."""
    image, disk = rig.directory / secrets.token_hex(4), rig.directory / f"{secrets.token_hex(4)}.img"
    async with held(rig, box):
        await rig.driver.checkpoint(box.boot.sandbox_id, image, keep_running=True)
        await rig.disks.export(box.boot.sandbox_id, disk)
    await anyio.sleep(after_s)
    async with AsyncExitStack() as stack:
        made = []
        for number in range(count):
            copy = await stack.enter_async_context(rig.box(checkpoint=image, disk=disk))
            await copy.link.reseed(hostname=f"copy{number}")
            made.append(copy)
        yield made


@dataclass
class Python:
    """The interpreter in a box, or in a copy of it."""

    box: Box
    pid: int

    async def configure(self) -> None:
        request = {"op": "configure", "env": {}, "cwd": None, "entropy": "the same in all"}
        await self.box.link.write_stdin(self.pid, json.dumps(request).encode() + b"\n")

    async def begin(self, code: str) -> str:
        run_id = secrets.token_hex(4)
        request = {"op": "run", "id": run_id, "code": code, "env": {}}
        await self.box.link.write_stdin(self.pid, json.dumps(request).encode() + b"\n")
        return run_id

    async def result(self, run_id: str) -> Any:
        """What a cell's value is, as JSON in a string."""
        held, text = b"", ""
        with anyio.fail_after(30):
            async with self.box.link.attach(self.pid) as events:
                async for event in events:
                    held += event.data if isinstance(event, Output) and event.type == "stdout" else b""
                    *lines, held = held.split(b"\n")
                    for said in map(json.loads, lines):
                        if said.get("id") != run_id:
                            continue
                        assert said["event"] != "error", said
                        if said["event"] == "result":
                            text = said["data"]["text/plain"]
                        elif said["event"] == "done":
                            return json.loads(text.strip("'")) if text else None
        raise AssertionError("it ended")

    async def run(self, code: str) -> Any:
        return await self.result(await self.begin(code))


async def python(box: Box) -> Python:
    async with box.link.run(interpreter_command("python"), stdin=True) as events:
        started = await anext(events)
        assert isinstance(started, Started)
    return Python(box, started.process.pid)


DRAW = """
import json, os, random, secrets, ssl, tempfile, uuid, numpy
json.dumps({
    "random": random.random(), "numpy": numpy.random.rand(), "OpenSSL": ssl.RAND_bytes(8).hex(),
    "uuid1": str(uuid.uuid1()), "uuid4": str(uuid.uuid4()), "secrets": secrets.token_hex(8),
    "temporary name": tempfile.mktemp(), "kernel": os.urandom(8).hex(),
})
"""


async def test_an_idle_interpreters_copies_draw_numbers_of_their_own(gvisor: Rig) -> None:
    async with gvisor.box() as box:
        parent = await python(box)
        await parent.configure()
        await parent.run(f"import random, numpy; random.seed(1); numpy.random.seed(1)\n{DRAW}")
        async with copies(gvisor, box) as made:
            drawn = [await parent.run(DRAW)]
            for copy in made:
                child = Python(copy, parent.pid)
                await child.configure()
                drawn.append(await child.run(DRAW))
        for name in drawn[0]:
            assert len({each[name] for each in drawn}) == 3, f"{name}: {[each[name] for each in drawn]}"


BUSY = """
import json, os, random, time, numpy
from multiprocessing import Pipe, Process

def draw(send):
    # The first numbers after a pause, and how many were drawn before.
    random.seed(1); numpy.random.seed(1)
    open(f'/tmp/draws-{os.getpid()}', 'w').close()
    count, last = 0, time.monotonic()
    while not os.path.exists('/tmp/stop'):
        number, now = random.random(), time.monotonic()
        if now - last > 0.3:
            break
        count, last = count + 1, now
        time.sleep(0.001)
    send((count, number, float(numpy.random.rand())))

ours, theirs = Pipe()
worker = Process(target=draw, args=(theirs.send,))
worker.start()
found = []
draw(found.append)
json.dumps([found[0], ours.recv()])
"""


async def test_a_busy_interpreters_copies_draw_no_number_before_they_are_reseeded(gvisor: Rig) -> None:
    """Nor do processes that it has forked. The original is not touched: what a program has seeded stays so."""
    async with gvisor.box() as box:
        parent = await python(box)
        await parent.configure()
        run_id = await parent.begin(BUSY)
        await box.output("until [ $(ls /tmp | grep -c draws-) = 2 ]; do sleep 0.1; done; sleep 0.5")
        async with copies(gvisor, box, after_s=0.5) as made:
            results = [await Python(copy, parent.pid).result(run_id) for copy in made]
            await box.output("touch /tmp/stop")
            own = await parent.result(run_id)
        for process in range(2):
            numbers = [result[process][1:] for result in results]
            assert numbers[0][0] != numbers[1][0]
            assert numbers[0][1] != numbers[1][1]
        generator = random.Random(1)
        count, number, _ = own[0]
        own_numbers = [generator.random() for _ in range(count + 1)]
        assert number in own_numbers[-2:], "the original's are those that it seeded"


async def test_names_and_ids_are_a_copys_own(gvisor: Rig) -> None:
    async with gvisor.box() as box:
        await box.output("echo '10.0.0.9 mine' >> /etc/hosts", user="root")
        show = "cat /etc/hostname /etc/machine-id; hostname; head -1 /etc/hosts; tail -1 /etc/hosts; od -An -tx8 -N8 /dev/urandom"
        before = (await box.output(show)).split("\n")
        async with copies(gvisor, box) as made:
            after = [(await copy.output(show)).split("\n") for copy in made]
        for number, lines in enumerate(after):
            name = f"copy{number}"
            assert (lines[0], lines[2], lines[3]) == (name, name, f"127.0.1.1 {name}")
            assert lines[4] == "10.0.0.9 mine", "what else there is stays"
        assert len({lines[1] for lines in (before, *after)}) == 3, "machine ids"
        assert len({lines[5] for lines in (before, *after)}) == 3, "the kernel's random numbers"


async def test_clocks_go_forward_and_are_the_hosts(gvisor: Rig) -> None:
    script = "import time; print(time.time(), time.monotonic())"
    async with gvisor.box() as box:
        wall, monotonic = map(float, (await box.output(f"python3 -c '{script}'")).split())
        async with copies(gvisor, box, 1, after_s=1) as (copy,):
            began = time.time()
            wall_after, monotonic_after = map(float, (await copy.output(f"python3 -c '{script}'")).split())
            assert began <= wall_after <= time.time()
            assert monotonic_after > monotonic + 1
            assert abs((wall_after - wall) - (monotonic_after - monotonic)) < 0.1


async def test_timeouts_count_the_time_that_it_ran(gvisor: Rig) -> None:
    async with gvisor.box() as box, box.link.run(["sleep", "100"], timeout_s=2) as events:
        pid = (await anext(events)).process.pid
        began = time.monotonic()
        async with copies(gvisor, box, 1, after_s=2.5) as (copy,):
            (exit,) = [event async for event in events if isinstance(event, Exit)]
            assert exit.reason is ExitReason.TIMEOUT
            alive = {process.pid for process in await copy.link.processes() if process.exit is None}
            assert pid in alive, "in the copy no time has passed since"
            with anyio.fail_after(5):
                async with copy.link.attach(pid) as others:
                    (exit,) = [event async for event in others if isinstance(event, Exit)]
            assert exit.reason is ExitReason.TIMEOUT
        assert time.monotonic() - began > 3


@pytest.mark.parametrize("announced", [True, False])
async def test_timeouts_stand_still_while_it_is_frozen(gvisor: Rig, announced: bool) -> None:
    async with gvisor.box() as box:
        began = time.monotonic()
        async with box.link.run(["sleep", "100"], timeout_s=2) as events:
            await anext(events)
            if announced:
                await box.link.stand_still()
            box.link.suspend()
            gvisor.cgroups.freeze(box.boot.cgroup)
            await anyio.sleep(4)
            gvisor.cgroups.thaw(box.boot.cgroup)
            box.link.resume()
            (exit,) = [event async for event in events if isinstance(event, Exit)]
        assert exit.reason is ExitReason.TIMEOUT
        assert time.monotonic() - began > (6 if announced else 5.85)


async def test_who_follows_a_process_does_not_notice_a_hold(gvisor: Rig) -> None:
    script = "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo $i; done; head -c 8000000 /dev/zero; exit 5"
    async with gvisor.box() as box:
        read, exit = 0, None
        async with box.link.run(["/bin/sh", "-c", script]) as events:
            await anext(events)
            async with anyio.create_task_group() as group:

                async def hold() -> None:
                    for _ in range(3):
                        async with held(gvisor, box):
                            await anyio.sleep(0.1)

                group.start_soon(hold)
                async for event in events:
                    if isinstance(event, Output):
                        assert (event.offset, event.dropped) == (read, 0)
                        read += len(event.data)
                        await anyio.sleep(0.005)
                    elif isinstance(event, Exit):
                        exit = event
        assert read == sum(len(f"{number}\n") for number in range(1, 2001)) + 8_000_000
        assert exit is not None
        assert exit.exit_code == 5


async def test_an_agent_is_back_after_a_long_pause(gvisor: Rig) -> None:
    async with gvisor.box() as box:
        await box.listener.hold()
        await gvisor.driver.pause(box.boot.sandbox_id)
        await anyio.sleep(4)
        await gvisor.driver.resume(box.boot.sandbox_id)
        await box.listener.release()  # returns when it has dialled
        assert await box.output("echo back") == "back"

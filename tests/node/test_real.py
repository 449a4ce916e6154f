"""The node with everything real: runsc, control groups, disks, network namespaces, the agent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from skerry.errors import Error, SandboxLost, TemplateBuildFailed
from skerry.host.cgroups import ControlGroups
from skerry.models import EndCode
from skerry.node import Node
from skerry.node.records import Records, lives
from skerry.ports import Wanted
from tests.drivers.rig import REPOSITORY, enter_private_mounts
from tests.node.counts import counts
from tests.node.real import LIMITS, placement, real_node, root_group, shell, template
from tests.node.test_node import next_death

pytestmark = pytest.mark.anyio


@pytest.fixture
def machine() -> Iterator[Path]:
    enter_private_mounts()
    with tempfile.TemporaryDirectory(prefix="sn", dir="/tmp") as directory:
        yield Path(directory)
        ControlGroups(root_group(Path(directory))).remove_root()


async def removed(directory: Path) -> None:
    """Until what was destroyed is gone."""
    with anyio.fail_after(20):
        while (directory / "run").exists() and list((directory / "run").iterdir()):
            await anyio.sleep(0.02)


def unit_of(directory: Path, sandbox_id: str) -> str:
    (name,) = [record.name for record in Records(directory / "run").all() if record.sandbox_id == sandbox_id]
    return name


async def test_boot_run_stats_destroy(machine: Path) -> None:
    async with real_node(machine) as node:
        provided = await node.provide(placement("one"))
        assert provided.origin == "cold"
        assert await shell(provided.agent, "echo hello; hostname") == "hello\none"
        stats = await node.stats("one")
        assert stats.pids > 0
        assert stats.memory_used_mib > 1
        assert stats.cpu_used_s > 0
        await node.destroy("one")
        with pytest.raises(Error):
            await shell(provided.agent, "echo still there")
        await removed(machine)


@pytest.mark.parametrize(
    ("memory_mib", "disk_mib", "command", "words"),
    [
        (128, 256, "python3 -c 'bytearray(900 << 20)'", "out of memory: the step needed more than its 128 MiB"),
        (512, 32, "head -c 100000000 /dev/zero > /large", "failed; its disk is full: a step may write 32 MiB"),
        (512, 256, "exit 1", "failed"),
    ],
)  # fmt: skip
async def test_a_step_over_a_limit_says_which(
    machine: Path, memory_mib: int, disk_mib: int, command: str, words: str
) -> None:
    limits = LIMITS.model_copy(update={"memory_mib": memory_mib, "disk_mib": disk_mib})

    async def step(node: Node) -> None:
        async with node.workbench("sha256:test", limits) as bench:
            try:
                await shell(bench.agent, command, user="root")
            except AssertionError:  # as its exit status is told
                raise TemplateBuildFailed("failed", log=[]) from None

    async with real_node(machine) as node:
        with anyio.fail_after(60), pytest.raises(TemplateBuildFailed) as raised:
            await step(node)
        assert raised.value.message == words
        await removed(machine)


async def test_out_of_memory_is_reported_and_the_neighbour_lives(machine: Path) -> None:
    async with real_node(machine) as node:
        neighbour = await node.provide(placement("neighbour"))
        eater = await node.provide(placement("eater", limits=LIMITS.model_copy(update={"memory_mib": 128})))
        with pytest.raises(SandboxLost):
            await shell(eater.agent, "python3 -c 'a = b\"x\" * (900 << 20); print(len(a))'")
        death = await next_death(node)
        assert (death.sandbox_id, death.end.code) == ("eater", EndCode.OUT_OF_MEMORY)
        assert await shell(neighbour.agent, "echo fine") == "fine"


async def test_a_killed_sentry_is_a_crash_and_the_neighbour_lives(machine: Path) -> None:
    async with real_node(machine) as node:
        await node.provide(placement("victim"))
        neighbour = await node.provide(placement("neighbour"))
        record = Records(machine / "run").read(unit_of(machine, "victim"))
        assert record is not None
        assert record.pid is not None
        os.kill(record.pid, signal.SIGKILL)
        death = await next_death(node)
        assert (death.sandbox_id, death.end.code) == ("victim", EndCode.CRASHED)
        assert await shell(neighbour.agent, "echo fine") == "fine"


async def test_a_fork_bomb_hits_the_limit_and_the_agent_still_answers(machine: Path) -> None:
    async with real_node(machine) as node:
        limits = LIMITS.model_copy(update={"memory_mib": 2048})
        provided = await node.provide(placement("bomb", limits=limits))
        bomb = "import os\ntry:\n  while True:\n    if os.fork() == 0: os.setsid()\nexcept OSError as e: print(e)\n"
        bomb += "import time; time.sleep(1000)"
        async with provided.agent.run(["python3", "-u", "-c", bomb]) as events:
            with anyio.fail_after(60):
                async for event in events:
                    if event.type == "stdout":
                        assert b"temporarily unavailable" in event.data
                        break
            await provided.agent.ping()
            assert len(await provided.agent.processes()) >= 1
            assert (await node.stats("bomb")).pids < 2000
            await node.destroy("bomb")
        await removed(machine)


async def test_claims_come_warm_from_the_pool_and_refill(machine: Path) -> None:
    async with real_node(machine, minimum=1, warm=True) as node:
        with anyio.fail_after(60):
            await node.ready(template(("python",)))
        provided = await node.provide(placement("claimed", ("python",)))
        assert provided.origin == "pool"
        assert set(provided.warm) == {"python"}
        running = {process.pid: process for process in await provided.agent.processes()}
        assert running[provided.warm["python"]].exit is None
        assert await shell(provided.agent, "hostname") == "claimed"
        other = await node.provide(placement("second", ("python",)))
        random = "od -An -N8 -tx8 /dev/urandom"
        assert await shell(provided.agent, random) != await shell(other.agent, random)


async def test_a_killed_server_is_followed_by_one_that_adopts(machine: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.node.real", str(machine)], cwd=REPOSITORY, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    pid = json.loads(await anyio.to_thread.run_sync(child.stdout.readline))["pid"]
    child.kill()
    child.wait()
    child.stdout.close()
    records = list(Records(machine / "run").all())
    assert len(records) >= 3
    assert all(lives(record) for record in records if record.pid)
    async with real_node(machine) as node:
        (adopted,) = await node.adopt({"kept": Wanted(1), "long-gone": Wanted(1)}, [])
        before = int(await shell(adopted.agent, "cat /tmp/count"))
        await anyio.sleep(0.5)
        assert int(await shell(adopted.agent, "cat /tmp/count")) > before
        assert pid in {process.pid for process in await adopted.agent.processes()}
        assert [record.sandbox_id for record in Records(machine / "run").all()] == ["kept"]
        await node.set_internet("kept", False)
        await node.destroy("kept")
        await removed(machine)


async def _cycle(node: Node, number: int) -> None:
    provided = await node.provide(placement(f"s{number}"))
    assert await shell(provided.agent, "echo x") == "x"
    await node.destroy(f"s{number}")


@pytest.mark.parametrize("cycles", [30, pytest.param(500, marks=pytest.mark.slow)])
@pytest.mark.timeout(900)
async def test_cycles_leave_nothing(machine: Path, cycles: int) -> None:
    async with real_node(machine) as node:
        await _cycle(node, -1)
        await removed(machine)
        await anyio.sleep(0.5)
        before = counts(machine)
        for number in range(cycles):
            await _cycle(node, number)
        await removed(machine)
        await anyio.sleep(0.5)
        assert counts(machine) == before

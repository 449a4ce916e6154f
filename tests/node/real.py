"""A node on the real machine, in this process or in a child that may be killed.

As a program: `python -m tests.node.real DIRECTORY` runs a node there, provides the sandbox `kept` with a process that
counts, keeps a pool besides, prints one line and waits to be killed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from skerry.agentlink import Listener
from skerry.drivers.gvisor import Gvisor
from skerry.errors import Error
from skerry.host.cgroups import ControlGroups
from skerry.host.disks import Disks
from skerry.host.network import Network
from skerry.host.volumes import Volumes
from skerry.models import Isolation, Limits, Output, Template
from skerry.node import Node, PoolSettings
from skerry.node.builder import Host
from skerry.node.records import Records
from skerry.node.states import States
from skerry.ports import Agent, Placement
from tests.drivers.rig import enter_private_mounts, root_filesystem, runtime_directory

LIMITS = Limits(cpu=2, memory_mib=512, disk_mib=256, pids=64)


class OneImage:
    """Every digest is the test image."""

    def trees(self, digest: str) -> list[Path]:
        return [root_filesystem()]

    def template(self, name: str) -> Template:
        return template()


def template(languages: tuple[str, ...] = ()) -> Template:
    return Template.model_validate(
        {
            "name": "test",
            "image": "sha256:test",
            "limits": LIMITS,
            "languages": languages,
            "size_mib": 1,
            "built_at": "2026-01-01T00:00Z",
        }
    )


def placement(sandbox_id: str, languages: tuple[str, ...] = (), limits: Limits = LIMITS) -> Placement:
    return Placement(sandbox_id, template(languages), Isolation.GVISOR, limits, True, {})


def _listener(directory: Path, token: str, on_lost: Callable[[Error], None]) -> Listener:
    return Listener(directory, token, on_lost=on_lost)


def root_group(directory: Path) -> str:
    """Tells test machines apart, and is the same for a node that comes after a killed one."""
    return f"skerry-test/{directory.name}"


def make_host(directory: Path) -> Host:
    enter_private_mounts()
    runtime = directory / "runtime"
    if not runtime.exists():
        runtime_directory(directory)
    cgroups = ControlGroups(root_group(directory))
    # Away from the subnets of servers and of other tests on this machine.
    number = os.stat(directory).st_ino % 200
    return Host(
        drivers={Isolation.GVISOR: Gvisor(directory / "state", cgroups.entry_files)},
        cgroups=cgroups,
        disks=Disks(directory / "data", directory / "mounts"),
        volumes=Volumes(directory / "volumes", directory / "volume-mounts"),
        network=Network(f"t{number}", f"10.214.{number}.0/24"),
        images=OneImage(),
        listener=_listener,
        records=Records(directory / "run"),
        runtime_directory=runtime,
    )


@asynccontextmanager
async def real_node(directory: Path, *, minimum: int = 0, maximum: int = 4, warm: bool = False) -> AsyncIterator[Node]:
    host = make_host(directory)
    settings = PoolSettings(minimum=minimum, maximum=maximum, quiet_s=1.0)
    node = Node(host, States(directory / "states"), pools=settings, warm_directory=directory / "warm" if warm else None)
    await host.volumes.start()  # type: ignore[attr-defined]
    try:
        async with node:
            yield node
    finally:
        with anyio.CancelScope(shield=True):
            await host.volumes.stop(keep=node.keep)  # type: ignore[attr-defined]


async def shell(agent: Agent, script: str, user: str = "user", timeout_s: float = 30) -> str:
    """What a script prints; it must succeed."""
    printed = b""
    with anyio.fail_after(timeout_s):
        async with agent.run(["/bin/sh", "-c", script], user=user) as events:
            async for event in events:
                if isinstance(event, Output):
                    printed += event.data
                elif event.type == "exit":
                    assert event.exit_code == 0, (script, event, printed)
    return printed.decode().strip()


async def _serve(directory: Path) -> None:
    async with real_node(directory, minimum=1) as node:
        provided = await node.provide(placement("kept"))
        await node.provide(placement("unwanted"))
        await node.ready(template())
        script = "i=0; while :; do i=$((i+1)); echo $i > /tmp/count; sleep 0.05; done"
        async with provided.agent.run(["/bin/sh", "-c", script]) as events:
            started = await anext(aiter(events))
            assert started.type == "started"
            print(json.dumps({"pid": started.process.pid}), flush=True)
            await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(_serve, Path(sys.argv[1]))

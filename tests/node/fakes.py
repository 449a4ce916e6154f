"""Stand-ins for the host's parts. A sandbox is one `sleep` process of its own session; everything else is counted."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from skerry.drivers.launch import wait_for_exit
from skerry.errors import Error, SandboxLost, SandboxStartFailed
from skerry.models import Isolation, Limits, Template
from skerry.node import Node, PoolSettings
from skerry.node.builder import Host
from skerry.node.records import Records
from skerry.node.states import States
from skerry.ports import Boot

LIMITS = Limits(cpu=1, memory_mib=512, disk_mib=1024, pids=128)


def template(name: str = "base", image: str = "sha256:1") -> Template:
    return Template.model_validate(
        {
            "name": name,
            "image": image,
            "limits": LIMITS,
            "languages": [],
            "size_mib": 1,
            "built_at": "2026-01-01T00:00Z",
        }
    )


@dataclass
class World:
    """The state of the whole fake machine."""

    directory: Path
    fail: dict[str, Exception] = field(default_factory=dict)
    """Step → what it raises: `boot`, `disk`, `network`, `configure`."""
    hold: dict[str, anyio.Event] = field(default_factory=dict)
    """Step → it waits for this first."""
    log: list[str] = field(default_factory=list)
    groups: dict[str, list[int]] = field(default_factory=dict)
    frozen: set[str] = field(default_factory=set)
    standing: set[str] = field(default_factory=set)
    version: str = "1"
    blocked_at_restore: set[int] = field(default_factory=set)
    limits: dict[str, Limits] = field(default_factory=dict)
    oom_kills: dict[str, int] = field(default_factory=dict)
    disks: set[str] = field(default_factory=set)
    volumes: dict[str, list[tuple[str, bool]]] = field(default_factory=dict)
    slots: set[int] = field(default_factory=set)
    blocked: set[int] = field(default_factory=set)
    listeners: dict[Path, FakeListener] = field(default_factory=dict)
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    async def step(self, name: str) -> None:
        self.log.append(name)
        if name in self.hold:
            await self.hold[name].wait()
        if name in self.fail:
            raise self.fail[name]

    @property
    def leftovers(self) -> dict[str, Any]:
        """Everything that exists; all empty when nothing was left behind."""
        run = self.directory / "run"
        return {
            "groups": self.groups,
            "frozen": self.frozen,
            "standing": self.standing,
            "disks": self.disks,
            "volumes": self.volumes,
            "slots": self.slots,
            "listeners": self.listeners,
            "records": list(run.iterdir()) if run.exists() else [],
        }

    def assert_clean(self) -> None:
        assert not any(self.leftovers.values()), self.leftovers

    def unit_of(self, sandbox_id: str) -> str:
        (record,) = [record for record in Records(self.directory / "run").all() if record.sandbox_id == sandbox_id]
        return record.name


class FakeCgroups:
    def __init__(self, world: World) -> None:
        self.world = world

    def create(self, name: str, limits: Limits) -> None:
        self.world.groups[name] = []
        self.world.limits[name] = limits

    def set_limits(self, name: str, limits: Limits) -> None:
        self.world.log.append("set_limits")
        self.world.limits[name] = limits

    def entry_files(self, name: str) -> list[Path]:
        return []

    def freeze(self, name: str) -> None:
        self.world.frozen.add(name)

    def thaw(self, name: str) -> None:
        self.world.frozen.discard(name)

    def usage(self, name: str) -> Any:
        @dataclass
        class Usage:
            cpu_used_s: float = 1.5
            memory_bytes: int = 3 * 1024 * 1024
            memory_peak_bytes: int | None = None
            pids: int = 4
            oom_kills: int = self.world.oom_kills.get(name, 0)

        return Usage()

    def pids(self, name: str) -> list[int]:
        if name not in self.world.groups:
            raise FileNotFoundError(name)
        return list(self.world.groups[name])

    def kill(self, name: str) -> None:
        self.world.frozen.discard(name)
        for pid in self.pids(name):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def remove(self, name: str) -> None:
        self.world.groups.pop(name, None)

    def names(self) -> list[str]:
        return list(self.world.groups)


class FakeDisks:
    def __init__(self, world: World) -> None:
        self.world = world

    async def create(self, name: str, *, layers: Sequence[Path], size_mib: int, source: Path | None = None) -> Path:
        await self.world.step("disk")
        root = self.world.directory / "disks" / name
        root.mkdir(parents=True)
        self.world.disks.add(name)
        return root

    async def remove(self, name: str) -> None:
        if "removal" in self.world.hold:
            await self.world.hold["removal"].wait()
        self.world.disks.discard(name)

    async def adopt(self, name: str) -> None:
        assert name in self.world.disks

    async def export(self, name: str, target: Path, *, last: bool = False) -> None:
        await self.world.step("export")
        target.write_text("disk")

    def image_path(self, name: str) -> Path:
        return self.world.directory / "disks" / name

    def used_bytes(self, name: str) -> int:
        return 2 * 1024 * 1024

    def names(self) -> list[str]:
        return list(self.world.disks)


class FakeVolumes:
    def __init__(self, world: World) -> None:
        self.world = world

    def directory(self, unit: str) -> Path:
        return self.world.directory / "volumes" / unit

    def units(self) -> set[str]:
        return set(self.world.volumes)

    async def attach(self, unit: str, volumes: Sequence[tuple[str, bool]]) -> None:
        await self.world.step("attach")
        self.world.volumes[unit] = list(volumes)

    async def detach(self, unit: str) -> None:
        self.world.volumes.pop(unit, None)


@dataclass(frozen=True)
class FakeSlot:
    index: int
    namespace: str = "/run/netns/fake"
    address: str = "10.0.0.2"
    gateway: str = "10.0.0.1"


class FakeNetwork:
    resolv_conf = "nameserver 10.0.0.1\n"

    def __init__(self, world: World) -> None:
        self.world = world
        self._next = 0

    async def start(self) -> None: ...
    async def stop(self, *, keep: bool = False) -> None: ...

    async def acquire(self) -> FakeSlot:
        await self.world.step("network")
        self._next += 1
        self.world.slots.add(self._next)
        return FakeSlot(self._next)

    async def release(self, slot: Any) -> None:
        self.world.slots.discard(slot.index)
        self.world.blocked.discard(slot.index)

    async def set_internet(self, slot: Any, allowed: bool) -> None:
        (self.world.blocked.discard if allowed else self.world.blocked.add)(slot.index)

    async def adopt(self, index: int) -> FakeSlot:
        self.world.slots.add(index)
        return FakeSlot(index)


class FakeLink:
    """Enough of `agentlink.Link` for the node."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.configured: dict[str, Any] = {}
        self.suspended = False

    async def stand_still(self) -> None:
        self.world.log.append("stand still")

    def suspend(self) -> None:
        self.suspended = True

    def resume(self) -> None:
        self.suspended = False

    async def configure(
        self, *, env: Mapping[str, str] | None = None, hostname: str | None = None, pids: int | None = None
    ) -> None:
        if self.suspended:
            raise SandboxLost("asked while suspended")
        await self.world.step("configure")
        self.configured = {"env": env, "hostname": hostname, "pids": pids}

    @asynccontextmanager
    async def run(self, command: Sequence[str], **options: Any) -> AsyncIterator[AsyncIterator[Any]]:
        await self.world.step("run")

        async def events() -> AsyncIterator[Any]:
            for event in ():
                yield event

        yield events()

    async def mount(self, source: str, target: str, *, read_only: bool = False) -> None:
        await self.world.step("mount")
        self.world.log.append(f"{source} at {target}")

    async def stat(self, path: str) -> None:
        await self.world.step("stat")

    async def reseed(self, *, hostname: str | None = None) -> None:
        await self.world.step("reseed")


class FakeListener:
    def __init__(self, world: World, directory: Path, token: str, on_lost: Callable[[Error], None]) -> None:
        self.world, self.directory, self.on_lost = world, directory, on_lost
        self.link = FakeLink(world)

    async def start(self) -> None:
        self.world.listeners[self.directory] = self

    async def connected(self) -> Any:
        await self.world.step("dial")
        return self.link

    async def hold(self, grace_s: float = 2.0) -> None:
        self.world.log.append("hold")

    async def release(self) -> None:
        self.world.log.append("release")

    async def aclose(self) -> None:
        self.world.listeners.pop(self.directory, None)


class FakeDriver:
    isolation = Isolation.GVISOR

    def __init__(self, world: World) -> None:
        self.world = world

    async def check(self) -> None: ...
    async def tidy(self) -> None: ...

    async def version(self) -> str:
        return self.world.version

    def set_idle(self, pid: int, idle: bool) -> None:
        self.world.log.append(f"idle {idle}")

    def traits(self) -> str:
        return "traits"

    async def boot(self, boot: Boot) -> int:
        await self.world.step("boot")
        process = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        self.world.children.append(process)
        self.world.groups[boot.cgroup].append(process.pid)
        return process.pid

    async def restore(self, boot: Boot, directory: Path) -> int:
        self.world.log.append("restore")
        assert (directory / "pages").exists()
        self.world.blocked_at_restore = set(self.world.blocked)
        if "restore" in self.world.fail:
            raise SandboxStartFailed("cannot restore")
        return await self.boot(boot)

    async def checkpoint(self, sandbox_id: str, directory: Path, *, keep_running: bool) -> None:
        await self.world.step("checkpoint")
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "pages").write_text("memory")

    async def pause(self, sandbox_id: str) -> None:
        await self.world.step("pause")
        self.world.standing.add(sandbox_id)

    async def resume(self, sandbox_id: str) -> None:
        await self.world.step("resume")
        self.world.standing.discard(sandbox_id)

    async def destroy(self, sandbox_id: str) -> None:
        self.world.standing.discard(sandbox_id)
        for pid in self.world.groups.get(sandbox_id, []):
            await wait_for_exit(pid)


class FakeImages:
    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    def trees(self, digest: str) -> list[Path]:
        return [Path("/nowhere")]

    def template(self, name: str) -> Template:
        return template(name)

    def keep(self, holder: str, digest: str) -> None:
        self.kept[holder] = digest

    def let_go(self, holder: str) -> None:
        self.kept.pop(holder, None)


def make_node(world: World, *, minimum: int = 0, maximum: int = 4, warm: bool = False) -> Node:
    runtime = world.directory / "runtime"
    runtime.mkdir(exist_ok=True)
    host = Host(
        drivers={Isolation.GVISOR: FakeDriver(world)},
        cgroups=FakeCgroups(world),
        disks=FakeDisks(world),
        volumes=FakeVolumes(world),
        network=FakeNetwork(world),
        images=FakeImages(),
        listener=lambda directory, token, on_lost: FakeListener(world, directory, token, on_lost),  # type: ignore[arg-type, return-value]
        records=Records(world.directory / "run"),
        runtime_directory=runtime,
    )
    return Node(
        host,
        States(world.directory / "states"),
        pools=PoolSettings(minimum=minimum, maximum=maximum, quiet_s=0.0),
        warm_directory=world.directory / "warm" if warm else None,
    )

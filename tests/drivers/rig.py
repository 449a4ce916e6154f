"""A real machine around a driver: control groups, disks, a network namespace of its own and the agent's link."""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from skerry.agentlink import Link, Listener
from skerry.host import mounts
from skerry.host.cgroups import ControlGroups
from skerry.host.disks import Disks
from skerry.host.runtime import agent_binary
from skerry.host.volumes import Volumes
from skerry.models import Limits, Output
from skerry.node import reaper
from skerry.node.prepare import write_identity
from skerry.ports import Boot, Driver

LIMITS = Limits(cpu=2, memory_mib=512, disk_mib=256, pids=200)
REPOSITORY = Path(__file__).parents[2]
INTERPRETER = REPOSITORY / "src" / "skerry" / "interpreter"
_CLONE_NEWNET = 0x40000000
_private = False


def enter_private_mounts() -> None:
    """Once for this process: what the server does at its start."""
    global _private
    if not _private:
        mounts.enter_private_namespace()
        reaper.adopt_orphans()
        _private = True


def root_filesystem() -> Path:
    """The image to test with: a tree named by SKERRY_TEST_ROOTFS, or the base template as it was built."""
    named = os.environ.get("SKERRY_TEST_ROOTFS")
    if named:
        return Path(named)
    from skerry.errors import TemplateNotFound
    from skerry.host.images import DEFAULT_DIRECTORY, Images

    images = Images(DEFAULT_DIRECTORY)
    try:
        return images.trees(images.template("base").image)[0]
    except TemplateNotFound:
        pytest.skip("the base template is not built: `make template`")


def runtime_directory(parent: Path) -> Path:
    """The agent and the interpreter, laid out as the server does."""
    runtime = parent / "runtime"
    runtime.mkdir()
    shutil.copy(agent_binary(), runtime / "agent")
    shutil.copytree(INTERPRETER, runtime / "interpreter", ignore=shutil.ignore_patterns("__pycache__"))
    return runtime


@contextmanager
def network_namespace() -> Iterator[str]:
    """An empty network namespace, by a path that lives as long as the context."""
    opened: list[int] = []

    def enter() -> None:
        assert ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) == 0, "cannot make a network namespace"
        opened.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    try:
        yield f"/proc/{os.getpid()}/fd/{opened[0]}"
    finally:
        os.close(opened[0])


@dataclass
class Box:
    """A started sandbox."""

    boot: Boot
    pid: int
    link: Link
    listener: Listener

    async def run(self, *command: str, user: str = "user", timeout_s: float = 30) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        texts = {"stdout": b"", "stderr": b""}
        with anyio.fail_after(timeout_s):
            async with self.link.run(command, user=user) as events:
                async for event in events:
                    if isinstance(event, Output):
                        texts[event.type] += event.data
                    elif event.type == "exit":
                        return event.exit_code, texts["stdout"].decode(), texts["stderr"].decode()
        raise AssertionError(f"no exit of {command}")

    async def output(self, script: str, user: str = "user") -> str:
        """What a shell script prints; it must succeed."""
        code, out, err = await self.run("/bin/sh", "-c", script, user=user)
        assert code == 0, (script, code, out, err)
        return out.strip()


class Rig:
    """The machine. Everything it makes is below `directory` and one control group."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._root = f"skerry-test/{secrets.token_hex(3)}"
        self.cgroups = ControlGroups(self._root)
        self.disks = Disks(directory / "data", directory / "mounts")
        self.volumes = Volumes(directory / "volumes", directory / "volume-mounts")
        self.runtime = runtime_directory(directory)
        self.image = root_filesystem()
        self.driver: Driver

    def close(self) -> None:
        self.cgroups.remove_root()

    @asynccontextmanager
    async def box(
        self,
        *,
        limits: Limits = LIMITS,
        checkpoint: Path | None = None,
        disk: Path | None = None,
        volumes: Sequence[tuple[str, bool]] = (),
    ) -> AsyncIterator[Box]:
        """Boot (or restore) a sandbox, and leave nothing of it."""
        name = secrets.token_hex(4)
        link = self.directory / name
        link.mkdir(mode=0o700)
        listener = Listener(link, secrets.token_hex(16), on_lost=lambda _error: None)
        with network_namespace() as namespace:
            try:
                await self.volumes.start()
                self.cgroups.create(name, limits)
                await self.volumes.attach(name, volumes)
                root = await self.disks.create(name, layers=[self.image], size_mib=limits.disk_mib, source=disk)
                if disk is None:
                    write_identity(root, hostname=name, resolv_conf="nameserver 192.0.2.1\n")
                await listener.start()
                boot = Boot(
                    name, root, namespace, name, link, self.volumes.directory(name), self.runtime, limits, name
                )  # fmt: skip
                if checkpoint is None:
                    pid = await self.driver.boot(boot)
                else:
                    pid = await self.driver.restore(boot, checkpoint)
                with anyio.fail_after(20):
                    agent = await listener.connected()
                yield Box(boot, pid, agent, listener)
            finally:
                with anyio.CancelScope(shield=True):
                    await self._remove(name, listener)
                    shutil.rmtree(link)

    async def _remove(self, name: str, listener: Listener) -> None:
        self.cgroups.kill(name)
        await self.driver.destroy(name)
        await listener.aclose()
        await self.volumes.detach(name)
        if not self.volumes.units():
            await self.volumes.stop()
        await self.disks.remove(name)
        self.cgroups.remove(name)
        with suppress(ChildProcessError):
            reaper.reap()

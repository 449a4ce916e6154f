"""A sandbox whose memory Skerry has kept, gone on with by hand: `runsc restore`, `runsc checkpoint`, and nothing else.

Its root file system is put together before, of the same layers and a copy of the kept disk; there is no network, no
control group, no agent's socket, no server. So the times are floors: of runsc, on the same bytes.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio

from bench.baselines import call
from skerry.config import Settings as ServerSettings
from skerry.drivers.bundle import oci_config
from skerry.drivers.launch import wait_for_exit
from skerry.host.cgroups import ControlGroups
from skerry.host.disks import Disks
from skerry.host.images import Images
from skerry.models import Limits
from skerry.ports import Boot

FLAGS = (
    "--platform=systrap", "--network=none", "--host-uds=open", "--overlay2=none", "--ignore-cgroups",
    "--directfs=true", "--file-access=exclusive", "--net-raw=false",
)  # fmt: skip
BEST = "--compression=none"
"""Of the options of a checkpoint those that make it fastest: see the table of what was tried."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What Skerry has kept of a sandbox, in a copy that stays."""

    directory: Path
    runtime: Path
    """Whose programs its memory holds."""

    @property
    def checkpoint(self) -> Path:
        return self.directory / "checkpoint"

    @property
    def disk(self) -> Path:
        return self.directory / "disk.img"

    def meta(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.directory / "state.json").read_text())
        return content


def only_state(data: Path) -> Path:
    """The one state in a server's data directory. Raises ValueError when there are more, or none."""
    (found,) = [path for path in (data / "states").iterdir() if not path.name.startswith(".")]
    return found


def keep(state: Path, target: Path) -> Kept:
    """A copy of a state by hard links, which nothing writes to."""
    shutil.copytree(state, target, copy_function=os.link)
    meta = json.loads((target / "state.json").read_text())
    return Kept(target, state.parent.parent / "runtime" / meta["runtime"])


class ByHand:
    """Sandboxes from one state. Those that run are ended by `end`."""

    def __init__(self, kept: Kept, rootfs: Path, directory: Path, groups: ControlGroups) -> None:
        self._kept, self._rootfs, self._directory, self._groups = kept, rootfs, directory, groups
        self._base = ("runsc", f"--root={directory / 'runsc'}", *FLAGS)
        self._bundle = directory / "bundle"
        self._bundle.mkdir()
        (directory / "link").mkdir()
        (directory / "volumes").mkdir()
        (self._bundle / "config.json").write_text(json.dumps(self._specification()))

    def _specification(self) -> dict[str, Any]:
        link, volumes = self._directory / "link", self._directory / "volumes"
        boot = Boot("", self._rootfs, "", "", link, volumes, self._kept.runtime, _limits(self._kept), "sandbox")
        specification = oci_config(boot)
        for namespace in specification["linux"]["namespaces"]:
            if namespace["type"] == "network":
                del namespace["path"]
        return specification

    def restore(
        self, *options: str, image: Path | None = None, name: str = "one", grouped: bool = False
    ) -> None:  # fmt: skip
        """To the point from which on it runs; `grouped`: in a control group like those of Skerry."""
        image = image or self._kept.checkpoint
        command = [
            *self._base, "restore", "--detach", f"--bundle={self._bundle}", f"--image-path={image}",
            f"--pid-file={self._directory / name}.pid", *options, name,
        ]  # fmt: skip
        if grouped:
            self._groups.create(name, _limits(self._kept))
            enter = "; ".join(f"echo $$ > {path}" for path in self._groups.entry_files(name))
            command = ["sh", "-c", f'{enter}; exec "$@"', "sh", *command]
        call(command)

    def create(self, name: str = "one") -> None:
        """All of a start that can come before the memory."""
        pid_file = f"--pid-file={self._directory / name}.pid"
        call([*self._base, "create", f"--bundle={self._bundle}", pid_file, name])

    def checkpoint(self, target: Path, *options: str, name: str = "one") -> None:
        call([*self._base, "checkpoint", f"--image-path={target}", *options, name])

    async def end(self, name: str = "one") -> None:
        """No-op when it does not run."""
        with suppress(FileNotFoundError, ProcessLookupError):
            pid = int((self._directory / f"{name}.pid").read_text())
            os.kill(pid, signal.SIGKILL)
            with anyio.move_on_after(10):
                await wait_for_exit(pid)
        (self._directory / f"{name}.pid").unlink(missing_ok=True)
        for path in (self._directory / "runsc").glob(f"*{name}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self._groups.remove(name)


def _limits(kept: Kept) -> Limits:
    return Limits(cpu=1, memory_mib=4096, disk_mib=kept.meta()["disk_mib"], pids=512)


@asynccontextmanager
async def by_hand(kept: Kept, directory: Path, names: tuple[str, ...] = ("one",)) -> AsyncIterator[ByHand]:
    """All that a restore needs to find; in the end nothing of it is left."""
    meta = kept.meta()
    directory.mkdir()
    images, disks = Images(ServerSettings().images_dir), Disks(directory / "data", directory / "mounts")
    layers = images.trees(meta["image"])
    async with AsyncExitStack() as undo:
        groups = ControlGroups(f"skerry-bench-{os.getpid()}")
        undo.callback(groups.remove_root)
        undo.push_async_callback(_shielded, lambda: disks.remove("hand"))
        rootfs = await disks.create("hand", layers=layers, size_mib=meta["disk_mib"], source=kept.disk)
        hand = ByHand(kept, rootfs, directory, groups)
        for name in names:
            undo.push_async_callback(_shielded, partial(hand.end, name))
        yield hand


async def _shielded(action: Callable[[], Awaitable[None]]) -> None:
    with anyio.CancelScope(shield=True):
        await action()

"""`ports.VolumeDisks` in memory: names and sizes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import anyio

from skerry.errors import VolumeInUse
from skerry.ports import VolumeUsage


@dataclass
class MemoryDisks:
    """What there is, by name. Tests set what fails, and hold what shall take long."""

    def __post_init__(self) -> None:
        self.there: dict[str, VolumeUsage] = {}
        self.log: list[str] = []
        self.fails: BaseException | None = None
        self.fails_after: BaseException | None = None
        """Raised when the change is made, as if the server died then."""
        self.busy: set[str] = set()
        self.hold: anyio.Event | None = None
        self.files: Any = None

    async def start(self) -> None:
        self.log.append("start")

    async def stop(self, *, keep: bool = False) -> None:
        self.log.append("stop")

    def names(self) -> set[str]:
        return set(self.there)

    async def create(self, name: str, size_mib: int, inodes: int) -> None:
        await self._step(f"create {size_mib}")
        self.there[name] = VolumeUsage(size_mib, 1 << 20, 2 << 20, inodes, 11)
        self._after()

    async def copy(self, source: str, name: str, *, live: bool) -> None:
        await self._step("copy live" if live else "copy")
        self.there[name] = self.there[source]
        self._after()

    async def resize(self, name: str, size_mib: int) -> None:
        await self._alone(name, f"resize {size_mib}")
        self.there[name] = replace(self.there[name], size_mib=size_mib)
        self._after()

    async def replace(self, name: str, source: str) -> None:
        await self._alone(name, "replace")
        self.there[name] = self.there[source]
        self._after()

    async def remove(self, name: str) -> None:
        await self._alone(name, "remove")
        self.there.pop(name, None)
        self._after()

    async def usage(self, name: str) -> VolumeUsage:
        return self.there[name]

    async def _alone(self, name: str, what: str) -> None:
        await self._step(what)
        if name in self.busy:
            raise VolumeInUse("busy")

    async def _step(self, what: str) -> None:
        self.log.append(what)
        if self.hold is not None:
            await self.hold.wait()
        if self.fails is not None:
            raise self.fails

    def _after(self) -> None:
        if self.fails_after is not None:
            raise self.fails_after

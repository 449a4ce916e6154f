"""How a program says which volumes a sandbox gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class HasId(Protocol):
    """A volume, of either half of the SDK."""

    @property
    def id(self) -> str: ...


@dataclass(frozen=True, slots=True)
class ReadOnly:
    """A volume, by its name or id, for a sandbox that must not write to it: `volumes={"/data": ReadOnly("name")}`, or
    `volumes={"/data": volume.read_only()}`."""

    volume: str


Mountable = HasId | ReadOnly | str
"""A volume, its name or its id; or `ReadOnly`."""


def mounts_of(volumes: Mapping[str, Mountable]) -> list[dict[str, Any]]:
    """Path → volume, as the server wants it."""
    mounts: list[dict[str, Any]] = []
    for path, volume in volumes.items():
        if isinstance(volume, ReadOnly):
            mounts.append({"volume": volume.volume, "path": path, "read_only": True})
        else:
            mounts.append({"volume": volume if isinstance(volume, str) else volume.id, "path": path})
    return mounts

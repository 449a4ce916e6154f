"""Volumes in sandboxes.

Each sandbox has a directory of its own on the host, which it sees at VOLUMES_MOUNT. `attach` mounts volumes there, on
the host; `show` lets the agent bind each to the path where the sandbox's programs look for it. Memory that is restored
holds such binds already: there `attach` comes before the restore, and what the agent has mounted stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from skerry.errors import AgentViolation, CannotMount, Error, SandboxLost
from skerry.failpoints import reached
from skerry.models import MountedVolume
from skerry.node.machine import Volumes
from skerry.node.unit import Unit
from skerry.ports import VOLUMES_MOUNT


async def attach(host: Volumes, unit: Unit, volumes: Sequence[MountedVolume]) -> None:
    """Mount volumes for a sandbox on the host, before or after its start. `Builder.remove` undoes it.

    Raises:
        CannotMount: none of them is mounted then.
    """
    if not volumes:
        return
    try:
        await host.attach(unit.name, [(volume.id, volume.read_only) for volume in volumes])
    except (Error, OSError) as error:
        raise CannotMount(f"cannot mount volumes for a sandbox: {error}") from error
    reached("volume: attached")


async def show(unit: Unit, volumes: Sequence[MountedVolume]) -> None:
    """Let them appear at their paths, in this order. Raises CannotMount, SandboxLost."""
    for volume in volumes:
        try:
            source = f"{VOLUMES_MOUNT}/{volume.id}"
            await unit.require_link().mount(source, volume.path, read_only=volume.read_only)
        except (SandboxLost, AgentViolation):
            raise
        except Error as error:
            raise CannotMount(
                f"cannot mount volume {volume.name!r} at {volume.path}: {error.message}", path=volume.path
            ) from error

"""What a sandbox goes through: pause and resume, stop and start, snapshots, forks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from skerry.errors import Error
from skerry.models import ForkReply
from skerry.models import Sandbox as SandboxInfo
from skerry.models import Snapshot as SnapshotInfo
from skerry.sdk import wire
from skerry.sdk._async.client import AsyncClient
from skerry.sdk.results import fork_incomplete
from skerry.sdk.wire import UNSET, Unset


class AsyncLifecycle:
    """The part of `AsyncSandbox` that does not look inside it."""

    def __init__(self, client: AsyncClient, created: SandboxInfo) -> None:
        self._client = client
        self.created = created
        self.id = created.id

    async def pause(self, *, keep_memory: bool = True, to_disk: bool = False) -> SandboxInfo:
        """Let nothing of it run until it is resumed; no-op when it is paused.

        Args:
            keep_memory: keep its processes; otherwise its files only, and it boots again.
            to_disk: write its memory to the disk now; otherwise it waits in memory, and is written after some time.

        Raises:
            SandboxNotRunning
            CannotSnapshot, HostFull: it goes on.
        """
        return await self._change("pause", {"keep_memory": keep_memory, "to_disk": to_disk})

    async def resume(self, *, timeout: float | Unset | None = UNSET, keep_memory: bool = True) -> SandboxInfo:
        """Let it go on where it was paused; no-op when it runs.

        Args:
            timeout: seconds from now until its time is over; None: never; left out: as many as it was given last.
            keep_memory: False: boot it again from its files although its memory was kept.

        Raises:
            SandboxNotRunning, HostFull, SandboxStartFailed, SnapshotDamaged, SnapshotIncompatible: it stays as it was.
        """
        return await self._change("resume", {"keep_memory": keep_memory, **wire.told(timeout_s=timeout)})

    async def stop(self, *, reset: bool = False, grace: float = 5.0) -> SandboxInfo:
        """End its processes and keep its files until it is started; no-op when it is stopped.

        Args:
            reset: forget its files too; it starts as its template or snapshot was.
            grace: seconds between SIGTERM and the end.

        Raises:
            SandboxNotRunning
            HostFull: its files stay, in a sandbox that runs, without those processes.
        """
        return await self._change("stop", {"reset": reset, "grace_s": grace})

    async def start(self, *, timeout: float | Unset | None = UNSET) -> SandboxInfo:
        """Boot it again after `stop`; no-op when it runs. `timeout` and errors as for `resume`."""
        return await self._change("start", wire.told(timeout_s=timeout))

    async def snapshot(self, name: str | None = None, *, memory: bool = True) -> SnapshotInfo:
        """Keep a copy of it as it is now; it goes on. See `Snapshot` for what there is.

        Args:
            name: for `Sandbox.create(snapshot=…)` and the like; an older snapshot of that name loses it.
            memory: with its processes; otherwise its files only.

        Raises:
            SandboxNotRunning, CannotSnapshot, HostFull
        """
        body = {"memory": memory, **wire.given(name=name)}
        return SnapshotInfo.model_validate_json(await self._client.call("POST", self._path("snapshots"), body))

    async def fork(
        self,
        n: int = 1,
        *,
        timeout: float | Unset | None = UNSET,
        env: Mapping[str, str] | None = None,
    ) -> Sequence[Self]:
        """Running copies of it as it is now; it goes on.

        Args:
            n: how many, at most 100.
            timeout: seconds until the time of each is over; None: never; left out: as many as this one was given.
            env: in place of, or beside, this one's environment, for all that is started in the copies.

        Raises:
            SandboxNotRunning, CannotSnapshot, HostFull: there is no copy.
            ForkIncomplete: some could not be made; those that were are its `sandboxes`, and run.
        """
        body = {"count": n, "env": dict(env or {}), **wire.told(timeout_s=timeout)}
        reply = ForkReply.model_validate_json(await self._client.call("POST", self._path("fork"), body))
        made = [type(self)(self._client, fork.sandbox) for fork in reply.items if fork.sandbox is not None]
        errors = [Error.from_wire({"error": fork.error}) for fork in reply.items if fork.sandbox is None]
        if errors and not made:
            raise errors[0]
        if errors:
            raise fork_incomplete(self.id, made, errors) from errors[0]
        return made

    async def rollback(self, snapshot: str | SnapshotInfo) -> SandboxInfo:
        """Make it what it was when this snapshot of it was taken, by id or name; what it is now is given up. It runs.

        Raises:
            SandboxNotRunning, SnapshotNotFound, SnapshotDamaged: it is as before.
            Conflict: the snapshot is of another sandbox; it is as before.
            SnapshotIncompatible, HostFull, SandboxStartFailed: it is paused, as the snapshot is.
        """
        return await self._change("rollback", {"snapshot": reference_of(snapshot)})

    async def _change(self, how: str, body: Mapping[str, Any]) -> SandboxInfo:
        return SandboxInfo.model_validate_json(await self._client.call("POST", self._path(how), body))

    def _path(self, *parts: str, **query: Any) -> str:
        return wire.path_of("sandboxes", self.id, *parts, **query)


def reference_of(snapshot: str | SnapshotInfo) -> str:
    """What a snapshot is called over the wire."""
    return snapshot if isinstance(snapshot, str) else snapshot.id

"""envd's Filesystem service (`filesystem.Filesystem`): everything about files but their content."""

from __future__ import annotations

import logging
import posixpath
import secrets
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.abc

from skerry.errors import Error, FileExists, FileMissing, NotADirectory
from skerry.facades.e2b import ownership
from skerry.facades.e2b.connect import Call
from skerry.facades.e2b.errors import ConnectError
from skerry.facades.e2b.read import Content, flag, integer, text
from skerry.models import FileInfo, FileType, MakeDirectory, Rename, WatchEvent, WatchEventType

logger = logging.getLogger(__name__)

_TYPES = {FileType.FILE: "FILE_TYPE_FILE", FileType.DIRECTORY: "FILE_TYPE_DIRECTORY"}
_EVENTS = {
    WatchEventType.CREATE: "EVENT_TYPE_CREATE", WatchEventType.WRITE: "EVENT_TYPE_WRITE",
    WatchEventType.REMOVE: "EVENT_TYPE_REMOVE", WatchEventType.RENAME: "EVENT_TYPE_RENAME",
    WatchEventType.CHMOD: "EVENT_TYPE_CHMOD",
}  # fmt: skip
_LIST_MAX = 100_000
_WATCHERS_MAX = 64
"""Polled watchers of one sandbox."""
_SETTLE_S = 0.05
"""Before events are fetched: what a client has just caused is on its way."""
_HELD_MAX = 10_000
"""Events that a polled watcher holds; the oldest go when it is not asked."""


def entry(info: FileInfo) -> Content:
    """EntryInfo: the type is that of what a symbolic link leads to."""
    link = info.type is FileType.SYMLINK
    kind = info.target_type if link else info.type
    other = "FILE_TYPE_SYMLINK" if link else "FILE_TYPE_UNSPECIFIED"
    shown: Content = {
        "name": info.name, "path": info.path, "size": str(info.size), "mode": info.mode,
        "type": other if kind is None else _TYPES.get(kind, other), "permissions": _permissions(info),
        "owner": info.owner, "group": info.group,
        "modifiedTime": info.modified_at.isoformat().replace("+00:00", "Z"),
    }  # fmt: skip
    if info.metadata:
        shown["metadata"] = info.metadata
    if link:
        shown["symlinkTarget"] = posixpath.normpath(posixpath.join(posixpath.dirname(info.path), info.target or ""))
        shown["isSymlink"] = True
    return shown


def _permissions(info: FileInfo) -> str:
    """As Go's `fs.FileMode` shows itself."""
    kind = {FileType.DIRECTORY: "d", FileType.SYMLINK: "L"}.get(info.type, "-")
    special = "".join(letter for bit, letter in ((0o4000, "u"), (0o2000, "g"), (0o1000, "t")) if info.mode & bit)
    bits = "".join("rwxrwxrwx"[8 - n] if info.mode >> n & 1 else "-" for n in range(8, -1, -1))
    return (special if kind == "-" and special else kind + special) + bits


async def stat(call: Call, content: Content) -> Content:
    info = await call.sandbox.core.files.stat(*call.sandbox.where, text(content, "path"), user=call.user)
    return {"entry": entry(info)}


async def make_directory(call: Call, content: Content) -> Content:
    path = text(content, "path")
    files = call.sandbox.core.files
    try:
        info = await files.stat(*call.sandbox.where, path, user=call.user)
    except FileMissing:
        return {"entry": entry(await ownership.make_directory(call.sandbox, path, call.user))}
    if FileType.DIRECTORY in (info.type, info.target_type):
        raise FileExists(f"directory already exists: {info.path}")
    raise NotADirectory(f"path already exists but it is not a directory: {info.path}")


async def move(call: Call, content: Content) -> Content:
    files = call.sandbox.core.files
    source, target = text(content, "source"), text(content, "destination")
    await files.stat(*call.sandbox.where, source, user=call.user)  # its absence comes before a new parent
    parent = posixpath.dirname(target)
    if parent:
        await files.make_directory(*call.sandbox.where, MakeDirectory(path=parent, parents=True, user=call.user))
    info = await files.rename(*call.sandbox.where, Rename(source=source, target=target, user=call.user))
    return {"entry": entry(info)}


async def list_directory(call: Call, content: Content) -> Content:
    found = await call.sandbox.core.files.list(
        *call.sandbox.where, text(content, "path"), user=call.user, depth=max(1, integer(content, "depth", 1)),
        limit=_LIST_MAX,
    )  # fmt: skip
    return {"entries": [entry(info) for info in found.items]}


async def remove(call: Call, content: Content) -> Content:
    """As `rm -rf`: what is not there is removed already."""
    with suppress(FileMissing):
        await call.sandbox.core.files.remove(*call.sandbox.where, text(content, "path"), user=call.user, recursive=True)
    return {}


# --- watching -------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def watch_directory(call: Call, content: Content) -> AsyncIterator[AsyncIterator[Content]]:
    """`WatchDir`: changes as they happen."""
    async with _watched(call, content) as events:
        yield _started(events)


async def _started(events: AsyncIterator[Content]) -> AsyncIterator[Content]:
    yield {"start": {}}
    async for event in events:
        yield {"filesystem": event}


@asynccontextmanager
async def _watched(call: Call, content: Content) -> AsyncIterator[AsyncIterator[Content]]:
    files, path = call.sandbox.core.files, text(content, "path")
    info = await files.stat(*call.sandbox.where, path, user=call.user)
    if FileType.DIRECTORY not in (info.type, info.target_type):
        raise ConnectError("invalid_argument", f"path {info.path} is not a directory")
    recursive, detailed = flag(content, "recursive"), flag(content, "includeEntry", "include_entry")
    async with files.watch(*call.sandbox.where, path, user=call.user, recursive=recursive) as events:
        yield _events(call, events, info.path, detailed=detailed)


async def _events(
    call: Call, events: AsyncIterator[WatchEvent], directory: str, *, detailed: bool
) -> AsyncIterator[Content]:
    async for event in events:
        kind = _EVENTS.get(event.type)
        if kind is None:
            continue  # an overflow, which the protocol has no word for
        shown: Content = {"name": posixpath.relpath(event.path, directory), "type": kind}
        if detailed:
            try:
                info = await call.sandbox.core.files.stat(*call.sandbox.where, event.path, user=call.user)
                shown["entry"] = entry(info)
            except Error:
                pass  # gone meanwhile
        yield shown


@dataclass(eq=False)
class _Watcher:
    """One that is asked for its events, instead of sending them."""

    sandbox_id: str
    events: deque[Content] = field(default_factory=lambda: deque(maxlen=_HELD_MAX))
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    failure: Exception | None = None


class Watchers:
    """`CreateWatcher`, `GetWatcherEvents`, `RemoveWatcher`. Watching goes on in `group`."""

    def __init__(self, group: anyio.abc.TaskGroup) -> None:
        self._group = group
        self._watchers: dict[str, _Watcher] = {}

    async def create(self, call: Call, content: Content) -> Content:
        mine = [watcher for watcher in self._watchers.values() if watcher.sandbox_id == call.sandbox.id]
        if len(mine) >= _WATCHERS_MAX:
            raise ConnectError("resource_exhausted", f"a sandbox can have {_WATCHERS_MAX} watchers; remove one first")
        watcher, name = _Watcher(call.sandbox.id), "w" + secrets.token_hex(8)
        await self._group.start(self._watch, watcher, name, call, content)
        if watcher.failure is not None:
            raise watcher.failure
        return {"watcherId": name}

    async def _watch(
        self, watcher: _Watcher, name: str, call: Call, content: Content, *, task_status: anyio.abc.TaskStatus[None]
    ) -> None:
        try:
            with watcher.scope:
                async with _watched(call, content) as events:
                    self._watchers[name] = watcher
                    task_status.started()
                    async for event in events:
                        watcher.events.append(event)
        except Exception as error:
            if name not in self._watchers:
                watcher.failure = error
                task_status.started()
            elif not isinstance(error, Error):  # must not end the server, whose group this is
                logger.exception("fault in a watcher")
        finally:
            self._watchers.pop(name, None)

    async def events(self, call: Call, content: Content) -> Content:
        watcher = self._known(call, content)
        await anyio.sleep(_SETTLE_S)
        events = []
        while watcher.events:
            events.append(watcher.events.popleft())
        return {"events": events}

    async def remove(self, call: Call, content: Content) -> Content:
        self._known(call, content).scope.cancel()
        self._watchers.pop(_id(content), None)
        return {}

    def _known(self, call: Call, content: Content) -> _Watcher:
        watcher = self._watchers.get(_id(content))
        if watcher is None or watcher.sandbox_id != call.sandbox.id:
            raise ConnectError("not_found", f"watcher with id {_id(content)} not found")
        return watcher


def _id(content: dict[str, Any]) -> str:
    return text(content, "watcherId") or text(content, "watcher_id")

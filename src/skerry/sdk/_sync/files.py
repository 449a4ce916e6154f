# Generated from src/skerry/sdk/_async/files.py by tools/async_to_sync.py: change that.

"""Files of a sandbox."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from skerry.errors import FileMissing
from skerry.models import FileInfo, FileList, WatchEvent
from skerry.sdk import wire
from skerry.sdk._sync.client import Client

_OCTETS = {"Content-Type": "application/octet-stream"}
_BLOCK = 1024 * 1024


class Files:
    """`sandbox.files`. Paths are absolute, or relative to the home directory of `user`. Every call raises the
    `FileError` that says what was wrong with a path."""

    def __init__(self, client: Client, sandbox_id: str) -> None:
        self._client, self._sandbox_id = client, sandbox_id

    def read(self, path: str, *, user: str | None = None) -> str:
        """The content, as UTF-8 text."""
        return (self.read_bytes(path, user=user)).decode()

    def read_bytes(self, path: str, *, user: str | None = None) -> bytes:
        """The content."""
        return self._client.call("GET", self._path(path=path, user=user))

    @contextmanager
    def read_stream(self, path: str, *, user: str | None = None) -> Iterator[Iterator[bytes]]:
        """The content in pieces, for large files."""
        with self._client.stream("GET", self._path(path=path, user=user)) as chunks:
            yield chunks

    def write(
        self, path: str, content: str | bytes | Iterable[bytes], *, user: str | None = None,
        mode: int | None = None, parents: bool = True, metadata: Mapping[str, str] | None = None,
    ) -> FileInfo:  # fmt: skip
        """Replace the file, wholly or not at all.

        Args:
            mode: default: 0o644 for a new file, kept for an old one.
            parents: make missing directories.
            metadata: noted on the file, 4,096 bytes at most; `stat` and `list` show it. Keys become lower case.

        Raises:
            InvalidRequest: the metadata's keys are no names of headers, its values no printable ASCII, or too much.
        """
        data = (
            content.encode() if isinstance(content, str) else content if isinstance(content, bytes) else iter(content)
        )
        query = {"path": path, "user": user, "mode": None if mode is None else f"{mode:04o}", "parents": parents}
        headers = {**_OCTETS, **wire.metadata_headers(metadata or {})}
        return FileInfo.model_validate_json(self._client.send("PUT", self._path(**query), data, headers=headers))

    def upload(self, local: str | Path, path: str, *, user: str | None = None, mode: int | None = None) -> FileInfo:
        """Copy a local file into the sandbox."""
        with open(local, "rb") as file:
            return self.write(path, _blocks(file), user=user, mode=mode)

    def download(self, path: str, local: str | Path, *, user: str | None = None) -> None:
        """Copy a file out of the sandbox."""
        with self.read_stream(path, user=user) as chunks:
            with open(local, "wb") as file:
                for chunk in chunks:
                    file.write(chunk)

    def stat(self, path: str, *, user: str | None = None) -> FileInfo:
        """What the path is; a symbolic link is not followed."""
        return FileInfo.model_validate_json(self._client.call("GET", self._path("stat", path=path, user=user)))

    def exists(self, path: str, *, user: str | None = None) -> bool:
        """Whether there is anything at the path."""
        try:
            self.stat(path, user=user)
        except FileMissing:
            return False
        return True

    def list(self, path: str = "~", *, depth: int = 1, user: str | None = None, limit: int = 10_000) -> list[FileInfo]:
        """What is below a directory, `depth` levels deep, in lexical order; at most `limit` entries."""
        query = {"path": path, "depth": depth, "user": user, "limit": limit}
        return FileList.model_validate_json(self._client.call("GET", self._path("list", **query))).items

    def mkdir(self, path: str, *, parents: bool = True, mode: int = 0o755, user: str | None = None) -> FileInfo:
        """Make a directory. Raises FileExists when it exists and `parents` is false."""
        body = {"path": path, "parents": parents, "mode": mode, **wire.given(user=user)}
        return FileInfo.model_validate_json(self._client.call("POST", self._path("mkdir"), body))

    def rename(self, source: str, target: str, *, user: str | None = None) -> FileInfo:
        """Move a file or directory."""
        body = {"source": source, "target": target, **wire.given(user=user)}
        return FileInfo.model_validate_json(self._client.call("POST", self._path("rename"), body))

    def remove(self, path: str, *, recursive: bool = False, user: str | None = None) -> None:
        """Remove a file, a link or a directory."""
        self._client.call("DELETE", self._path(path=path, recursive=recursive, user=user))

    def chmod(self, path: str, mode: int, *, user: str | None = None) -> FileInfo:
        """Change permissions."""
        return self._set(path=path, mode=mode, user=user)

    def chown(self, path: str, owner: str | None = None, group: str | None = None, *, user: str = "root") -> FileInfo:
        """Change owner or group."""
        return self._set(path=path, owner=owner, group=group, user=user)

    def _set(self, **fields: Any) -> FileInfo:
        return FileInfo.model_validate_json(self._client.call("PATCH", self._path(), wire.given(**fields)))

    @contextmanager
    def watch(self, path: str, *, recursive: bool = False, user: str | None = None) -> Iterator[Iterator[WatchEvent]]:
        """Changes below a directory, from the moment the context is entered."""
        query = {"path": path, "recursive": recursive, "user": user}
        with self._client.events("GET", self._path("watch", **query)) as events:
            for event in events:
                assert event["type"] == "ready"
                break
            yield _watch_events(events)

    def _path(self, *parts: str, **query: Any) -> str:
        return wire.path_of("sandboxes", self._sandbox_id, "files", *parts, **query)


def _watch_events(events: Iterator[Any]) -> Iterator[WatchEvent]:
    for event in events:
        yield WatchEvent.model_validate(event)


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    while block := file.read(_BLOCK):
        yield block

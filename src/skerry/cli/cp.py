"""`skerry cp`: files and folders in and out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from skerry import Sandbox
from skerry.errors import InvalidRequest
from skerry.models import FileInfo, FileType
from skerry.sdk._sync.files import Files
from skerry.sdk._sync.volume import VolumeFiles

_BLOCK = 1024 * 1024
_DEPTH = 16
_ENTRIES = 10_000


def cp(
    source: Annotated[str, typer.Argument(help="A local path, or ID:PATH in a sandbox.")],
    target: Annotated[str, typer.Argument(help="A local path, or ID:PATH in a sandbox.")],
    user: Annotated[
        str | None, typer.Option(help="User to read and write as, inside; default: the template's.")
    ] = None,
) -> None:
    """Copy a file or a folder into a sandbox or out of it.

    As with cp, a target that is an existing folder receives the source under its own name.
    """
    inside_source, inside_target = _inside(source), _inside(target)
    if (inside_source is None) == (inside_target is None):
        raise InvalidRequest("cannot copy: exactly one of source and target must be ID:PATH")
    with transfer_bar() as progress:
        if inside_target is not None:
            Transfer(Sandbox.connect(inside_target[0]).files, progress, user=user).into(Path(source), inside_target[1])
        else:
            assert inside_source is not None
            Transfer(Sandbox.connect(inside_source[0]).files, progress, user=user).out(inside_source[1], Path(target))


def _inside(argument: str) -> tuple[str, str] | None:
    """Id and path; None for a local path, which may hold a colon after a slash."""
    sandbox_id, colon, path = argument.partition(":")
    if not colon or "/" in sandbox_id or len(sandbox_id) < 2:
        return None
    return sandbox_id, path or "."


def transfer_bar() -> Progress:
    """Shows what a `Transfer` does."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), transient=True
    )


class Transfer:
    """Files and folders between here and a sandbox or a volume.

    Args:
        options: of every call, such as the user of a sandbox.
    """

    def __init__(self, files: Files | VolumeFiles, progress: Progress, **options: Any) -> None:
        self._files: Any = files
        self._progress, self._options = progress, options

    def into(self, source: Path, target: str) -> None:
        """Local to sandbox or volume."""
        if not source.exists():
            raise InvalidRequest(f"cannot copy {source}: there is no such file or folder")
        if target.endswith("/") or self._is_folder(target):
            target = str(PurePosixPath(target) / source.resolve().name)
        if source.is_file():
            self._upload(source, target)
            return
        self._files.mkdir(target, **self._options)
        for folder, folders, names in os.walk(source):
            below = PurePosixPath(target) / Path(folder).relative_to(source).as_posix()
            for name in folders:
                self._files.mkdir(str(below / name), **self._options)
            for name in names:
                self._upload(Path(folder) / name, str(below / name))

    def out(self, source: str, target: Path) -> None:
        """Sandbox or volume to local. Names come from it, so none of them may lead out of the target."""
        info = self._files.stat(source, **self._options)
        if target.is_dir():
            target = target / PurePosixPath(info.path).name
        if info.type is not FileType.DIRECTORY:
            self._download(source, target, info.size)
            return
        target.mkdir(exist_ok=True)
        for item in self._below(source, info.path):
            relative = PurePosixPath(item.path).relative_to(info.path)
            if ".." in relative.parts:
                raise InvalidRequest(f"cannot copy {item.path!r}: it leads out of the folder")
            if item.type is FileType.DIRECTORY:
                (target / relative).mkdir(exist_ok=True)
            elif item.type is FileType.FILE:
                self._download(item.path, target / relative, item.size)

    def _below(self, folder: str, path: str) -> Iterator[FileInfo]:
        """All that is in a folder, each folder before what is in it."""
        for item in self._files.list(folder, depth=_DEPTH, **self._options, limit=_ENTRIES):
            yield item
            if item.type is FileType.DIRECTORY and len(PurePosixPath(item.path).relative_to(path).parts) == _DEPTH:
                yield from self._below(item.path, item.path)

    def _is_folder(self, path: str) -> bool:
        if not self._files.exists(path, **self._options):
            return False
        return self._files.stat(path, **self._options).type is FileType.DIRECTORY

    def _upload(self, source: Path, target: str) -> None:
        task = self._progress.add_task(source.name, total=source.stat().st_size)
        mode = source.stat().st_mode & 0o777
        self._files.write(target, self._blocks(source, task), **self._options, mode=mode)
        self._progress.remove_task(task)

    def _blocks(self, source: Path, task: TaskID) -> Iterator[bytes]:
        with source.open("rb") as file:
            while block := file.read(_BLOCK):
                yield block
                self._progress.advance(task, len(block))

    def _download(self, source: str, target: Path, size: int) -> None:
        task = self._progress.add_task(target.name, total=size)
        if target.is_symlink():
            raise InvalidRequest(f"cannot write {target}: it is a symbolic link")
        with self._files.read_stream(source, **self._options) as chunks, target.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
                self._progress.advance(task, len(chunk))
        self._progress.remove_task(task)

"""`skerry cp`: files and folders in and out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from skerry import Sandbox
from skerry.errors import InvalidRequest
from skerry.models import FileType

_BLOCK = 1024 * 1024


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
    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), transient=True
    )
    with bar as progress:
        if inside_target is not None:
            _Copy(Sandbox.connect(inside_target[0]), user, progress).into(Path(source), inside_target[1])
        else:
            assert inside_source is not None
            _Copy(Sandbox.connect(inside_source[0]), user, progress).out(inside_source[1], Path(target))


def _inside(argument: str) -> tuple[str, str] | None:
    """Id and path; None for a local path, which may hold a colon after a slash."""
    sandbox_id, colon, path = argument.partition(":")
    if not colon or "/" in sandbox_id or len(sandbox_id) < 2:
        return None
    return sandbox_id, path or "."


class _Copy:
    def __init__(self, sandbox: Sandbox, user: str | None, progress: Progress) -> None:
        self._sandbox, self._user, self._progress = sandbox, user, progress

    def into(self, source: Path, target: str) -> None:
        """Local to sandbox."""
        if not source.exists():
            raise InvalidRequest(f"cannot copy {source}: there is no such file or folder")
        if target.endswith("/") or self._is_folder(target):
            target = str(PurePosixPath(target) / source.resolve().name)
        if source.is_file():
            self._upload(source, target)
            return
        self._sandbox.files.mkdir(target, user=self._user)
        for folder, folders, names in os.walk(source):
            below = PurePosixPath(target) / Path(folder).relative_to(source).as_posix()
            for name in folders:
                self._sandbox.files.mkdir(str(below / name), user=self._user)
            for name in names:
                self._upload(Path(folder) / name, str(below / name))

    def out(self, source: str, target: Path) -> None:
        """Sandbox to local. Names come from the sandbox, so none of them may lead out of the target."""
        info = self._sandbox.files.stat(source, user=self._user)
        if target.is_dir():
            target = target / PurePosixPath(info.path).name
        if info.type is not FileType.DIRECTORY:
            self._download(source, target, info.size)
            return
        target.mkdir(exist_ok=True)
        for item in self._sandbox.files.list(source, depth=64, user=self._user, limit=100_000):
            relative = PurePosixPath(item.path).relative_to(info.path)
            if ".." in relative.parts:
                raise InvalidRequest(f"cannot copy {item.path!r}: it leads out of the folder")
            if item.type is FileType.DIRECTORY:
                (target / relative).mkdir(exist_ok=True)
            elif item.type is FileType.FILE:
                self._download(item.path, target / relative, item.size)

    def _is_folder(self, path: str) -> bool:
        if not self._sandbox.files.exists(path, user=self._user):
            return False
        return self._sandbox.files.stat(path, user=self._user).type is FileType.DIRECTORY

    def _upload(self, source: Path, target: str) -> None:
        task = self._progress.add_task(source.name, total=source.stat().st_size)
        mode = source.stat().st_mode & 0o777
        self._sandbox.files.write(target, self._blocks(source, task), user=self._user, mode=mode)
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
        with self._sandbox.files.read_stream(source, user=self._user) as chunks, target.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
                self._progress.advance(task, len(chunk))
        self._progress.remove_task(task)

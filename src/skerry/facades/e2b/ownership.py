"""Files where their user may not write. E2B's agent makes files and folders as root and gives them to the user who is
named, so that programs written for it keep their work in folders of their own below `/`. Here calls act with the
user's rights; where those do not suffice for making something, it is made as E2B would."""

from __future__ import annotations

import posixpath
from collections.abc import AsyncIterator, Mapping

from skerry.errors import FileMissing, PermissionDenied
from skerry.facades.e2b.sandbox import SandboxCall
from skerry.models import FileInfo, MakeDirectory, SetAttributes

_ROOT = "root"
_OWN = ("/home/", "/tmp/", "/var/tmp/")  # noqa: S108 - inside the sandbox
"""Below these the user's own rights do, at the cost of one call instead of three or more."""


async def make_directory(sandbox: SandboxCall, path: str, user: str) -> FileInfo:
    """A directory with its parents; no-op when it is there."""
    files, where = sandbox.core.files, sandbox.where
    try:
        return await files.make_directory(*where, MakeDirectory(path=path, parents=True, user=user))
    except PermissionDenied:
        if not path.startswith("/"):
            raise
    group = await _group(sandbox, user)
    new = [missing async for missing in _missing(sandbox, posixpath.normpath(path))]
    info = await files.make_directory(*where, MakeDirectory(path=path, parents=True, user=_ROOT))
    for made in reversed(new):
        info = await _give(sandbox, made, user, group)
    return info


async def write(
    sandbox: SandboxCall, path: str, chunks: AsyncIterator[bytes], user: str, metadata: Mapping[str, str]
) -> FileInfo:
    """A file's new content, wholly or not at all; missing parents are made."""
    files, where = sandbox.core.files, sandbox.where
    # It must be known before: content comes once, and cannot be sent again after a refusal.
    if not path.startswith("/") or posixpath.normpath(path).startswith(_OWN):
        return await files.write(*where, path, chunks, user=user, metadata=metadata)
    parent = await _stat(sandbox, posixpath.dirname(path))
    if parent is None:
        await make_directory(sandbox, posixpath.dirname(path), user)
    elif parent.owner == user:
        return await files.write(*where, path, chunks, user=user, metadata=metadata)
    group = await _group(sandbox, user)
    await files.write(*where, path, chunks, user=_ROOT, metadata=metadata)
    return await _give(sandbox, path, user, group)


async def _group(sandbox: SandboxCall, user: str) -> str | None:
    """The user's own, as their home directory tells; None for a user without one."""
    try:
        return (await sandbox.core.files.stat(*sandbox.where, ".", user=user)).group
    except FileMissing:
        return None


async def _missing(sandbox: SandboxCall, path: str) -> AsyncIterator[str]:
    """Those of the directory and its parents that are not there, the lowest first."""
    while path != "/" and await _stat(sandbox, path) is None:
        yield path
        path = posixpath.dirname(path)


async def _stat(sandbox: SandboxCall, path: str) -> FileInfo | None:
    try:
        return await sandbox.core.files.stat(*sandbox.where, path, user=_ROOT)
    except FileMissing:
        return None


async def _give(sandbox: SandboxCall, path: str, user: str, group: str | None) -> FileInfo:
    wanted = SetAttributes(path=path, owner=user, group=group, user=_ROOT)
    return await sandbox.core.files.set_attributes(*sandbox.where, wanted)

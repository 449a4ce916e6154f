"""Layers of images on this machine: trees named by the digest of what is in them, shared and never changed.

<directory>/<32 hex of the digest>/     in the form that overlayfs mounts
<directory>/<the same>.used             empty; its time says when a build last took it
"""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from skerry.errors import TemplateNotFound
from skerry.host import manifest, mounts

DIGEST = re.compile(r"^sha256:[0-9a-f]{64}$")
_NAME = re.compile(r"^[0-9a-f]{32}$")


class Layers:
    """The layers below one directory. Several processes may use it at the same time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """The tree of a layer. Raises TemplateNotFound."""
        place = self._place(digest)
        if not place.is_dir():
            raise TemplateNotFound(f"cannot find layer {digest}: it is not on this machine")
        return place

    def has(self, digest: str) -> bool:
        """Whether it is here; if so it counts as used."""
        if not self._place(digest).is_dir():
            return False
        self._use(digest)
        return True

    def adopt(self, tree: Path, digest: str | None = None) -> str:
        """Take a finished tree on the same file system, unless there is one of that digest; returns the digest.

        Args:
            digest: what it is named by; None: the digest of its content.
        """
        digest = digest or manifest.digest(tree)
        place = self._place(digest)
        if not place.is_dir():
            mounts.sync_file_system(tree)
            try:
                tree.rename(place)
            except OSError as error:  # another build was faster
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
        self._use(digest)
        return digest

    def collect(self, kept: Collection[str], doomed: Path, unused_s: float = 0.0) -> list[str]:
        """Move all layers but `kept`, and those that were used in the last `unused_s` seconds, below the directory
        `doomed`; returns their names."""
        names = {self._place(digest).name for digest in kept}
        moved = []
        for path in self._all():
            if path.name not in names and (not unused_s or self._unused_s(path) > unused_s):
                with suppress(FileNotFoundError):  # another server collects, too
                    path.rename(doomed / path.name)  # at once: a half-removed layer must never look whole
                    if unused_s and self._unused_s(path) <= unused_s:  # a build took it in this moment
                        (doomed / path.name).rename(path)
                        continue
                    self._mark(path).unlink(missing_ok=True)
                    moved.append(path.name)
        return moved

    def _use(self, digest: str) -> None:
        self._mark(self._place(digest)).touch()

    def _unused_s(self, path: Path) -> float:
        """Seconds since it was used. One without a mark, of an older version, gets its first one now."""
        try:
            return time.time() - self._mark(path).stat().st_mtime
        except FileNotFoundError:
            self._mark(path).touch()
            return 0.0

    def _mark(self, path: Path) -> Path:
        return path.with_name(f"{path.name}.used")

    def size_bytes(self, digest: str) -> int:
        return manifest.size_bytes(self.path(digest))

    def _all(self) -> Iterator[Path]:
        return (path for path in sorted(self._directory.iterdir()) if _NAME.match(path.name))

    def _place(self, digest: str) -> Path:
        if not DIGEST.match(digest):
            raise TemplateNotFound(f"cannot find layer {digest!r}: that is no digest")
        # Half of it: the kernel takes one page for all the names of a mount's layers.
        return self._directory / digest[7:39]

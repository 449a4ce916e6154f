"""Local files on their way into a template: which ones, under which names, in which archive."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from skerry.errors import InvalidRequest

if TYPE_CHECKING:
    from pathspec import PathSpec

_PATTERN = frozenset("*?[")


@dataclass(frozen=True)
class Ignore:
    """Which paths, relative to the context, are left out.

    Attributes:
        rules: those of a .dockerignore, in order.
    """

    rules: tuple[str, ...] = ()

    @classmethod
    def read(cls, root: Path, names: Sequence[str] = (".dockerignore",)) -> Ignore:
        """The rules of the first of these files that there is."""
        for name in names:
            with suppress(OSError):
                return cls.of((root / name).read_text(errors="replace").splitlines())
        return cls()

    @classmethod
    def of(cls, lines: Iterable[str]) -> Ignore:
        """The rules in these lines."""
        return cls(tuple(rule for rule in map(_rule, lines) if rule is not None))

    def __call__(self, path: str) -> bool:
        return bool(self.rules) and self._spec.match_file(path)

    @property
    def has_exceptions(self) -> bool:
        """Whether something below an ignored directory may be wanted."""
        return any(rule.startswith("!") for rule in self.rules)

    @cached_property
    def _spec(self) -> PathSpec[Any]:
        from pathspec import PathSpec  # only when there is something to ignore

        # These patterns differ from git's: each begins at the context's root, and always means what is below, too.
        return PathSpec.from_lines("gitignore", [line for rule in self.rules for line in (rule, f"{rule}/**")])


NOTHING = Ignore()


@dataclass(frozen=True)
class Archive:
    """Files, under the names that they have in a tar.

    Attributes:
        entries: name, and local path or text, by name; a name that ends with `/` is a directory.
    """

    entries: tuple[tuple[str, Path | str], ...]

    @cached_property
    def digest(self) -> str:
        """64 hexadecimal digits, of names, kinds, modes and contents: not of times and owners."""
        total = hashlib.sha256()
        for name, path in self.entries:
            if isinstance(path, str):
                total.update(json.dumps([name, path]).encode())
                continue
            found = path.lstat()
            content = ""
            if stat.S_ISLNK(found.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(found.st_mode):
                with path.open("rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
            total.update(json.dumps([name, stat.filemode(found.st_mode), content]).encode())
        return total.hexdigest()

    def write(self, out: IO[bytes]) -> None:
        """As a tar."""
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name, path in self.entries:
                if isinstance(path, str):
                    text = path.encode()
                    made = tarfile.TarInfo(name)
                    made.size, made.mode = len(text), 0o644
                    tar.addfile(made, io.BytesIO(text))
                    continue
                tar.inodes.clear()  # type: ignore[attr-defined] # a file of several names is written under each
                member = tar.gettarinfo(path, name)
                member.uid = member.gid = 0
                member.uname = member.gname = ""
                if member.isreg():
                    with path.open("rb") as file:
                        tar.addfile(member, file)
                else:
                    tar.addfile(member)


@dataclass(frozen=True)
class File:
    """A file that is uploaded as it is: a tar made elsewhere."""

    path: Path

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Copy:
    """What a step copies, laid out as it shall be at the target.

    Attributes:
        source: of the step: which part of the archive.
        target: of the step; it ends with `/` when it is a directory.
    """

    archive: Archive
    source: str
    target: str


def collect(root: Path, sources: Sequence[str], target: str, ignore: Ignore = NOTHING) -> Copy:
    """What COPY takes from a directory.

    Args:
        root: the context: nothing outside it is taken.
        sources: paths or patterns in it; of a directory its content is taken.
        target: a directory when it ends with `/`; it must when there is more than one source.

    Raises:
        InvalidRequest: a source is outside, or nothing matches it.
    """
    root = root.resolve()
    target = "./" if target == "." else target
    found = [match for source in sources for match in matches(root, source, ignore)]
    if len(found) == 1 and not found[0][1].is_dir() and not target.endswith("/"):
        name = PurePosixPath(found[0][0]).name
        if not _PATTERN & set(name):
            return Copy(_archive([(name, found[0][1])]), name, target)
        parent, _, name = target.rpartition("/")  # a name that would be a pattern, were it the step's source
        return Copy(_archive([(name, found[0][1])]), ".", f"{parent}/")
    if len(found) > 1 and not target.endswith("/"):
        raise InvalidRequest(
            f"cannot copy {' '.join(sources)} to {target}: of several files, the target must be a directory and end "
            "with /"
        )
    entries: list[tuple[str, Path | str]] = []
    for relative, path in found:
        if path.is_dir():
            entries.append(("./", path))
            entries += _below(root, path, relative, ignore)
        else:
            entries.append((PurePosixPath(relative).name, path))
    return Copy(_archive(entries), ".", target if target.endswith("/") else f"{target}/")


def texts(files: Iterable[tuple[str, str]]) -> Archive:
    """An archive of files with these names and texts."""
    return _archive(files)


def _archive(entries: Iterable[tuple[str, Path | str]]) -> Archive:
    by_name = dict(entries)  # of the same name the later one counts, as with copies one after the other
    return Archive(tuple(sorted(by_name.items())))


def matches(root: Path, source: str, ignore: Ignore = NOTHING) -> Iterator[tuple[str, Path]]:
    """Relative path and real path of all that a source means. Raises InvalidRequest."""
    root = root.resolve()
    pattern = os.path.normpath("/" + source).strip("/")  # as docker takes it: `..` does not lead out of the context
    try:
        candidates = sorted(root.glob(pattern)) if _PATTERN & set(pattern) else [root / pattern]
    except ValueError as error:
        raise InvalidRequest(f"cannot copy {source}: {error}") from None
    some = False
    for candidate in candidates:
        relative = candidate.relative_to(root).as_posix()
        real = candidate.resolve()
        if not real.is_relative_to(root):
            raise InvalidRequest(f"cannot copy {source}: {relative} leads out of {root}")
        if real.exists() and (relative == "." or not ignore(relative)):
            some = True
            yield relative, real
    if not some:
        raise InvalidRequest(f"cannot copy {source}: {root} has nothing of that name that is not ignored")


def _below(root: Path, directory: Path, relative: str, ignore: Ignore) -> Iterator[tuple[str, Path]]:
    for folder, folders, files in os.walk(directory):
        here = Path(folder)
        links = [name for name in folders if (here / name).is_symlink()]
        folders[:] = sorted(set(folders) - set(links))
        for name in sorted([*folders, *files, *links]):
            path, is_folder = here / name, name in folders
            inside = path.relative_to(directory).as_posix()
            if ignore(inside if relative == "." else f"{relative}/{inside}"):
                if is_folder and not ignore.has_exceptions:
                    folders.remove(name)
                continue
            if not _is_content(path):
                continue
            yield (f"{inside}/" if is_folder else inside), path


def _is_content(path: Path) -> bool:
    """Not a socket, a FIFO or a device."""
    mode = path.lstat().st_mode
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)


def _rule(line: str) -> str | None:
    line = line.strip()
    if not line or line.startswith("#"):
        return None
    negated, pattern = ("!", line[1:].strip()) if line.startswith("!") else ("", line)
    pattern = os.path.normpath("/" + pattern).lstrip("/")
    return None if not pattern else f"{negated}/{pattern}"

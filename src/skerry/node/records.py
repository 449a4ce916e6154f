"""What is written down about each sandbox before anything of it exists, so that a crash at any instant can be undone.

A record is one small JSON file in the sandbox's run directory, replaced atomically. It survives the death of the
server, not that of the machine, after which there is nothing to recover: so it is not synced to the disk.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from skerry.models import Isolation, Limits

_FILE = "record.json"


@dataclass(slots=True)
class Record:
    """One sandbox on this machine. `name` is the machine's name for it; callers know it by `sandbox_id`."""

    name: str
    isolation: Isolation
    template: str
    image: str
    limits: Limits
    sandbox_id: str | None = None
    """None while it waits in a pool."""
    internet: bool = True
    network_index: int | None = None
    pid: int | None = None
    started: int | None = None
    """Start time of `pid` in clock ticks since the host's boot: pids are reused, pairs of both are not."""
    warm: dict[str, int] = field(default_factory=dict)
    origin: str = "cold"
    held: bool = False
    """It stands still, or is about to: whoever takes it over lets it go on."""
    runtime: str = ""
    """Name of the runtime directory that it sees."""
    is_durable: bool = False
    """Its files are kept should it die."""
    incarnation: int = 0
    """Which start of the sandbox it is: only one of them is the sandbox."""


class Records:
    """The records below one run directory: `<directory>/<name>/record.json`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def directory(self, name: str) -> Path:
        """The sandbox's run directory: its record, and the directory of its link socket."""
        return self._directory / name

    def link_directory(self, name: str) -> Path:
        """The part of it that the sandbox's root user sees, read-only."""
        return self._directory / name / "link"

    def write(self, record: Record) -> None:
        """Create or replace."""
        directory = self.directory(record.name)
        directory.mkdir(mode=0o700, exist_ok=True)
        self.link_directory(record.name).mkdir(mode=0o700, exist_ok=True)
        content = asdict(record) | {"limits": record.limits.model_dump()}
        temporary = directory / f"{_FILE}.new"
        temporary.write_text(json.dumps(content))
        temporary.replace(directory / _FILE)

    def remove(self, name: str) -> None:
        """Remove the record and its directory, with whatever else lies there. No-op when there is none."""
        shutil.rmtree(self.directory(name), ignore_errors=True)

    def names(self) -> list[str]:
        """Of every run directory, with a readable record or not."""
        return [path.name for path in self._directory.iterdir() if path.is_dir()]

    def read(self, name: str) -> Record | None:
        """None when there is no record, or one that cannot be understood."""
        try:
            return _parse(json.loads((self.directory(name) / _FILE).read_text()))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def all(self) -> Iterator[Record]:
        for name in self.names():
            record = self.read(name)
            if record is not None:
                yield record


def _parse(content: dict[str, Any]) -> Record:
    return Record(
        **(content | {"isolation": Isolation(content["isolation"]), "limits": Limits.model_validate(content["limits"])})
    )


def start_time(pid: int) -> int | None:
    """When process `pid` started, in clock ticks since the host's boot; None when there is no such process or only its
    zombie is left."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def lives(record: Record) -> bool:
    """Whether the process that the record names is still the one it named."""
    return record.pid is not None and record.started is not None and start_time(record.pid) == record.started


def new_name() -> str:
    """A fresh name: short, because it is part of a Unix socket's path, which is limited to 107 bytes."""
    return os.urandom(6).hex()

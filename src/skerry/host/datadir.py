"""The data directory's version: what is in it beside the database, which has versions of its own.

An older directory is brought up to date, one step for each version; a newer one is refused, because a server that does
not know what is there would take it for garbage and remove it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from skerry.errors import Conflict

_FILE = "version.json"


def _with_states(directory: Path) -> None:
    """To version 1: paused and stopped sandboxes, and snapshots, have a place."""
    (directory / "states").mkdir(mode=0o700, exist_ok=True)


STEPS: Sequence[Callable[[Path], None]] = (_with_states,)
"""Each from the version before; safe to be repeated, should the server die in between."""
VERSION = len(STEPS)


def prepare(directory: Path, steps: Sequence[Callable[[Path], None]] = STEPS) -> None:
    """Bring it to the present version. To be called by the one server that holds it.

    Raises:
        Conflict: a newer server has used it, or its version cannot be read; nothing is changed.
    """
    path = directory / _FILE
    found = _read(path, directory)
    if found > len(steps):
        raise Conflict(
            f"cannot use {directory}: it has version {found}, and this server knows {len(steps)}; use the newer "
            "Skerry that made it so, or name another --data-dir",
            found=found, known=len(steps),
        )  # fmt: skip
    for number, step in enumerate(steps[found:], found + 1):
        step(directory)
        new = path.with_suffix(".new")
        new.write_text(json.dumps({"version": number}) + "\n")
        new.rename(path)


def _read(path: Path, directory: Path) -> int:
    try:
        version = json.loads(path.read_text())["version"]
    except FileNotFoundError:
        return 0
    except (OSError, ValueError, KeyError, TypeError):
        version = None
    if type(version) is not int or version < 0:
        raise Conflict(f"cannot use {directory}: {path.name} is not what a server writes; restore it from a backup")
    return version

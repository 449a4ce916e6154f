"""What a node could leave behind, counted for one test machine."""

from __future__ import annotations

import os
from pathlib import Path

from tests.node.real import root_group


def counts(directory: Path) -> dict[str, int]:
    return {
        "children": len(_children()),
        "mounts": Path("/proc/self/mountinfo").read_text().count(str(directory)),
        "control groups": sum(
            1 for path in Path("/sys/fs/cgroup").glob(f"*/{root_group(directory)}/*") if path.is_dir()
        ),
        "loop devices": sum(
            1 for path in Path("/sys/block").glob("loop*/loop/backing_file") if _starts(path, str(directory))
        ),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "run files": len(list((directory / "run").glob("**/*"))),
        "state files": sum(1 for path in (directory / "state").glob("**/*") if not path.is_dir()),
        "disks": len(list((directory / "data" / "disks").glob("*"))),
    }


def _children() -> list[str]:
    """Our own children, dead or alive."""
    found: list[str] = []
    for path in Path("/proc/self/task").glob("*/children"):
        found += path.read_text().split()
    return found


def _starts(path: Path, prefix: str) -> bool:
    try:
        return path.read_text().startswith(prefix)
    except OSError:
        return False

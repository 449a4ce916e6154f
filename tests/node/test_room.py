"""A machine without memory takes no more sandboxes."""

from __future__ import annotations

from pathlib import Path

import pytest

from skerry.errors import HostFull
from skerry.node.room import RESERVE_MIB, check_room


def _meminfo(path: Path, mib: int) -> Path:
    path.write_text(f"MemTotal:       99999999 kB\nMemFree:  1 kB\nMemAvailable: {mib * 1024} kB\n")
    return path


def test_there_is_room(tmp_path: Path) -> None:
    check_room(_meminfo(tmp_path / "meminfo", RESERVE_MIB))


def test_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(HostFull) as caught:
        check_room(_meminfo(tmp_path / "meminfo", RESERVE_MIB - 1))
    assert caught.value.details["available_mib"] == RESERVE_MIB - 1
    assert caught.value.retryable

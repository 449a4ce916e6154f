"""A machine for driver tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drivers.rig import Rig, enter_private_mounts


@pytest.fixture
def rig() -> Iterator[Rig]:
    enter_private_mounts()
    # Short, because Unix sockets lie below it.
    with tempfile.TemporaryDirectory(prefix="sk", dir="/tmp") as directory:
        rig = Rig(Path(directory))
        yield rig
        rig.close()

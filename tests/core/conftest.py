"""A core on an engine that only says what it does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from skerry.core import Core
from tests.core.test_sandboxes import Engine, core_on


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine()
    yield engine
    engine.close()


@pytest.fixture
async def core(tmp_path: Path, engine: Engine) -> AsyncIterator[Core]:
    async with core_on(tmp_path, engine) as core:
        yield core

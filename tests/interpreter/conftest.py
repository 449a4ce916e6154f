from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interpreter.rig import Interpreter


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interpreter]:
    """For tests that leave nothing behind but variables of their own."""
    interpreter = Interpreter(tmp_path_factory.mktemp("interpreter"), warm=True)
    yield interpreter
    interpreter.close()


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Interpreter]:
    """For tests that end it, break it, or count."""
    interpreter = Interpreter(tmp_path)
    yield interpreter
    interpreter.close()

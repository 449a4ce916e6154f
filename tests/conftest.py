"""What every test shares."""

import os
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """The server runs on asyncio; so do the tests."""
    return "asyncio"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """`make test` sets SKERRY_TEST_COMPLETE: what cannot run there fails, so that nobody takes a skip for a success."""
    outcome: Any = yield
    report = outcome.get_result()
    if os.environ.get("SKERRY_TEST_COMPLETE") and report.skipped and not hasattr(report, "wasxfail"):
        assert call.excinfo is not None
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped ({call.excinfo.value}), and the whole suite skips nothing"

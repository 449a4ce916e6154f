"""A server for the templates that ship. `make test-templates` has built them; what is missing fails."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One without pools: each template is used once or twice, and two cores have enough to do."""
    settings = {"SKERRY_SUBNET": "10.216.0.0/16", "SKERRY_POOL_MIN": "0"}
    server = Server(tmp_path_factory.mktemp("skerry") / "data", settings=settings)
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="session")
def domain_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that is reached by names below a domain, with certificates of its own authority."""
    settings = {"SKERRY_SUBNET": "10.217.0.0/16", "SKERRY_POOL_MIN": "0"}
    server = Server(
        tmp_path_factory.mktemp("skerry") / "data", settings=settings,
        arguments=("--domain", "sbx.localhost", "--tls", "private-ca"),
    )  # fmt: skip
    yield server
    assert server.stop() == 0

"""The template `desktop`, driven by E2B's desktop SDK and watched by a real browser: see tests/clients/e2b-desktop."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.e2e.conftest import Server
from tests.e2e.test_documented_examples import examples
from tests.e2e.test_e2b import CLIENTS, PYTEST, ROOT, environment, run

pytestmark = [pytest.mark.templates, pytest.mark.timeout(600)]


def by_names(server: Server) -> dict[str, str]:
    """What makes E2B's clients use this server by names, as pages in a browser must."""
    ready = server.ready["e2b"]
    chromium = shutil.which("chromium")
    assert chromium is not None, "Chromium is not installed: run tools/clients.sh desktop"
    return {
        **os.environ, "E2B_API_KEY": server.api_key, "E2B_DOMAIN": ready["domain"], "CHROMIUM": chromium,
        "SSL_CERT_FILE": ready["ca_file"],
    }  # fmt: skip


def test_in_python_and_in_a_browser(domain_server: Server) -> None:
    run(CLIENTS / "e2b-desktop" / "bin" / "python", *PYTEST, scenarios="e2b-desktop", env=by_names(domain_server))


def test_in_javascript(server: Server) -> None:
    env = {**environment(server), "E2B_CLIENT": str(CLIENTS / "e2b-desktop-js")}
    run(CLIENTS / "node" / "bin" / "node", "--test", scenarios="e2b-desktop-js", env=env)


def test_the_documented_example(domain_server: Server, tmp_path: Path) -> None:
    [(code, _)] = examples(ROOT / "docs" / "how-to" / "desktop.md")
    (tmp_path / "example.py").write_text(code)
    run(
        CLIENTS / "e2b-desktop" / "bin" / "python",
        tmp_path / "example.py",
        scenarios=str(tmp_path),
        env=by_names(domain_server),
    )
    assert (tmp_path / "screen.png").read_bytes().startswith(b"\x89PNG")

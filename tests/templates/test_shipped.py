"""Every template that ships, in use inside a sandbox."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from skerry import Sandbox
from skerry.host.definitions import definition, shipped
from tests.e2e.conftest import Server, eventually

pytestmark = [pytest.mark.templates, pytest.mark.timeout(400)]

INSIDE = Path(__file__).parent / "inside"


def run_inside(sandbox: Sandbox, name: str) -> str:
    """Run one of the programs in `inside`; returns what it printed."""
    sandbox.files.write(f"{name}.py", (INSIDE / f"{name}.py").read_text())
    done = sandbox.exec(["python3", f"{name}.py"], timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.parametrize("name", shipped())
def test_what_the_definition_names_is_installed(server: Server, name: str) -> None:
    wanted = definition(name)
    with server.sandbox(template=name) as sandbox:
        packages = {"python": wanted.python.packages, "debian": wanted.debian.packages}
        sandbox.files.write("packages.json", json.dumps(packages))
        assert json.loads(run_inside(sandbox, "installed")) == {"missing": [], "pip check": ""}


@pytest.mark.parametrize("name", ["data-analysis", "web-scraping", "document-processing"])
def test_a_program_for_it_works(server: Server, name: str) -> None:
    with server.sandbox(template=name) as sandbox:
        assert run_inside(sandbox, name) == "proven\n"


def test_playwright_in_run_code(server: Server) -> None:
    """In cells as in programs: awaited at the top level, and blocking."""
    page = "data:text/html,<title>{}</title>"
    with server.sandbox(template="web-scraping") as sandbox:
        sandbox.run_code(
            "from playwright.async_api import async_playwright\n"
            "playwright = await async_playwright().start()\n"
            "browser = await playwright.chromium.launch()\n"
            "page = await browser.new_page()"
        )
        done = sandbox.run_code(f"await page.goto('{page.format('awaited')}')\nawait page.title()", timeout=60)
        assert done.text == "'awaited'", done
        done = sandbox.run_code(
            "from playwright.sync_api import sync_playwright\n"
            "with sync_playwright() as blocking:\n"
            "    page = blocking.chromium.launch().new_page()\n"
            f"    page.goto('{page.format('blocking')}')\n"
            "    title = page.title()\n"
            "title", timeout=60,
        )  # fmt: skip
        assert done.text == "'blocking'", done


def ask(server: Server, sandbox: Sandbox, path: str, body: bytes | None = None) -> Any:
    """A request to port 8080 inside, through the server. A port that is not open is an HTTPError."""
    headers = {"X-API-Key": server.api_key, "Content-Type": "application/json"}
    request = urllib.request.Request(sandbox.port_url(8080) + path, body, headers)
    with urllib.request.urlopen(request, timeout=20) as reply:
        return json.load(reply)


def test_httpbin_answers_at_once(server: Server) -> None:
    with server.sandbox(template="httpbin") as sandbox:
        assert ask(server, sandbox, "get?a=b")["args"] == {"a": "b"}
        assert ask(server, sandbox, "anything/x", b'{"c": 1}')["data"] == '{"c": 1}'
        inside = sandbox.exec("curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8080/status/418")
        assert inside.stdout == "418"


def test_httpbin_from_a_pool(tmp_path: Path) -> None:
    """Its memory was kept with the service running in it."""
    server = Server(
        tmp_path / "data", settings={"SKERRY_SUBNET": "10.215.0.0/16", "SKERRY_POOL_TEMPLATE": "httpbin", "SKERRY_POOL_MIN": "1"}
    )  # fmt: skip
    try:

        def claimed() -> bool:
            with server.sandbox(template="httpbin") as sandbox:
                assert ask(server, sandbox, "get")["url"]
                return sandbox.created.origin == "pool"

        eventually(claimed, timeout_s=90)
    finally:
        assert server.stop() == 0

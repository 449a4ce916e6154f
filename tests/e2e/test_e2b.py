"""E2B's own clients, unmodified, of the oldest and the newest generation that is supported: see tests/clients."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.registry import serve, tiny_system

from .conftest import Server
from .test_documented_examples import examples

ROOT = Path(__file__).resolve().parents[2]


CLIENTS = ROOT / "build" / "clients"


def environment(server: Server) -> dict[str, str]:
    """What makes E2B's clients use this server."""
    return {
        **os.environ, "E2B_API_KEY": server.api_key, "E2B_API_URL": server.api_url, "E2B_SANDBOX_URL": server.api_url,
        "E2B_VOLUME_API_URL": server.api_url,
    }  # fmt: skip


def run(*words: str | Path, scenarios: str, env: dict[str, str]) -> None:
    """Run a client's scenarios; all must pass."""
    assert Path(words[0]).exists(), "the client is not installed: run tools/clients.sh"
    done = subprocess.run(
        words, cwd=ROOT / "tests" / "clients" / scenarios, env=env, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=1150, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


PYTEST = ("-m", "pytest", "--rootdir", ".", "-c", "pytest.ini", "--tb=short", ".")


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("client", ["e2b-2.45", "e2b-2.63"])
def test_every_scenario_in_python(server: Server, client: str) -> None:
    run(CLIENTS / client / "bin" / "python", *PYTEST, scenarios="e2b", env=environment(server))


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("client", ["e2b-js-2.45", "e2b-js-2.51"])
def test_every_scenario_in_javascript(server: Server, client: str) -> None:
    env = {**environment(server), "E2B_CLIENT": str(CLIENTS / client)}
    run(CLIENTS / "node" / "bin" / "node", "--test", scenarios="e2b-js", env=env)


@pytest.mark.timeout(120)
def test_the_command_line(server: Server) -> None:
    cli = CLIENTS / "e2b-cli" / "node_modules" / ".bin" / "e2b"
    assert cli.exists(), "the client is not installed: run tools/clients.sh"

    def e2b(*words: str) -> str:
        # It finds the API by its domain only; the variable for the address goes before.
        env = {**environment(server), "PATH": f"{CLIENTS / 'node' / 'bin'}:{os.environ['PATH']}"}
        done = subprocess.run(
            [cli, *words], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done
        return done.stdout + done.stderr

    found = re.search(r"sb[0-9a-f]{10,}", e2b("sandbox", "create", "base", "--detach"))
    assert found is not None
    sandbox = found[0]
    assert sandbox in e2b("sandbox", "list")
    assert e2b("sandbox", "exec", sandbox, "--", "echo", "said inside").strip() == "said inside"
    assert "Envd version" in e2b("sandbox", "info", sandbox)
    assert "Memory" in e2b("sandbox", "metrics", sandbox)
    assert "sandbox.running" in e2b("sandbox", "logs", sandbox)
    assert "base" in e2b("template", "list")
    e2b("sandbox", "pause", sandbox)
    assert sandbox in e2b("sandbox", "list", "--state", "paused")
    e2b("sandbox", "resume", sandbox)
    assert sandbox in e2b("sandbox", "list")
    assert f"default/of-{sandbox}:default" in e2b("sandbox", "snapshot", "create", sandbox, "--name", f"of-{sandbox}")
    assert f"of-{sandbox}" in e2b("sandbox", "snapshot", "list", sandbox)
    e2b("sandbox", "kill", sandbox)
    assert sandbox not in e2b("sandbox", "list")


DOCUMENTED = [
    ("e2b", ["13", "Linux"]), ("e2b", ["42", "43", "True", "True"]), ("build-templates", ["<h1>hello</h1>"]),
]  # fmt: skip
"""Pages, and how what their examples print begins."""


@pytest.mark.parametrize("page", sorted({page for page, _ in DOCUMENTED}))
def test_the_documented_examples(server: Server, tmp_path: Path, page: str) -> None:
    code = [code for code, _ in examples(ROOT / "docs" / "how-to" / f"{page}.md") if "from e2b" in code]
    for text, words in zip(code, [words for on, words in DOCUMENTED if on == page], strict=True):
        example = tmp_path / "example.py"
        example.write_text(text)
        done = subprocess.run(
            [CLIENTS / "e2b-2.63" / "bin" / "python", example], env=environment(server), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        assert done.stdout.split()[: len(words)] == words, done


@pytest.mark.timeout(300)
def test_a_template_from_a_registrys_image(tmp_path: Path) -> None:
    (tmp_path / "registry").mkdir()
    with contextmanager(serve)(tmp_path / "registry", "somebody:secret") as registry:
        image = registry.push("tiny:1", [tiny_system()], Env=["PATH=/bin:/usr/bin", "FROM_IMAGE=yes"])
        settings = {
            "SKERRY_SUBNET": "10.219.0.0/16", "SKERRY_INSECURE_REGISTRIES": json.dumps([registry.address]),
            "SKERRY_IMAGE_ALIASES": json.dumps({"tiny.example": registry.address}),
        }  # fmt: skip
        server = Server(tmp_path / "data", settings=settings)
        env = {**environment(server), "IMAGE": image, "ALIAS": "tiny.example/tiny:1"}
        try:
            run(CLIENTS / "e2b-2.63" / "bin" / "python", *PYTEST, scenarios="e2b-registry", env=env)
        finally:
            assert server.stop() == 0


@pytest.fixture(scope="module")
def domain_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that is reached by names below a domain, with certificates of its own authority."""
    server = Server(
        tmp_path_factory.mktemp("skerry") / "data", settings={"SKERRY_SUBNET": "10.218.0.0/16"},
        arguments=("--domain", "sbx.localhost", "--tls", "private-ca"),
    )  # fmt: skip
    yield server
    assert server.stop() == 0


def in_domain_mode(server: Server) -> dict[str, str]:
    """What makes E2B's clients use this server by its domain."""
    ready = server.ready["e2b"]
    return {
        **os.environ, "E2B_API_KEY": server.api_key, "E2B_DOMAIN": ready["domain"], "SSL_CERT_FILE": ready["ca_file"],
        "NODE_EXTRA_CA_CERTS": ready["ca_file"],
    }  # fmt: skip


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("client", ["e2b-2.45", "e2b-2.63"])
def test_domain_mode(domain_server: Server, client: str) -> None:
    run(CLIENTS / client / "bin" / "python", *PYTEST, scenarios="e2b-domain", env=in_domain_mode(domain_server))


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("client", ["e2b-js-2.45", "e2b-js-2.51"])
def test_domain_mode_in_javascript(domain_server: Server, client: str) -> None:
    env = {**in_domain_mode(domain_server), "E2B_CLIENT": str(CLIENTS / client)}
    node = CLIENTS / "node" / "bin" / "node"
    run(node, "--require", "./loopback.cjs", "--test", scenarios="e2b-domain-js", env=env)

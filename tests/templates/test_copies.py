"""Interpreters of every language, forked: each copy draws numbers of its own (docs/explanation/fork-correctness.md)."""

from __future__ import annotations

import json
import re
import urllib.request

import pytest

from skerry import Sandbox
from tests.e2e.conftest import Server

pytestmark = [pytest.mark.templates, pytest.mark.timeout(400)]

DRAW = {
    "python": "import random, numpy; print(random.random(), numpy.random.rand())",
    "javascript": (
        "const c = await import('node:crypto'); console.log(Math.random(), crypto.randomUUID(), c.randomUUID(), "
        "c.randomBytes(8).toString('hex'), crypto.getRandomValues(new Uint32Array(2)).join('-'))"
    ),
    "r": "cat(runif(1), rnorm(1), sample(1e9, 1))",
    "bash": "echo $RANDOM$RANDOM$RANDOM $SRANDOM",
    "java": (
        'System.out.println(Math.random() + " " + new Random().nextLong() + " " + UUID.randomUUID() + " " '
        '+ ThreadLocalRandom.current().nextLong() + " " + new SplittableRandom().nextLong() + " " '
        "+ new java.security.SecureRandom().nextLong());"
    ),
}  # fmt: skip
"""What prints some numbers, all of them different from what other copies print."""


def fork(server: Server, sandbox: Sandbox, count: int) -> list[Sandbox]:
    request = urllib.request.Request(
        f"{server.api_url}/v1/sandboxes/{sandbox.id}/fork", json.dumps({"count": count}).encode(),
        {"X-API-Key": server.api_key, "Authorization": f"Bearer {server.api_key}", "Content-Type": "application/json"},
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=120) as reply:
        items = json.load(reply)["items"]
    assert all(item["error"] is None for item in items), items
    return [server.connect(item["sandbox"]["id"]) for item in items]


def draw(sandbox: Sandbox, language: str) -> list[str]:
    done = sandbox.run_code(DRAW[language], language=language, timeout=60)
    assert done.error is None, done
    return re.split(r"\s+", done.stdout.strip())


def test_copies_of_interpreters_differ(server: Server) -> None:
    with server.sandbox(template="code-interpreter-v1", memory=3072) as sandbox:
        for language in DRAW:
            draw(sandbox, language)
        copies = fork(server, sandbox, 2)
        try:
            for language in DRAW:
                numbers = [draw(each, language) for each in (sandbox, *copies)]
                for column in zip(*numbers, strict=True):
                    assert len(set(column)) == 3, f"{language}: {numbers}"
        finally:
            for copy in copies:
                copy.kill()

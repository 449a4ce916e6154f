"""Who uses a sandbox does not notice that snapshots are taken of it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from skerry import Sandbox
from tests.e2e.conftest import Server

SNAPSHOTS = 4


@contextmanager
def snapshots(sandbox: Sandbox) -> Iterator[None]:
    """Taken one after the other while the block runs."""
    failures: list[BaseException] = []

    def take() -> None:
        try:
            for _ in range(SNAPSHOTS):
                sandbox.snapshot()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=take)
    thread.start()
    yield
    thread.join()
    assert failures == []


def during(server: Server, work: Callable[[Sandbox], None]) -> None:
    with server.sandbox() as sandbox, snapshots(sandbox):
        work(sandbox)


def test_code_and_its_output(server: Server) -> None:
    code = "import time\nfor i in range(400):\n    print(i)\n    time.sleep(0.01)\nx = i\nx"

    def work(sandbox: Sandbox) -> None:
        for _ in range(2):
            done = sandbox.run_code(code, timeout=60)
            assert done.error is None, done
            assert done.stdout.split() == [str(number) for number in range(400)]
            assert done.text == "399"
        assert sandbox.run_code("x").text == "399"

    during(server, work)


def test_a_command_and_its_output(server: Server) -> None:
    script = "import sys, time\nfor i in range(1, 301):\n    print(i, flush=True)\n    time.sleep(0.01)\nsys.exit(3)"

    def work(sandbox: Sandbox) -> None:
        for _ in range(2):
            done = sandbox.exec(["python3", "-c", script], timeout=60)
            assert done.stdout.split() == [str(number) for number in range(1, 301)]
            assert done.returncode == 3

    during(server, work)


def test_files_and_short_calls(server: Server) -> None:
    content = hashlib.shake_256(b"file").digest(1_000_000)

    def work(sandbox: Sandbox) -> None:
        for number in range(60):
            sandbox.files.write(f"f{number}", content)
            assert sandbox.files.read_bytes(f"f{number}") == content
            assert sandbox.exec(["echo", str(number)]).stdout == f"{number}\n"

    during(server, work)

"""Copies on the network and in memory: addresses of their own, connections that are told, memory that each pays for itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from skerry import Sandbox
from skerry.errors import CannotSnapshot
from skerry.host.network import enable_forwarding
from tests.host import world as outside
from tests.host.world import World

from .conftest import Server, eventually

SILENT = outside.LAN
"""Of the host's neighbours: what a sandbox sends there is dropped, and answered by nothing."""
TALK = """
import socket, time
connection = socket.create_connection(("{address}", {port}), 10)
while True:
    try:
        connection.sendall(b"x" * 10)
        said = str(len(connection.recv(100)))
    except OSError as error:
        said = type(error).__name__
    open("/home/user/said", "w").write(said)
    time.sleep(0.05)
"""


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    changed = enable_forwarding()
    with outside.world() as world:
        threading.Thread(target=_echo, args=(world,), daemon=True).start()
        yield world
    if changed:
        Path("/proc/sys/net/ipv4/ip_forward").write_text("0")


def _echo(world: World) -> None:
    """Send back what comes, on every connection, until the world ends."""

    def serve(connection) -> None:
        with connection, suppress(OSError):
            while data := connection.recv(1000):
                connection.sendall(data)

    with suppress(OSError):
        while True:
            connection, _ = world.server.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()


@pytest.fixture
def talking(server: Server, world: World) -> Iterator[Sandbox]:
    """A sandbox with a connection to the internet that is used all the time."""
    with server.sandbox() as sandbox:
        sandbox.files.write("/home/user/talk.py", TALK.format(address=outside.INTERNET, port=world.port))
        sandbox.exec("exec python3 /home/user/talk.py", background=True)
        eventually(lambda: said(sandbox) == "10")
        yield sandbox


def said(sandbox: Sandbox) -> str | None:
    return sandbox.files.read("/home/user/said") if sandbox.files.exists("/home/user/said") else None


def test_a_connection_outlives_a_pause_in_memory(talking: Sandbox) -> None:
    talking.pause()
    talking.resume()
    talking.files.remove("/home/user/said")
    assert eventually(lambda: said(talking)) == "10"


def test_copies_have_addresses_of_their_own_and_connections_are_told_that_they_ended(talking: Sandbox) -> None:
    (copy,) = talking.fork(1)
    with copy:
        for sandbox in (talking, copy):
            assert eventually(lambda sandbox=sandbox: said(sandbox) not in ("10", None)), (
                "it is told, and does not hang"
            )
        addresses = [sandbox.exec("hostname -I").stdout.strip() for sandbox in (talking, copy)]
        assert addresses[0] != addresses[1]
        for sandbox in (talking, copy):
            sandbox.exec("pkill -f [t]alk.py; rm /home/user/said")
            sandbox.exec("exec python3 /home/user/talk.py", background=True)
            assert eventually(lambda sandbox=sandbox: said(sandbox)) == "10", "and can connect again"


def test_a_connection_that_is_being_made_is_in_the_way_and_named(server: Server, world: World) -> None:
    with server.sandbox() as sandbox:
        sandbox.exec(
            ["python3", "-c", f"import socket; socket.create_connection(('{SILENT}', 9), 600)"], background=True
        )
        eventually(lambda: "02" in _tcp_states(sandbox))
        with pytest.raises(CannotSnapshot, match="TCP connection is being made"):
            sandbox.snapshot()
        assert sandbox.run_code("1 + 1").text == "2", "it goes on"
        sandbox.snapshot(memory=False)


def _tcp_states(sandbox: Sandbox) -> list[str]:
    """Of /proc/net/tcp; 02 is a connection that waits for its answer."""
    lines = sandbox.exec("cat /proc/net/tcp").stdout.splitlines()[1:]
    return [line.split()[3] for line in lines]


def test_a_copy_may_have_an_environment_of_its_own(server: Server) -> None:
    with server.sandbox(env={"TOKEN": "the parent's", "KEPT": "yes"}) as parent:
        (copy,) = parent.fork(1, env={"TOKEN": "the copy's"})
        with copy:
            assert copy.exec("echo $TOKEN, $KEPT").stdout == "the copy's, yes\n"
            assert parent.exec("echo $TOKEN").stdout == "the parent's\n"


def test_each_copy_pays_for_its_memory(server: Server) -> None:
    with server.sandbox() as parent:
        parent.run_code("held = []")
        (copy,) = parent.fork(1)
        with copy:
            before = [sandbox.stats().memory_used_mib for sandbox in (parent, copy)]
            copy.run_code("import os; held.append(os.urandom(100 << 20))")
            after = [sandbox.stats().memory_used_mib for sandbox in (parent, copy)]
            assert after[1] - before[1] > 90
            assert after[0] - before[0] < 30

"""Around the host: a namespace that is the internet, a LAN and another LAN with public addresses; ways to act inside."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import anyio.to_thread

T = TypeVar("T")
NAME = "skerry-th-world"
LINK = "thworld0"
INTERNET = "203.0.113.2"
HOST_PUBLIC = "203.0.113.1"
LAN, HOST_LAN = "192.168.223.2", "192.168.223.1"
PUBLIC_LAN = "198.51.100.2"
LINK_LOCAL = "169.254.223.254"
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def act_inside(namespace: str, action: Callable[[], T]) -> T:
    """Run it on a thread that has moved into the namespace: sockets stay in the one they were made in."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            descriptor = os.open(namespace, os.O_RDONLY)
            try:
                assert _libc.setns(descriptor, _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            finally:
                os.close(descriptor)
            results.append(action())
        except BaseException as error:  # raised again below
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


async def inside(namespace: str, action: Callable[[], T]) -> T:
    """`act_inside`, while the event loop goes on."""
    return await anyio.to_thread.run_sync(act_inside, namespace, action)


def listen(address: str = "0.0.0.0") -> socket.socket:
    return socket.create_server((address, 0))


def connect(target: tuple[str, int], timeout_s: float = 2) -> socket.socket:
    return socket.create_connection(target, timeout_s)


def reachable(target: tuple[str, int]) -> bool:
    """Whether a connection comes about."""
    try:
        connect(target, 0.15).close()
    except OSError:
        return False
    return True


@dataclass
class World:
    """The outside. `port` takes connections at every address of `namespace`, `host_port` at every one of the host."""

    namespace: str
    server: socket.socket
    host_server: socket.socket

    @property
    def port(self) -> int:
        return int(self.server.getsockname()[1])

    @property
    def host_port(self) -> int:
        return int(self.host_server.getsockname()[1])


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=10)


def _lay_links() -> None:
    _ip("link", "add", LINK, "type", "veth", "peer", "name", "eth0", "netns", NAME)
    for address in (f"{HOST_PUBLIC}/32", f"{HOST_LAN}/24", "198.51.100.1/24"):
        _ip("address", "add", address, "dev", LINK)
    _ip("link", "set", LINK, "up")
    for address in (INTERNET, LINK_LOCAL):
        _ip("route", "add", f"{address}/32", "dev", LINK)
    within = ("-n", NAME)
    for address in (f"{INTERNET}/32", f"{LAN}/24", f"{PUBLIC_LAN}/24", f"{LINK_LOCAL}/32"):
        _ip(*within, "address", "add", address, "dev", "eth0")
    _ip(*within, "link", "set", "lo", "up")
    _ip(*within, "link", "set", "eth0", "up")
    _ip(*within, "route", "add", f"{HOST_PUBLIC}/32", "dev", "eth0")
    _ip(*within, "route", "add", "10.223.0.0/16", "via", HOST_PUBLIC, "dev", "eth0", "onlink")


@contextmanager
def world() -> Iterator[World]:
    """Made, and removed with everything in it."""
    _ip("netns", "add", NAME)
    try:
        _lay_links()
        namespace = f"/run/netns/{NAME}"
        with act_inside(namespace, listen) as server, listen() as host_server:
            yield World(namespace, server, host_server)
    finally:
        subprocess.run(["ip", "link", "delete", LINK], check=False, capture_output=True)
        _ip("netns", "delete", NAME)

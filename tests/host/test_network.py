"""What a sandbox reaches and what reaches it, with the kernel's own namespaces, links and rules."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

import anyio
import pytest

from skerry.errors import HostFull, SandboxLost, SandboxStartFailed
from skerry.host.network import MAX_INSTANCE, Network, Slot, enable_forwarding

from . import world as outside
from .resolver import Resolver, query, resolver
from .world import World, connect, inside, listen, reachable

pytestmark = pytest.mark.anyio
RESOLVER = "127.223.0.53"
SUBNET = "10.223.0.0/24"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    changed = enable_forwarding()
    with outside.world() as world:
        yield world
    if changed:
        Path("/proc/sys/net/ipv4/ip_forward").write_text("0")


@pytest.fixture
async def upstream() -> AsyncIterator[Resolver]:
    async with resolver(RESOLVER) as scripted:
        yield scripted


@pytest.fixture
async def network(world: World, upstream: Resolver) -> AsyncIterator[Network]:
    network = Network("th", SUBNET, resolvers=[RESOLVER])
    await network.start()
    yield network
    await network.stop()
    assert links() == []
    assert "skerry_th " not in tables()


@pytest.fixture
async def slot(network: Network) -> Slot:
    return await network.acquire()


def links(instance: str = "th") -> list[str]:
    return [name for _, name in socket.if_nameindex() if name.startswith(f"sk{instance}-")]


async def acquire_many(network: Network, count: int) -> list[Slot]:
    return [await network.acquire() for _ in range(count)]


def tables() -> str:
    return subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout


async def test_the_internet_is_reached_by_the_hosts_address(slot: Slot, world: World) -> None:
    with await inside(world.namespace, listen) as server:
        target = (outside.INTERNET, server.getsockname()[1])
        with await inside(slot.namespace, partial(connect, target)) as client, server.accept()[0] as accepted:
            assert client.getsockname()[0] == slot.address
            assert accepted.getpeername()[0] == outside.HOST_PUBLIC
            accepted.sendall(b"back")
            assert client.recv(4) == b"back"


@pytest.mark.parametrize("address", [outside.LAN, outside.PUBLIC_LAN, outside.LINK_LOCAL])
async def test_neighbours_of_the_host_are_not_reached(slot: Slot, world: World, address: str) -> None:
    assert reachable((address, world.port)), "the host itself does"
    assert not await inside(slot.namespace, partial(reachable, (address, world.port)))


@pytest.mark.parametrize("address", ["127.0.0.1", outside.HOST_PUBLIC, outside.HOST_LAN, "169.254.169.254", None])
async def test_the_host_is_not_reached(slot: Slot, world: World, address: str | None) -> None:
    if address != "169.254.169.254":
        assert reachable((address or slot.gateway, world.host_port)), "it does listen there"
    assert not await inside(slot.namespace, partial(reachable, (address or slot.gateway, world.host_port)))


async def test_sandboxes_are_not_reached(network: Network, slot: Slot, world: World) -> None:
    other = await network.acquire()
    with await inside(other.namespace, listen) as server:
        target = (other.address, server.getsockname()[1])
        assert await inside(other.namespace, partial(reachable, target)), "it does listen there"
        assert not await inside(slot.namespace, partial(reachable, target)), "by another sandbox"
        assert not await inside(world.namespace, partial(reachable, target)), "from outside"


async def test_exceptions_are_reached_and_nothing_beside_them(world: World) -> None:
    network = Network("tha", SUBNET, resolvers=[], allowed=[(IPv4Address(outside.LAN), world.port)])
    await network.start()
    try:
        slot = await network.acquire()
        assert await inside(slot.namespace, partial(reachable, (outside.LAN, world.port)))
        assert not await inside(slot.namespace, partial(reachable, (outside.PUBLIC_LAN, world.port)))
    finally:
        await network.stop()


async def test_names_over_udp_and_tcp(network: Network, slot: Slot, upstream: Resolver) -> None:
    assert f"nameserver {slot.gateway}\n" in network.resolv_conf

    def over_udp() -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(0.5)
            client.connect((slot.gateway, 53))
            client.send(query(1, b"udp"))
            return client.recv(1000)

    def over_tcp() -> bytes:
        with connect((slot.gateway, 53)) as client, client.makefile("rb") as answers:
            message = query(2, b"tcp")
            client.sendall(len(message).to_bytes(2, "big") + message)
            return answers.read(int.from_bytes(answers.read(2), "big"))

    assert await inside(slot.namespace, over_udp) == query(1, b"udp") + b"answered"
    assert await inside(slot.namespace, over_tcp) == query(2, b"tcp") + b"answered"
    assert len(upstream.asked) == 2
    await network.set_internet(slot, False)
    with pytest.raises(OSError, match=r"timed out|unreachable"):
        await inside(slot.namespace, over_udp)
    assert len(upstream.asked) == 2


async def test_other_sources_than_its_own_are_dropped(network: Network, slot: Slot, world: World) -> None:
    other = await network.acquire()

    def receiver() -> socket.socket:
        bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        bound.bind(("0.0.0.0", 0))
        bound.settimeout(2)
        return bound

    with await inside(world.namespace, receiver) as heard:
        target = (outside.INTERNET, heard.getsockname()[1])

        def send(source: str) -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.setsockopt(socket.IPPROTO_IP, 15, 1)  # IP_FREEBIND: an address that is not ours
                sender.setsockopt(socket.IPPROTO_IP, 19, 1)  # IP_TRANSPARENT: and may be sent from
                sender.bind((source, 0))
                sender.sendto(source.encode(), target)

        for source in (other.address, slot.gateway, "8.8.8.8", "127.0.0.2", slot.address):
            try:
                await inside(slot.namespace, partial(send, source))
            except OSError:
                assert source == "127.0.0.2", "the sandbox's own kernel sends no such thing"
        assert heard.recv(100) == slot.address.encode(), "the last one sent is the first to come"


async def test_without_internet_also_old_connections_stop(network: Network, slot: Slot, world: World) -> None:
    with await inside(world.namespace, listen) as server:
        target = (outside.INTERNET, server.getsockname()[1])
        with await inside(slot.namespace, partial(connect, target)) as client, server.accept()[0] as accepted:
            client.sendall(b"before")
            assert accepted.recv(100) == b"before"
            await network.set_internet(slot, False)
            accepted.settimeout(0.2)
            client.sendall(b"after")
            with pytest.raises(TimeoutError):
                accepted.recv(100)
            assert not await inside(slot.namespace, partial(reachable, target))
        await network.set_internet(slot, True)
        with anyio.fail_after(5):  # the kernel looks at links that came up once a second
            while not await inside(slot.namespace, partial(reachable, target)):
                pass


async def test_one_sandbox_without_internet_does_not_concern_others(network: Network, slot: Slot, world: World) -> None:
    other = await network.acquire()
    await network.set_internet(slot, False)
    await network.set_internet(slot, False)
    assert await inside(other.namespace, partial(reachable, (outside.INTERNET, world.port)))


async def test_nothing_is_left_of_many(world: World) -> None:
    before = len(os.listdir("/proc/self/fd"))
    network = Network("th", SUBNET, resolvers=[])
    await network.start()
    for _ in range(10):
        slots = [await network.acquire() for _ in range(3)]
        assert len({slot.address for slot in slots}) == 3
        for slot in slots:
            await network.release(slot)
            await network.release(slot)
    await network.stop()
    assert links() == []
    assert len(os.listdir("/proc/self/fd")) == before


async def test_at_the_same_time(network: Network) -> None:
    slots: list[Slot] = []

    async def acquire() -> None:
        slots.append(await network.acquire())

    async with anyio.create_task_group() as group:
        for _ in range(12):
            group.start_soon(acquire)
    assert len({slot.index for slot in slots}) == 12
    assert {os.path.exists(slot.namespace) for slot in slots} == {True}


async def test_who_leaves_while_one_is_made_loses_nothing(world: World) -> None:
    network = Network("th", "10.223.0.0/28", resolvers=[])
    await network.start()
    for _ in range(6):
        with anyio.move_on_after(0.002):
            while True:
                await network.release(await network.acquire())
    slots = [await network.acquire() for _ in range(13)]
    assert len({slot.index for slot in slots}) == 13
    await network.stop()
    assert links() == []


async def test_addresses_end_and_come_back(world: World) -> None:
    network = Network("th", "10.223.0.0/29", resolvers=[])
    await network.start()
    slots = [await network.acquire() for _ in range(5)]
    with pytest.raises(HostFull, match="SKERRY_SUBNET"):
        await network.acquire()
    await network.release(slots[0])
    assert (await network.acquire()).index == slots[0].index
    await network.stop()


async def test_a_later_server_takes_over(world: World) -> None:
    earlier = Network("th", SUBNET, resolvers=[])
    await earlier.start()
    slot = await earlier.acquire()
    target = (outside.INTERNET, world.port)
    held = os.open(slot.namespace, os.O_RDONLY)  # as the sandbox's processes do
    namespace = f"/proc/{os.getpid()}/fd/{held}"
    try:
        await earlier.stop(keep=True)
        assert await inside(namespace, partial(reachable, target)), "goes on without a server"
        later = Network("th", SUBNET, resolvers=[])
        await later.start()
        adopted = await later.adopt(slot.index)
        assert (adopted.address, adopted.gateway) == (slot.address, slot.gateway)
        assert slot.index not in {(await later.acquire()).index for _ in range(6)}
        assert await inside(namespace, partial(reachable, target))
        await later.set_internet(adopted, False)
        assert not await inside(namespace, partial(reachable, target))
        await later.stop()
    finally:
        os.close(held)
    assert links() == []


async def test_a_dead_sandboxs_number_that_is_anothers_by_now_is_not_taken_over(world: World) -> None:
    earlier = Network("th", SUBNET, resolvers=[])
    await earlier.start()
    dead = await earlier.acquire()  # its link goes with its namespace, of which nobody holds more than `earlier`
    await earlier.stop(keep=True)
    with anyio.fail_after(5):
        while links():
            await anyio.sleep(0.01)
    later = Network("th", SUBNET, resolvers=[])
    await later.start()
    given = [await later.acquire() for _ in range(3)]
    assert dead.index in {slot.index for slot in given}
    with pytest.raises(SandboxLost):
        await later.adopt(dead.index)
    for slot in given:
        assert await inside(slot.namespace, partial(reachable, (outside.INTERNET, world.port)))
    await later.stop()
    assert links() == []


async def test_one_that_cannot_be_connected_leaves_nothing(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(4):
        await network.acquire()  # those that were ready

    def refuse(slot: Slot) -> None:
        raise OSError(errno.ENOBUFS, "no room")

    with monkeypatch.context() as patched:
        patched.setattr(network, "_connect", refuse)
        with pytest.raises(SandboxStartFailed, match="no room"):
            await acquire_many(network, 6)
        while network._pending:
            await anyio.sleep(0.01)
    before = len(links())
    ready = len(network._ready)
    assert before == len(network._used) == len(network._descriptors)
    assert len({(await network.acquire()).index for _ in range(ready + 1)}) == ready + 1


@pytest.mark.parametrize("instance", ["", "x" * (MAX_INSTANCE + 1)])
def test_names_that_would_not_fit_a_link(instance: str) -> None:
    with pytest.raises(ValueError, match="characters"):
        Network(instance, SUBNET)

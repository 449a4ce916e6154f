"""The resolver that sandboxes see. Loopback addresses stand for sandboxes, gateway and name servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import anyio
import pytest

from skerry.host import dns

from .resolver import Resolver, ask_tcp, ask_udp, query, resolver

pytestmark = pytest.mark.anyio
SUBNET = IPv4Network("127.223.1.0/24")
GATEWAY = "127.223.1.1"
SANDBOX = "127.223.1.7"
FIRST, SECOND = "127.223.0.53", "127.223.0.54"


@pytest.fixture
async def upstream() -> AsyncIterator[Resolver]:
    async with resolver(FIRST) as scripted:
        yield scripted


async def started(*resolvers: str) -> dns.Forwarder:
    forwarder = dns.Forwarder(IPv4Address(GATEWAY), SUBNET, list(resolvers))
    await forwarder.start()
    return forwarder


@pytest.fixture
async def forwarder(upstream: Resolver) -> AsyncIterator[dns.Forwarder]:
    forwarder = await started(FIRST)
    yield forwarder
    await forwarder.stop()


async def test_a_query_is_answered_with_its_own_id(forwarder: dns.Forwarder, upstream: Resolver) -> None:
    asked = query(0x1234, b"name")
    assert await ask_udp((GATEWAY, forwarder.port), asked, source=SANDBOX) == asked + b"answered"
    assert upstream.asked[0][2:] == asked[2:]


async def test_equal_ids_of_several_sandboxes_are_not_mixed_up(forwarder: dns.Forwarder, upstream: Resolver) -> None:
    answers: dict[int, bytes | None] = {}

    async def ask(number: int) -> None:
        source = f"127.223.1.{number}"
        answers[number] = await ask_udp((GATEWAY, forwarder.port), query(7, bytes([number])), source=source)

    async with anyio.create_task_group() as group:
        for number in range(10, 30):
            group.start_soon(ask, number)
    assert answers == {number: query(7, bytes([number])) + b"answered" for number in range(10, 30)}
    assert len({message[:2] for message in upstream.asked}) == 20


async def test_messages_over_tcp_are_relayed(forwarder: dns.Forwarder) -> None:
    asked = [query(1, b"x" * 2000), query(2), query(3)]
    answers = await ask_tcp((GATEWAY, forwarder.port), *asked, source=SANDBOX)
    assert answers == [message + b"answered" for message in asked]


async def test_tcp_goes_to_a_resolver_that_speaks_it() -> None:
    async with resolver(FIRST, tcp=False), resolver(SECOND):
        forwarder = await started(FIRST, SECOND)
        answers = await ask_tcp((GATEWAY, forwarder.port), query(1), source=SANDBOX)
        await forwarder.stop()
    assert answers == [query(1) + b"answered"]


async def test_strangers_are_not_served(forwarder: dns.Forwarder, upstream: Resolver) -> None:
    stranger = "127.223.2.7"
    assert await ask_udp((GATEWAY, forwarder.port), query(1), source=stranger, wait_s=0.1) is None
    assert await ask_tcp((GATEWAY, forwarder.port), query(1), source=stranger) == []
    assert upstream.asked == []


async def test_what_is_no_message_is_dropped(forwarder: dns.Forwarder, upstream: Resolver) -> None:
    for data in (b"", b"x", b"x" * 11):
        assert await ask_udp((GATEWAY, forwarder.port), data, source=SANDBOX, wait_s=0.05) is None
    assert upstream.asked == []


async def test_answers_nobody_waits_for_are_dropped(forwarder: dns.Forwarder, upstream: Resolver) -> None:
    upstream.answer = lambda message: bytes([message[0] ^ 1]) + message[1:]
    assert await ask_udp((GATEWAY, forwarder.port), query(1), source=SANDBOX, wait_s=0.1) is None
    upstream.answer = lambda message: message[:4]
    assert await ask_udp((GATEWAY, forwarder.port), query(1), source=SANDBOX, wait_s=0.1) is None


async def test_one_sandbox_does_not_take_all_there_is(
    forwarder: dns.Forwarder, upstream: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dns, "MAX_PER_SANDBOX", 3)
    upstream.answer = lambda _: None
    for number in range(6):
        await ask_udp((GATEWAY, forwarder.port), query(number), source=SANDBOX, wait_s=0.02)
    assert len(upstream.asked) == 3
    upstream.answer = lambda message: message
    assert await ask_udp((GATEWAY, forwarder.port), query(1), source="127.223.1.8") == query(1)


async def test_a_silent_resolver_comes_last_and_room_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns, "_TIMEOUT_S", 0.1)
    monkeypatch.setattr(dns, "MAX_PER_SANDBOX", 1)
    async with resolver(FIRST) as silent, resolver(SECOND) as answering:
        silent.answer = lambda _: None
        forwarder = await started(FIRST, SECOND)
        assert await ask_udp((GATEWAY, forwarder.port), query(1), source=SANDBOX, wait_s=0.2) is None
        assert await ask_udp((GATEWAY, forwarder.port), query(2), source=SANDBOX) == query(2) + b"answered"
        await forwarder.stop()
    assert len(silent.asked) == len(answering.asked) == 1


async def test_no_resolver_no_answer() -> None:
    forwarder = await started()
    assert await ask_udp((GATEWAY, forwarder.port), query(1), source=SANDBOX, wait_s=0.05) is None
    assert await ask_tcp((GATEWAY, forwarder.port), query(1), source=SANDBOX) == []
    await forwarder.stop()


async def test_an_idle_connection_is_closed(forwarder: dns.Forwarder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns, "_TIMEOUT_S", 0.05)
    reader, writer = await asyncio.open_connection(GATEWAY, forwarder.port, local_addr=(SANDBOX, 0))
    with anyio.fail_after(5):
        assert await reader.read() == b""
    writer.close()


def test_the_hosts_resolvers(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("# c\nnameserver 9.9.9.9\nsearch a\nnameserver\n nameserver ::1 \n")
    assert dns.host_resolvers(file) == ["9.9.9.9", "::1"]
    assert dns.host_resolvers(tmp_path / "none") == []

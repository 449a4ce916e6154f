"""A network namespace for each sandbox, and the way out of it.

    sandbox's namespace                      host
    eth0  10.211.0.7/32 ─────veth───── sk<server>7  10.211.0.1/32 ──forward, firewall, NAT── uplink
          default via 10.211.0.1             route 10.211.0.7 → sk<server>7

Every sandbox sees the same gateway, also its name server; so a memory snapshot of a template fits them all. gVisor
takes address and routes from eth0 when it starts and then drives the link itself. Without internet the host's end is
down. Namespaces are made ahead by one thread that changes its namespace; no process is started but `nft` at start and
stop.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import socket
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from skerry.errors import HostFull, SandboxLost, SandboxStartFailed
from skerry.host import dns, firewall
from skerry.host.netlink import Netlink

logger = logging.getLogger(__name__)

MAX_INSTANCE = 6
"""Characters of a server's instance name: a link's name has fifteen in all."""
_PREPARED = 4
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Slot:
    """One sandbox's place in the network."""

    index: int
    namespace: str
    """Path of the namespace; empty after adoption, when only the sandbox itself still holds it."""
    address: str
    gateway: str


def enable_forwarding() -> bool:
    """Let the host forward packets between its links; whether that was a change. Raises OSError."""
    switch = Path("/proc/sys/net/ipv4/ip_forward")
    if not switch.exists():
        return False  # hidden by `mounts.enter_private_namespace`: a process above this one has seen to it
    if switch.read_text().strip() == "1":
        return False
    switch.write_text("1")
    return True


class Network:
    """The network of one server's sandboxes.

    Args:
        instance: tells servers on one host apart, in the names of links and tables; at most six characters.
        subnet: addresses for sandboxes, not used elsewhere on this host; its first address is the gateway.
        resolvers: name servers to ask; default: the host's.
        allowed: addresses and TCP ports reachable although not public, such as the host's proxy.
    """

    def __init__(
        self, instance: str, subnet: str, *, resolvers: Sequence[str] | None = None,
        allowed: Sequence[tuple[IPv4Address, int]] = (),
    ) -> None:  # fmt: skip
        if not 0 < len(instance) <= MAX_INSTANCE:
            raise ValueError(f"instance {instance!r} must have 1 to {MAX_INSTANCE} characters")
        self._prefix = f"sk{instance}-"
        self._table = f"skerry_{instance}"
        self._subnet = IPv4Network(subnet)
        self._gateway = self._subnet[1]
        self._allowed = allowed
        self._forwarder = dns.Forwarder(
            self._gateway, self._subnet, list(resolvers) if resolvers is not None else dns.host_resolvers()
        )
        self._host: Netlink | None = None
        self._maker_host: Netlink | None = None
        self._maker = ThreadPoolExecutor(1, "namespaces")
        self._ready: deque[Slot] = deque()
        self._pending: set[asyncio.Future[Slot]] = set()
        self._stopping = False
        self._descriptors: dict[int, int] = {}
        self._used: set[int] = set()
        self._inherited: set[int] = set()
        """Of an earlier server's, that nobody has taken over."""
        self.resolv_conf = f"nameserver {self._gateway}\noptions timeout:3 attempts:3\n"

    async def start(self) -> None:
        """Load the rules, listen for DNS, prepare the first namespaces.

        Raises:
            IsolationUnavailable: nft is missing or refuses.
            OSError: no permission for routing messages.
        """
        self._host, self._maker_host = Netlink(), Netlink()
        local = [IPv4Network((address, prefix), strict=False) for address, prefix in self._host.addresses()]
        await self._forwarder.start()
        await firewall.apply(
            firewall.rules(
                self._table, self._prefix, self._subnet, self._gateway, self._forwarder.port,
                [network for network in local if network.prefixlen and not network.subnet_of(self._subnet)],
                self._allowed,
            )
        )  # fmt: skip
        self._inherited = set(self._existing())
        self._used.update(self._inherited)
        self._refill()

    async def stop(self, *, keep: bool = False) -> None:
        """Give everything back. `keep`: leave rules and links of sandboxes that go on without this server."""
        self._stopping = True  # no further refills
        await asyncio.get_running_loop().run_in_executor(None, self._maker.shutdown)
        while self._ready:
            await self.release(self._ready.popleft())
        await self._forwarder.stop()
        if not keep:
            for index in self._existing():
                self._netlink.delete_link(self._name(index))
            await firewall.remove(self._table)
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()
        self._netlink.close()
        self._maker_netlink.close()

    async def acquire(self) -> Slot:
        """A namespace with a way out.

        Raises:
            HostFull: every address of the subnet is in use.
            SandboxStartFailed: the kernel refused.
        """
        slot = None
        while slot is None:
            if self._ready:
                slot = self._ready.popleft()
            elif (index := self._reserve_or_pending()) is not None:
                slot = await self._make_now(index)
            else:  # the last addresses are about to be ready
                await asyncio.wait(self._pending, return_when=asyncio.FIRST_COMPLETED)
        self._refill()
        return slot

    async def release(self, slot: Slot) -> None:
        """Remove a sandbox's link; its namespace ends with its last process."""
        self._discard(slot)

    def _discard(self, slot: Slot) -> None:
        self._netlink.delete_link(self._name(slot.index))
        if (descriptor := self._descriptors.pop(slot.index, None)) is not None:
            os.close(descriptor)
        self._used.discard(slot.index)

    async def set_internet(self, slot: Slot, allowed: bool) -> None:
        """Let packets through or not, from now on, for new and old connections and DNS. Raises OSError."""
        name = self._name(slot.index)
        self._netlink.set_up(name, allowed)
        if allowed:
            self._netlink.add_route(name, IPv4Address(slot.address))

    async def adopt(self, index: int) -> Slot:
        """The slot of a sandbox that an earlier server process gave it.

        Raises:
            SandboxLost: it went with its sandbox; its number may be another's by now.
        """
        if index not in self._inherited:
            raise SandboxLost(f"the network of a sandbox, number {index}, is gone")
        self._inherited.discard(index)
        return Slot(index, "", str(self._subnet[index]), str(self._gateway))

    @property
    def _netlink(self) -> Netlink:
        assert self._host is not None, "the network is not started"
        return self._host

    @property
    def _maker_netlink(self) -> Netlink:
        """Speaks to the host's namespace, in which it was opened, but is the maker thread's own."""
        assert self._maker_host is not None, "the network is not started"
        return self._maker_host

    def _name(self, index: int) -> str:
        return f"{self._prefix}{index}"

    def _existing(self) -> list[int]:
        found = []
        for _, name in socket.if_nameindex():
            if name.startswith(self._prefix) and name[len(self._prefix) :].isdigit():
                found.append(int(name[len(self._prefix) :]))
        return found

    def _reserve(self) -> int:
        for index in range(2, self._subnet.num_addresses - 1):
            if index not in self._used:
                self._used.add(index)
                return index
        raise HostFull(
            f"cannot give a sandbox an address: all of {self._subnet} are in use; set a larger SKERRY_SUBNET",
            limit=self._subnet.num_addresses - 3, current=len(self._used),
        )  # fmt: skip

    def _reserve_or_pending(self) -> int | None:
        """A free address; None when one that is being prepared is to be waited for. Raises HostFull."""
        try:
            return self._reserve()
        except HostFull:
            if not self._pending:
                raise
            return None

    async def _make_now(self, index: int) -> Slot:
        future = asyncio.wrap_future(self._maker.submit(self._make, index))
        try:
            slot = await asyncio.shield(future)
        except asyncio.CancelledError:
            self._prepare(future)  # for somebody else
            raise
        except OSError as error:
            raise SandboxStartFailed(f"cannot make a network namespace: {error.strerror or error}") from error
        try:
            self._connect(slot)
        except OSError as error:
            self._discard(slot)
            raise SandboxStartFailed(f"cannot connect a network namespace: {error.strerror or error}") from error
        return slot

    def _refill(self) -> None:
        """Have namespaces made until enough are ready."""
        while not self._stopping and len(self._ready) + len(self._pending) < _PREPARED:
            try:
                index = self._reserve()
            except HostFull:
                return  # who needs one is told
            self._prepare(asyncio.wrap_future(self._maker.submit(self._make, index)))

    def _prepare(self, future: asyncio.Future[Slot]) -> None:
        """What it makes goes to those that are ready."""
        self._pending.add(future)
        future.add_done_callback(self._made)

    def _made(self, future: asyncio.Future[Slot]) -> None:
        self._pending.discard(future)
        slot: Slot | None = None
        try:
            slot = future.result()
            self._connect(slot)
        except OSError as error:
            logger.warning("cannot prepare a network namespace: %s", error)
            if slot is not None:
                self._discard(slot)
        else:
            self._ready.append(slot)

    def _connect(self, slot: Slot) -> None:
        """The host's end; not in the maker's thread, for which the link's number means nothing."""
        name = self._name(slot.index)
        self._netlink.add_address(name, IPv4Address(slot.gateway))
        self._netlink.add_route(name, IPv4Address(slot.address))

    def _make(self, index: int) -> Slot:
        """In the maker's thread, which moves into the new namespace and stays there until the next one."""
        address = self._subnet[index]
        if _libc.unshare(_CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        inside: Netlink | None = None
        outside = self._maker_netlink
        name = self._name(index)
        try:
            inside = Netlink()
            with suppress(OSError):
                outside.delete_link(name)
            outside.add_veth(name, "eth0", descriptor)
            inside.set_up("lo", True)
            inside.set_up("eth0", True)
            inside.add_address("eth0", address)
            inside.add_route("eth0", self._gateway)
            inside.add_route("eth0", None, via=self._gateway)
            outside.set_up(name, True)
        except BaseException:
            os.close(descriptor)
            self._used.discard(index)
            raise
        finally:
            if inside is not None:
                inside.close()
        self._descriptors[index] = descriptor
        return Slot(index, f"/proc/{os.getpid()}/fd/{descriptor}", str(address), str(self._gateway))

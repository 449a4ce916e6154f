"""rtnetlink, as far as sandboxes need it: veth pairs across namespaces, addresses, routes.

Why not a library: the maintained one runs an event loop of its own behind every synchronous call and was seen to leak
it; what is needed here is seven messages. Layouts: linux/rtnetlink.h, linux/if_link.h, linux/veth.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address

_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP = 0x1, 0x4, 0x300
_NLM_F_EXCL, _NLM_F_CREATE, _NLM_F_REPLACE = 0x200, 0x400, 0x100
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK = 16, 17, 18
_RTM_NEWADDR, _RTM_GETADDR, _RTM_NEWROUTE = 20, 22, 24
_IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_NET_NS_FD = 3, 18, 28
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_RT_TABLE_MAIN, _RTPROT_STATIC, _RTN_UNICAST = 254, 4, 1
_RT_SCOPE_UNIVERSE, _RT_SCOPE_LINK = 0, 253
_RTNH_F_ONLINK = 4
_IFF_UP = 1


class Netlink:
    """A socket for routing messages in the network namespace of the thread that opens it."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def add_veth(self, name: str, peer: str, peer_namespace: int) -> None:
        """Make a pair of links: `name` here, `peer` in the namespace of that descriptor. Raises OSError."""
        peer_info = _link_header() + _text(_IFLA_IFNAME, peer) + _attribute(_IFLA_NET_NS_FD, _u32(peer_namespace))
        data = _attribute(_IFLA_INFO_DATA, _attribute(_VETH_INFO_PEER, peer_info))
        info = _attribute(_IFLA_LINKINFO, _text(_IFLA_INFO_KIND, "veth") + data)
        self._ask(_RTM_NEWLINK, _link_header() + _text(_IFLA_IFNAME, name) + info, _NLM_F_CREATE | _NLM_F_EXCL)

    def delete_link(self, name: str) -> None:
        """No-op when there is none. Raises OSError."""
        try:
            self._ask(_RTM_DELLINK, _link_header() + _text(_IFLA_IFNAME, name))
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise

    def set_up(self, name: str, up: bool) -> None:
        """Raises OSError."""
        header = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, 0, _IFF_UP if up else 0, _IFF_UP)
        self._ask(_RTM_NEWLINK, header + _text(_IFLA_IFNAME, name))

    def add_address(self, link: str, address: IPv4Address) -> None:
        """Give `link` the address, as a /32. Raises OSError."""
        header = struct.pack("=BBBBI", socket.AF_INET, 32, 0, _RT_SCOPE_UNIVERSE, socket.if_nametoindex(link))
        attributes = _attribute(_IFA_LOCAL, address.packed) + _attribute(_IFA_ADDRESS, address.packed)
        self._ask(_RTM_NEWADDR, header + attributes, _NLM_F_CREATE | _NLM_F_REPLACE)

    def add_route(self, link: str, to: IPv4Address | None, via: IPv4Address | None = None) -> None:
        """Route an address (None: everything) to `link`, directly or through `via`. Raises OSError."""
        scope = _RT_SCOPE_UNIVERSE if via else _RT_SCOPE_LINK
        header = struct.pack(
            "=BBBBBBBBI", socket.AF_INET, 32 if to else 0, 0, 0, _RT_TABLE_MAIN, _RTPROT_STATIC, scope, _RTN_UNICAST,
            _RTNH_F_ONLINK if via else 0,
        )  # fmt: skip
        attributes = _attribute(_RTA_OIF, _u32(socket.if_nametoindex(link)))
        if to:
            attributes += _attribute(_RTA_DST, to.packed)
        if via:
            attributes += _attribute(_RTA_GATEWAY, via.packed)
        self._ask(_RTM_NEWROUTE, header + attributes, _NLM_F_CREATE | _NLM_F_REPLACE)

    def addresses(self) -> list[tuple[IPv4Address, int]]:
        """All IPv4 addresses here, with their prefix length."""
        found = []
        for message in self._dump(_RTM_GETADDR, struct.pack("=BBBBI", socket.AF_INET, 0, 0, 0, 0)):
            family, prefix = message[0], message[1]
            attributes = dict(_attributes(message[8:]))
            if family == socket.AF_INET and (raw := attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)):
                found.append((IPv4Address(raw), prefix))
        return found

    def _ask(self, kind: int, payload: bytes, flags: int = 0) -> None:
        self._send(kind, payload, flags | _NLM_F_ACK)
        for _, body in self._replies():
            code = struct.unpack_from("=i", body)[0]
            if code:
                raise OSError(-code, os.strerror(-code))

    def _dump(self, kind: int, payload: bytes) -> Iterator[bytes]:
        self._send(kind, payload, _NLM_F_DUMP)
        for reply, body in self._replies():
            if reply != _NLMSG_ERROR:
                yield body

    def _send(self, kind: int, payload: bytes, flags: int) -> None:
        self._sequence += 1
        length = 16 + len(payload)
        self._socket.send(struct.pack("=IHHII", length, kind, _NLM_F_REQUEST | flags, self._sequence, 0) + payload)

    def _replies(self) -> Iterator[tuple[int, bytes]]:
        """Messages that answer the last request, up to its acknowledgement or the end of the dump."""
        while True:
            packet = self._socket.recv(65536)
            while packet:
                length, kind, _, sequence, _ = struct.unpack_from("=IHHII", packet)
                body, packet = packet[16:length], packet[(length + 3) & ~3 :]
                if sequence != self._sequence:
                    continue
                if kind == _NLMSG_DONE:
                    return
                yield kind, body
                if kind == _NLMSG_ERROR:
                    return


def _link_header() -> bytes:
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, 0, 0, 0)


def _u32(value: int) -> bytes:
    return struct.pack("=I", value)


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        yield kind, data[4:length]
        data = data[(length + 3) & ~3 :]

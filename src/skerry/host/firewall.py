"""The rules between sandboxes and everything else, as one nftables table for each server. Pure, but for `apply`.

Links of sandboxes are told by the beginning of their name, so that no rule changes when a sandbox comes or goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, collapse_addresses

import anyio

from skerry.errors import IsolationUnavailable

NEVER_PUBLIC = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",  # link-local, and the metadata services of clouds
    "172.16.0.0/12",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/3",  # multicast, reserved, broadcast
)


def rules(
    table: str, prefix: str, subnet: IPv4Network, gateway: IPv4Address, dns_port: int,
    local: Iterable[IPv4Network], allowed: Sequence[tuple[IPv4Address, int]] = (),
) -> str:  # fmt: skip
    """The table in nft's language; loading it replaces an old one of the same name in one transaction.

    Args:
        prefix: what the names of this server's sandbox links begin with.
        dns_port: where the DNS forwarder listens on `gateway`.
        local: networks that the host itself is in.
        allowed: addresses and TCP ports that may be reached although they are not public, such as a proxy.
    """
    blocked = collapse_addresses([*map(IPv4Network, NEVER_PUBLIC), *local])
    exceptions = "".join(
        f'    iifname "{prefix}*" ip daddr {address} tcp dport {port} accept\n' for address, port in allowed
    )
    return f"""\
table inet {table}
delete table inet {table}
table inet {table} {{
  set blocked {{
    type ipv4_addr
    flags interval
    elements = {{ {", ".join(map(str, blocked))} }}
  }}
  chain source {{
    type filter hook prerouting priority raw; policy accept;
    iifname "{prefix}*" meta nfproto != ipv4 ether type != arp drop
    iifname "{prefix}*" fib saddr . iif oif missing drop comment "not the sandbox's own address"
  }}
  chain dns {{
    type nat hook prerouting priority dstnat; policy accept;
    iifname "{prefix}*" ip daddr {gateway} udp dport 53 redirect to :{dns_port}
    iifname "{prefix}*" ip daddr {gateway} tcp dport 53 redirect to :{dns_port}
  }}
  chain host {{
    type filter hook input priority filter - 5; policy accept;
    iifname "{prefix}*" ip daddr {gateway} meta l4proto {{ tcp, udp }} th dport {dns_port} accept
    iifname "{prefix}*" drop
  }}
  chain forward {{
    type filter hook forward priority filter - 5; policy accept;
    oifname "{prefix}*" ct state established,related accept
    oifname "{prefix}*" drop comment "nothing reaches a sandbox from outside, nor from another one"
{exceptions}    iifname "{prefix}*" ip daddr @blocked drop
  }}
  chain out {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {subnet} oifname != "{prefix}*" masquerade
  }}
}}
"""


async def apply(text: str) -> None:
    """Load rules. Raises IsolationUnavailable with what nft said."""
    try:
        done = await anyio.run_process(["nft", "-f", "-"], input=text.encode(), check=False)
    except FileNotFoundError:
        raise IsolationUnavailable("cannot set up the network: nft is not installed; `apt install nftables`") from None
    if done.returncode != 0:
        raise IsolationUnavailable(
            f"cannot set up the network: nft said: {done.stderr.decode(errors='replace').strip()}"
        )


async def remove(table: str) -> None:
    """Remove the table; no-op when there is none."""
    await anyio.run_process(
        ["nft", "-f", "-"], input=f"table inet {table}\ndelete table inet {table}\n".encode(), check=False
    )

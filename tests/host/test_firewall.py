"""The rules' text, and what nft thinks of it. What they do is shown in test_network."""

from __future__ import annotations

import subprocess
from ipaddress import IPv4Address, IPv4Network

import pytest

from skerry.errors import IsolationUnavailable
from skerry.host import firewall

TABLE = "skerry_thfw"


def text(**options: object) -> str:
    arguments: dict[str, object] = {"local": [IPv4Network("198.51.100.0/24")]} | options
    return firewall.rules(
        TABLE, "skthfw-", IPv4Network("10.223.128.0/24"), IPv4Address("10.223.128.1"), 5300, **arguments
    )  # type: ignore[arg-type]


def listed() -> str:
    return subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"local": []},
        {"local": [IPv4Network("10.1.0.0/16"), IPv4Network("198.51.100.0/25"), IPv4Network("198.51.100.128/25")]},
        {"local": [IPv4Network("203.0.113.7/32")], "allowed": [(IPv4Address("10.0.0.9"), 3128)]},
    ],
)
def test_nft_takes_it(options: dict[str, object]) -> None:
    subprocess.run(["nft", "-c", "-f", "-"], input=text(**options).encode(), check=True, capture_output=True)
    assert TABLE not in listed(), "that was a check only"


@pytest.mark.parametrize(
    "address",
    ["10.1.2.3", "127.0.0.1", "169.254.169.254", "172.31.0.1", "192.168.1.1", "100.100.100.200", "198.51.100.9",
     "0.0.0.0", "224.0.0.1", "255.255.255.255", "198.19.0.1"],
)  # fmt: skip
def test_what_is_not_public_is_blocked(address: str) -> None:
    assert any(IPv4Address(address) in network for network in blocked())


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "8.8.8.8", "172.32.0.1", "192.169.0.1", "198.51.101.1", "223.255.255.1"]
)
def test_what_is_public_is_not(address: str) -> None:
    assert not any(IPv4Address(address) in network for network in blocked())


def blocked() -> list[IPv4Network]:
    elements = text().split("elements = {")[1].split("}")[0]
    return [IPv4Network(element.strip()) for element in elements.split(",")]


def test_exceptions_come_before_what_is_blocked() -> None:
    rules = text(allowed=[(IPv4Address("10.0.0.9"), 3128)])
    exception = rules.index("ip daddr 10.0.0.9 tcp dport 3128 accept")
    assert rules.index("nothing reaches a sandbox") < exception < rules.index("ip daddr @blocked drop")


@pytest.mark.anyio
async def test_loading_twice_replaces_and_removing_twice_is_fine() -> None:
    try:
        await firewall.apply(text())
        await firewall.apply(text(allowed=[(IPv4Address("10.0.0.9"), 3128)]))
        found = listed()
        assert found.count(f"table inet {TABLE} ") == 1
        assert found.count("10.0.0.9") == 1
    finally:
        await firewall.remove(TABLE)
    await firewall.remove(TABLE)
    assert TABLE not in listed()


@pytest.mark.anyio
async def test_what_nft_says_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(IsolationUnavailable, match="syntax error"):
        await firewall.apply("nonsense")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(IsolationUnavailable, match="apt install nftables"):
        await firewall.apply(text())

"""`skerry mcp`: sandboxes as tools of models."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from skerry.cli.embedded import reachable_server
from skerry.cli.output import JsonOption, print_json
from skerry.errors import InvalidRequest
from skerry.sdk import wire

_LOOPBACK = "127.0.0.1"


def mcp(
    http: Annotated[
        str | None, typer.Option(metavar="[HOST:]PORT", help="Serve HTTP there instead; port 0 for any free one.")
    ] = None,
    template: Annotated[str, typer.Option(help="What sandboxes are made from.")] = "base",
    idle_timeout: Annotated[float, typer.Option(help="Seconds without use until a sandbox is destroyed.")] = 3600,
    internet: Annotated[bool, typer.Option(help="Whether sandboxes may reach the internet.")] = True,
    json: JsonOption = False,
) -> None:
    """Serve the Model Context Protocol: tools with which models run code, commands and files in sandboxes.

    By default to one client, over standard input and output, as MCP clients start it; sandboxes end with it. With
    --http to many, who must send the API key as bearer token; with --json, one line is printed when it is ready:
    {"url", "api_key", "pid"}. Needs the extra `mcp`. Without a running server, one is started for as long as it runs.
    """
    where = _address(http) if http is not None else None
    try:
        from skerry.mcp import Offer, serve_http, serve_stdio
    except ModuleNotFoundError as error:
        raise InvalidRequest(f"cannot serve MCP: {error.name} is not installed; install skerry[mcp]") from None
    _end_on_sigterm()
    with reachable_server() as server:
        offer = Offer(template, idle_timeout, internet, server)
        if where is None:
            serve_stdio(offer)
        else:
            _, key = wire.resolve(server.get("api_url"), server.get("api_key"))
            serve_http(offer, *where, key, _announce(key, json, own_server=bool(server)))


def _address(http: str) -> tuple[str, int]:
    """Raises InvalidRequest."""
    host, colon, port = http.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise InvalidRequest(f"cannot listen on {http!r}: it must be PORT or HOST:PORT, with a port up to 65535")
    return (host.strip("[]") if colon else "") or _LOOPBACK, int(port)


def _announce(key: str, json: bool, *, own_server: bool) -> Callable[[str], None]:
    def announce(url: str) -> None:
        if json:
            print_json({"url": url, "api_key": key, "pid": os.getpid()})
        else:
            # Of a server that was started for this, nobody else can know the key.
            print(f"listening on {url}" + (f", API key {key}" if own_server else ""))
        sys.stdout.flush()

    return announce


def _end_on_sigterm() -> None:
    """As after Ctrl-C: whatever stage this is in, what was started is ended too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in background jobs
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))

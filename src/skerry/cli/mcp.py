"""`skerry mcp`: sandboxes as tools of models."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from skerry.cli.embedded import reachable_server
from skerry.cli.output import JsonOption, print_json
from skerry.errors import InvalidRequest
from skerry.sdk import wire

_LOOPBACK = "127.0.0.1"


def mcp(
    http: Annotated[
        str | None, typer.Option(metavar="[HOST:]PORT", help="Serve HTTP at [HOST:]PORT instead; port 0: any free one.")
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
        raise InvalidRequest(
            f"cannot serve MCP: {(error.name or '').partition('.')[0]} is not installed; install skerry[mcp]"
        ) from None
    with _ended_by_sigterm(), reachable_server() as server:
        offer = Offer(template, idle_timeout, internet, server)
        try:
            if where is None:
                serve_stdio(offer)
            else:
                _, key = wire.resolve(server.get("api_url"), server.get("api_key"))
                serve_http(offer, *where, key, _announce(key, json, own_server=bool(server)))
        finally:
            _be_left_alone()


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


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM is an interrupt, as Ctrl-C is: whatever stage this is in, what was started is ended too. But it is how
    this is meant to end, so it is no failure."""
    asked = threading.Event()

    def ask(*_: object) -> None:
        asked.set()
        signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in background jobs
    signal.signal(signal.SIGTERM, ask)
    try:
        yield
    except KeyboardInterrupt:
        if not asked.is_set():
            raise


def _be_left_alone() -> None:
    """While the server that was started is ended: clients that do not want to wait send another signal soon."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

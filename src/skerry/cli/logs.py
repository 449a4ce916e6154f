"""`skerry logs`: what happened to a sandbox, or what a process in it wrote."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from skerry import Sandbox
from skerry.cli.output import JsonOption, print_json
from skerry.cli.run import stream_to
from skerry.models import Event
from skerry.sdk._sync.server import Server


def logs(
    sandbox: Annotated[str, typer.Argument(help="The sandbox's id.")],
    pid: Annotated[int | None, typer.Option(help="Print what this process writes, until it ends.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is still to happen.")] = False,
    json: JsonOption = False,
) -> None:
    """Print a sandbox's events, or the output of one of its processes."""
    found = Sandbox.connect(sandbox)
    if pid is not None:
        write = {"stdout": stream_to(sys.stdout), "stderr": stream_to(sys.stderr)}
        for stream, data in found.attach(pid).output():
            write[stream](data)
        return
    last = 0
    for event in found.events(limit=1000):
        _show(event, json)
        last = event.id
    if follow:
        for event in Server().follow_events(last):
            if event.sandbox_id == sandbox:
                _show(event, json)
                if event.type in ("sandbox.destroyed", "sandbox.failed"):
                    return


def _show(event: Event, json: bool) -> None:
    if json:
        print_json(event)
    else:
        data = " ".join(f"{name}={value}" for name, value in event.data.items())
        print(f"{event.at:%Y-%m-%d %H:%M:%S} {event.type} {data}".rstrip(), flush=True)

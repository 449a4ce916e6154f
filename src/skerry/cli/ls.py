"""`skerry ls`: sandboxes."""

from __future__ import annotations

from typing import Annotated

import typer

from skerry import Sandbox
from skerry.cli.output import JsonOption, kept, print_json, print_table, since
from skerry.cli.run import pair


def ls(
    all_: Annotated[bool, typer.Option("--all", "-a", help="Also those that have ended.")] = False,
    template: Annotated[str | None, typer.Option(help="Only those of a template.")] = None,
    metadata: Annotated[list[str] | None, typer.Option("--metadata", "-m", help="NAME=VALUE; may be repeated.")] = None,
    json: JsonOption = False,
) -> None:
    """List sandboxes, newest first."""
    states = ["creating", "running", "paused", "stopped", "destroyed", "failed"] if all_ else None
    labels = dict(pair(item) for item in metadata or [])
    found = list(Sandbox.list(state=states, template=template, metadata=labels))
    if json:
        print_json(found)
        return
    print_table(
        ("ID", "TEMPLATE", "STATE", "KEPT", "SINCE", "ISOLATION", "AGE", "ENDED"),
        [
            (
                item.id,
                item.template,
                item.state,
                kept(item),
                item.rest and since(item.rest.since),
                item.isolation,
                since(item.created_at),
                item.end and item.end.message,
            )
            for item in found
        ],
    )

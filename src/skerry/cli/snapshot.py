"""`skerry snapshot`: keep a copy of a sandbox."""

from __future__ import annotations

from typing import Annotated

import typer

from skerry import Sandbox
from skerry.cli.output import JsonOption, print_json, working


def snapshot(
    sandbox: Annotated[str, typer.Argument(help="The sandbox's id.")],
    name: Annotated[str | None, typer.Argument(help="For later; an older snapshot of that name loses it.")] = None,
    files_only: Annotated[bool, typer.Option("--files-only", help="Keep its files, not its processes.")] = False,
    json: JsonOption = False,
) -> None:
    """Keep a copy of a sandbox as it is now; it goes on. See `skerry snapshots` for what there is."""
    with working(f"keeping a copy of {sandbox}"):
        made = Sandbox.connect(sandbox).snapshot(name, memory=not files_only)
    if json:
        print_json(made)
    else:
        print(f"{made.id}  {made.size_mib:.1f} MiB; the sandbox stood still for {made.pause_s * 1000:.0f} ms")

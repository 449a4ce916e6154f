"""`skerry rollback`: a sandbox as it was."""

from __future__ import annotations

from typing import Annotated

import typer

from skerry import Sandbox
from skerry.cli.output import JsonOption, print_json, working


def rollback(
    sandbox: Annotated[str, typer.Argument(help="The sandbox's id.")],
    snapshot: Annotated[str, typer.Argument(help="A snapshot of that sandbox, by id or name.")],
    json: JsonOption = False,
) -> None:
    """Make a sandbox what it was when a snapshot of it was taken. What it is now is given up."""
    with working(f"rolling {sandbox} back"):
        found = Sandbox.connect(sandbox).rollback(snapshot)
    if json:
        print_json(found)
    else:
        print(found.id)

"""`skerry kill`: end sandboxes."""

from __future__ import annotations

from typing import Annotated

import typer

from skerry import Sandbox
from skerry.errors import InvalidRequest


def kill(
    sandboxes: Annotated[list[str] | None, typer.Argument(help="Ids.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="All that run; not those that are paused or stopped.")] = False,
) -> None:
    """Destroy sandboxes and everything in them."""
    if bool(sandboxes) == all_:
        raise InvalidRequest("cannot tell what to kill: name sandboxes, or say --all")
    for sandbox_id in sandboxes or [item.id for item in list(Sandbox.list(state=["creating", "running"]))]:
        Sandbox.connect(sandbox_id).kill()
        print(sandbox_id)

"""`skerry start`: boot stopped sandboxes."""

from __future__ import annotations

from typing import Annotated

import typer

from skerry import Sandbox
from skerry.cli.output import JsonOption, TimeoutOption, each, timeout_of


def start(
    sandboxes: Annotated[list[str], typer.Argument(help="Ids.")],
    timeout: TimeoutOption = None,
    json: JsonOption = False,
) -> None:
    """Boot stopped sandboxes again, with the files they had."""
    until = timeout_of(timeout)
    each(
        sandboxes, "starting", lambda id_: Sandbox.connect(id_).start(timeout=until), lambda started: started.id,
        json=json,
    )  # fmt: skip

"""`skerry resume`: let paused sandboxes go on."""

from __future__ import annotations

from typing import Annotated

import typer

from skerry import Sandbox
from skerry.cli.output import JsonOption, TimeoutOption, each, timeout_of


def resume(
    sandboxes: Annotated[list[str], typer.Argument(help="Ids.")],
    timeout: TimeoutOption = None,
    files_only: Annotated[
        bool, typer.Option("--files-only", help="Boot them again from their files although their memory was kept.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Let paused sandboxes go on where they were."""
    until = timeout_of(timeout)
    each(
        sandboxes, "resuming",
        lambda id_: Sandbox.connect(id_).resume(timeout=until, keep_memory=not files_only),
        lambda resumed: resumed.id, json=json,
    )  # fmt: skip

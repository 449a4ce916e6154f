"""`skerry ps`: processes of a sandbox."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from skerry import Sandbox
from skerry.cli.output import JsonOption, print_json, print_table, since


def ps(
    sandbox: Annotated[str, typer.Argument(help="The sandbox's id.")],
    json: JsonOption = False,
) -> None:
    """List a sandbox's processes that were started through the API."""
    found = [process.info for process in Sandbox.connect(sandbox).processes()]
    if json:
        print_json(found)
        return
    print_table(
        ("PID", "USER", "STATUS", "AGE", "COMMAND"),
        [
            (
                item.pid,
                item.user,
                "running" if item.exit is None else f"exit {item.exit.exit_code}",
                since(item.started_at),
                shlex.join(item.command)[:120],
            )
            for item in found
        ],
    )

"""`skerry fork`: running copies of a sandbox."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from skerry import ForkIncomplete, Sandbox
from skerry.cli.output import JsonOption, TimeoutOption, print_json, timeout_of, working
from skerry.cli.run import pair


def fork(
    sandbox: Annotated[str, typer.Argument(help="The sandbox's id.")],
    count: Annotated[int, typer.Option("--count", "-n", help="How many copies.")] = 1,
    timeout: TimeoutOption = None,
    env: Annotated[
        list[str] | None, typer.Option("--env", "-e", help="NAME=VALUE for what is started in them; may be repeated.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Make running copies of a sandbox, which goes on, and print their ids."""
    until = timeout_of(timeout)
    try:
        with working(f"copying {sandbox}"):
            made = Sandbox.connect(sandbox).fork(count, timeout=until, env=dict(pair(item) for item in env or []))
    except ForkIncomplete as error:
        _show(error.sandboxes, json)
        raise
    _show(made, json)


def _show(made: Sequence[Sandbox], json: bool) -> None:
    if json:
        print_json([copy.created for copy in made])
        return
    for copy in made:
        print(copy.id)

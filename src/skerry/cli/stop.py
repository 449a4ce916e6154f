"""`skerry stop`: end what runs in sandboxes, keep their files."""

from __future__ import annotations

from typing import Annotated

import typer

from skerry import Sandbox
from skerry.cli.output import JsonOption, each, kept


def stop(
    sandboxes: Annotated[list[str], typer.Argument(help="Ids.")],
    reset: Annotated[
        bool, typer.Option("--reset", help="Forget their files too; they start as their template or snapshot was.")
    ] = False,
    grace: Annotated[float, typer.Option(help="Seconds between SIGTERM and the end.")] = 5.0,
    json: JsonOption = False,
) -> None:
    """End the processes of sandboxes and keep their files until they are started."""
    each(
        sandboxes, "stopping", lambda id_: Sandbox.connect(id_).stop(reset=reset, grace=grace),
        lambda stopped: f"{stopped.id}  {kept(stopped)}", json=json,
    )  # fmt: skip

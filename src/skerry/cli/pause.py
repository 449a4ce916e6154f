"""`skerry pause`: let sandboxes rest."""

from __future__ import annotations

from typing import Annotated

import typer

from skerry import Sandbox
from skerry.cli.output import JsonOption, each, kept


def pause(
    sandboxes: Annotated[list[str], typer.Argument(help="Ids.")],
    disk: Annotated[bool, typer.Option("--disk", help="Write their memory to the disk now.")] = False,
    files_only: Annotated[
        bool, typer.Option("--files-only", help="Keep their files, not their processes; they boot again.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Let nothing of sandboxes run until they are resumed.

    A paused sandbox waits in memory, and is written to the disk after some time. Using it resumes it.
    """
    each(
        sandboxes, "pausing", lambda id_: Sandbox.connect(id_).pause(keep_memory=not files_only, to_disk=disk),
        lambda paused: f"{paused.id}  {kept(paused)}", json=json,
    )  # fmt: skip

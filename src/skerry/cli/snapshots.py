"""`skerry snapshots`: the copies of sandboxes that were kept."""

from __future__ import annotations

from typing import Annotated

import typer

from skerry import Snapshot
from skerry.cli.output import JsonOption, print_json, print_table, since

app = typer.Typer(no_args_is_help=True, help="Snapshots: copies of sandboxes that were kept.")


@app.command()
def ls(
    sandbox: Annotated[str | None, typer.Option(help="Only those of a sandbox.")] = None,
    json: JsonOption = False,
) -> None:
    """List snapshots, newest first."""
    found = list(Snapshot.list(sandbox_id=sandbox))
    if json:
        print_json(found)
        return
    print_table(
        ("ID", "NAME", "OF", "TEMPLATE", "KEPT", "SIZE", "AGE"),
        [
            (
                item.id,
                item.name,
                item.sandbox_id,
                item.template,
                "memory" if item.memory else "files",
                f"{item.size_mib:.1f} MiB",
                since(item.created_at),
            )
            for item in found
        ],
    )


@app.command()
def rm(snapshots: Annotated[list[str], typer.Argument(help="Ids or names.")]) -> None:
    """Remove snapshots; sandboxes that were started from them are not touched."""
    for snapshot in snapshots:
        Snapshot.remove(snapshot)
        print(snapshot)

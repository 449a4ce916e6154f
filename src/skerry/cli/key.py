"""`skerry key`: API keys."""

from __future__ import annotations

from typing import Annotated

import typer

from skerry.cli.output import JsonOption, print_json, print_table, since
from skerry.sdk._sync.server import Server

app = typer.Typer(no_args_is_help=True, help="API keys.")


@app.command()
def create(name: Annotated[str, typer.Argument(help="What it is for.")], json: JsonOption = False) -> None:
    """Make a key and print its secret, which is shown this once."""
    key = Server().create_key(name)
    if json:
        print_json(key)
    else:
        print(key.secret)


@app.command("list")
def list_(json: JsonOption = False) -> None:
    """List keys, without their secrets."""
    keys = Server().keys()
    if json:
        print_json(keys)
        return
    print_table(
        ("ID", "NAME", "BEGINS WITH", "AGE", "LAST USED", "STATE"),
        [
            (
                key.id,
                key.name,
                key.prefix,
                since(key.created_at),
                key.last_used_at and since(key.last_used_at),
                "revoked" if key.revoked_at else "valid",
            )
            for key in keys
        ],
    )


@app.command()
def revoke(key_id: Annotated[str, typer.Argument(help="The key's id, see `skerry key list`.")]) -> None:
    """Make a key open nothing any more."""
    Server().revoke_key(key_id)
    print(key_id)

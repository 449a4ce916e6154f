"""`skerry template`: templates."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from skerry.cli.embedded import reachable_server
from skerry.cli.output import JsonOption, print_json, print_table, since
from skerry.models import Template
from skerry.sdk._sync.server import Server

app = typer.Typer(no_args_is_help=True, help="Templates: what sandboxes are made from.")


@app.command()
def ls(json: JsonOption = False) -> None:
    """List templates that are built."""
    templates = Server().templates()
    if json:
        print_json(templates)
        return
    print_table(
        ("NAME", "SIZE", "LANGUAGES", "BUILT", "IMAGE"),
        [
            (item.name, f"{item.size_mib:.0f} MiB", ", ".join(item.languages), since(item.built_at), item.image[:19])
            for item in templates
        ],
    )


@app.command()
def build(
    name: Annotated[str, typer.Argument(help="A template that ships, such as base.")] = "base", json: JsonOption = False
) -> None:
    """Build a template, unless it is built already. Without a running server, one is started for the call."""
    with reachable_server() as server:
        for step in Server(**server).build_template(name):
            if not isinstance(step, Template):
                print(step, file=sys.stderr, flush=True)
            elif json:
                print_json(step)
            else:
                print(f"{step.name}: {step.size_mib:.0f} MiB, {step.image}")

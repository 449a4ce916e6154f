"""`skerry create`: a sandbox that stays."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from skerry import Sandbox
from skerry.cli.output import JsonOption, print_json, timeout_of, working
from skerry.cli.run import pair
from skerry.models import Restart, RestartWhen
from skerry.sdk.wire import UNSET


def create(
    template: Annotated[str, typer.Option(help="What it is made from.")] = "base",
    snapshot: Annotated[str | None, typer.Option(help="A snapshot to start from in place of a template.")] = None,
    timeout: Annotated[str, typer.Option(help="Seconds until its time is over, or `none`.")] = "300",
    on_timeout: Annotated[Literal["kill", "pause"], typer.Option(help="What happens then.")] = "kill",
    idle_timeout: Annotated[float | None, typer.Option(help="Seconds without use until its time is over.")] = None,
    auto_resume: Annotated[bool, typer.Option(help="Whether using it while it is paused resumes it.")] = True,
    command: Annotated[str | None, typer.Option(help="A command that it runs; its end stops it.")] = None,
    restart: Annotated[
        Literal["no", "on-failure", "always"], typer.Option(help="Whether it starts again after that.")
    ] = "no",
    retries: Annotated[int | None, typer.Option(help="How often at most, one after the other.")] = None,
    internet: Annotated[bool, typer.Option(help="Whether it may reach the internet.")] = True,
    env: Annotated[list[str] | None, typer.Option("--env", "-e", help="NAME=VALUE; may be repeated.")] = None,
    metadata: Annotated[list[str] | None, typer.Option("--metadata", "-m", help="NAME=VALUE; may be repeated.")] = None,
    json: JsonOption = False,
) -> None:
    """Make a sandbox, which stays until it is killed or its time is over, and print its id."""
    until = timeout_of(timeout)
    assert until is not UNSET
    with working("making a sandbox"):
        made = Sandbox.create(
            template, snapshot=snapshot, timeout=until, on_timeout=on_timeout, idle_timeout=idle_timeout,
            auto_resume=auto_resume, command=command, internet=internet,
            restart=Restart(when=RestartWhen(restart), retries=retries), env=dict(pair(item) for item in env or []),
            metadata=dict(pair(item) for item in metadata or []),
        )  # fmt: skip
    if json:
        print_json(made.created)
    else:
        print(made.id)

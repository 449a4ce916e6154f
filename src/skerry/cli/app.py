"""The commands, and the one place that reports errors."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from skerry import __version__
from skerry.cli import (
    bench,
    cp,
    create,
    doctor,
    exec_,
    fork,
    key,
    kill,
    logs,
    ls,
    mcp,
    pause,
    ps,
    resume,
    rollback,
    run,
    shell,
    snapshot,
    snapshots,
    start,
    stop,
    template,
    up,
    volume,
)
from skerry.errors import Error


def _finish(status: int | None, **_options: Any) -> None:
    """A command that returns a number has returned its exit status."""
    raise typer.Exit(status or 0)


app = typer.Typer(
    name="skerry", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    result_callback=_finish,
    help="Run code that nobody reviewed in isolated, disposable sandboxes on your own machine.",
)  # fmt: skip


def _version(wanted: bool) -> None:
    if wanted:
        print(f"skerry {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None: ...


app.command("up")(up.up)
app.command("run")(run.run)
app.command("create")(create.create)
app.command("exec", context_settings={"ignore_unknown_options": True})(exec_.exec_)
app.command("shell")(shell.shell)
app.command("ls")(ls.ls)
app.command("ps")(ps.ps)
app.command("pause")(pause.pause)
app.command("resume")(resume.resume)
app.command("stop")(stop.stop)
app.command("start")(start.start)
app.command("snapshot")(snapshot.snapshot)
app.add_typer(snapshots.app, name="snapshots")
app.command("fork")(fork.fork)
app.command("rollback")(rollback.rollback)
app.command("kill")(kill.kill)
app.command("cp")(cp.cp)
app.command("logs")(logs.logs)
app.add_typer(template.app, name="template")
app.add_typer(volume.app, name="volume")
app.add_typer(key.app, name="key")
app.command("mcp")(mcp.mcp)
app.command("doctor")(doctor.doctor)
app.command("bench", context_settings={"ignore_unknown_options": True})(bench.bench)


def main() -> None:
    """Run the command line and exit, with 2 for a wrong one, 130 after Ctrl-C, 1 for an error, else the command's."""
    try:
        app()
    except Error as error:
        print(f"skerry: {error.message} [{error.code}]", file=sys.stderr)
        sys.exit(1)

"""The commands, and the one place that reports errors."""

from __future__ import annotations

import sys
from typing import Annotated

import click
import typer

from skerry import __version__
from skerry.cli import bench, cp, doctor, exec_, key, kill, logs, ls, ps, run, shell, template, up
from skerry.errors import Error

app = typer.Typer(
    name="skerry", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
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
app.command("exec", context_settings={"ignore_unknown_options": True})(exec_.exec_)
app.command("shell")(shell.shell)
app.command("ls")(ls.ls)
app.command("ps")(ps.ps)
app.command("kill")(kill.kill)
app.command("cp")(cp.cp)
app.command("logs")(logs.logs)
app.add_typer(template.app, name="template")
app.add_typer(key.app, name="key")
app.command("doctor")(doctor.doctor)
app.command("bench", context_settings={"ignore_unknown_options": True})(bench.bench)


def main() -> int:
    """Run the command line; the exit status."""
    try:
        status = app(standalone_mode=False)
    except Error as error:
        print(f"skerry: {error.message} [{error.code}]", file=sys.stderr)
        return 1
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())
        return 2
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return 130
    return status if isinstance(status, int) else 0

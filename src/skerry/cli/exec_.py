"""`skerry exec`: a command in a running sandbox."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from skerry import Sandbox
from skerry.cli.output import JsonOption, print_json
from skerry.cli.run import stream_to


def exec_(
    sandbox: Annotated[str, typer.Argument(help="The sandbox's id.")],
    command: Annotated[list[str], typer.Argument(help="Program and arguments; put -- before options of its own.")],
    user: Annotated[str | None, typer.Option(help="User to run as; default: the template's.")] = None,
    cwd: Annotated[str | None, typer.Option(help="Working directory.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds until it is killed.")] = None,
    stdin: Annotated[bool, typer.Option("--stdin", "-i", help="Pass standard input on.")] = False,
    json: JsonOption = False,
) -> int:
    """Run a command in a sandbox; its exit status is passed on."""
    found = Sandbox.connect(sandbox)
    given = sys.stdin.buffer.read() if stdin else None
    if json:
        done = found.exec(command, user=user, cwd=cwd, timeout=timeout, input=given)
        print_json({"returncode": done.returncode, "stdout": done.stdout, "stderr": done.stderr, "reason": done.reason})
        return done.returncode
    return found.exec(
        command, user=user, cwd=cwd, timeout=timeout, input=given, text=False,
        on_stdout=stream_to(sys.stdout), on_stderr=stream_to(sys.stderr),
    ).returncode  # fmt: skip

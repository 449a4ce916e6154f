"""`skerry run`: code or a program in a sandbox of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from skerry import Sandbox
from skerry.cli.embedded import reachable_server
from skerry.cli.output import JsonOption, print_json
from skerry.errors import InvalidRequest
from skerry.models import ExecutionError

_INTERPRETERS = {".py": "python3", ".js": "node", ".mjs": "node", ".sh": "bash"}


def run(
    file: Annotated[
        str | None, typer.Argument(help="Program to run (.py, .js, .sh); - or nothing: Python from stdin.")
    ] = None,
    arguments: Annotated[list[str] | None, typer.Argument(help="Passed to the program.")] = None,
    code: Annotated[str | None, typer.Option("-c", help="Python to run, as in a notebook cell.")] = None,
    template: Annotated[str, typer.Option(help="What the sandbox is made from.")] = "base",
    timeout: Annotated[float, typer.Option(help="Seconds until it is ended.")] = 300,
    isolation: Annotated[str, typer.Option(help="gvisor.")] = "gvisor",
    internet: Annotated[bool, typer.Option(help="Whether it may reach the internet.")] = True,
    env: Annotated[list[str] | None, typer.Option("--env", "-e", help="NAME=VALUE; may be repeated.")] = None,
    json: JsonOption = False,
) -> int:
    """Run code in a fresh sandbox, print what it prints, and destroy the sandbox.

    A file runs as a program and its exit status is passed on. Code from -c or stdin runs as a cell: the value of the
    last expression is printed too. Without a running server, one is started for the call.
    """
    environment = dict(pair(item) for item in env or [])
    program = Path(file) if file not in (None, "-") and code is None else None
    source = b""
    if program is not None:
        if program.suffix not in _INTERPRETERS:
            raise InvalidRequest(f"cannot run {program}: its name must end with {', '.join(_INTERPRETERS)}")
        try:
            source = program.read_bytes()
        except OSError as error:
            raise InvalidRequest(f"cannot read {program}: {error.strerror}") from None
    elif code is None:
        code = sys.stdin.read()
    options: dict[str, Any] = {"template": template, "isolation": isolation, "internet": internet, "env": environment}
    with reachable_server() as server, Sandbox.create(timeout=timeout + 30, **options, **server) as sandbox:
        if program is not None:
            return _program(sandbox, program, source, arguments or [], timeout, json)
        assert code is not None
        return _cell(sandbox, code, timeout, json)


def _program(sandbox: Sandbox, program: Path, source: bytes, arguments: list[str], timeout: float, json: bool) -> int:
    path = f"/home/user/{program.name}"
    sandbox.files.write(path, source)
    command = [_INTERPRETERS[program.suffix], path, *arguments]
    if json:
        done = sandbox.exec(command, timeout=timeout)
        print_json({"returncode": done.returncode, "stdout": done.stdout, "stderr": done.stderr, "reason": done.reason})
        return done.returncode
    done_bytes = sandbox.exec(
        command, timeout=timeout, text=False, on_stdout=stream_to(sys.stdout), on_stderr=stream_to(sys.stderr)
    )
    if done_bytes.reason == "timeout":
        print(f"skerry: ended after {timeout:g} s", file=sys.stderr)
    return done_bytes.returncode


def stream_to(file: TextIO) -> Callable[[bytes], None]:
    """Writes bytes to a text stream as they are, at once."""

    def write(data: bytes) -> None:
        file.flush()
        file.buffer.write(data)
        file.buffer.flush()

    return write


def _cell(sandbox: Sandbox, code: str, timeout: float, json: bool) -> int:
    if json:
        execution = sandbox.run_code(code, timeout=timeout)
        error = execution.error.model_dump() if execution.error else None
        results = [{"data": result.data, "main": result.main} for result in execution.results]
        print_json(
            {
                "text": execution.text,
                "stdout": execution.stdout,
                "stderr": execution.stderr,
                "results": results,
                "error": error,
            }
        )
        return 1 if execution.error else 0

    def failed(error: ExecutionError) -> None:
        print(error.traceback, file=sys.stderr)

    execution = sandbox.run_code(
        code, timeout=timeout, on_error=failed,
        on_stdout=lambda text: print(text, end="", flush=True),
        on_stderr=lambda text: print(text, end="", file=sys.stderr, flush=True),
    )  # fmt: skip
    if execution.text is not None:
        print(execution.text)
    return 1 if execution.error else 0


def pair(item: str) -> tuple[str, str]:
    name, equals, value = item.partition("=")
    if not equals:
        raise InvalidRequest(f"cannot set {item!r}: it must be NAME=VALUE")
    return name, value

"""Write the generated parts of docs/reference from the code: `--check` only says what differs."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer

from skerry.cli.app import app
from skerry.config import Settings
from skerry.core.states import TRANSITIONS
from skerry.errors import registered
from skerry.models import EndCode, SandboxState
from skerry.sdk import (
    ExecResult,
    Execution,
    ForkIncomplete,
    Image,
    Sandbox,
    ShownResult,
    Snapshot,
    Template,
    Volume,
)  # the SDK registers the errors that only clients raise
from skerry.sdk._sync.code import Context
from skerry.sdk._sync.files import Files
from skerry.sdk._sync.process import Process
from skerry.sdk._sync.pty import Pty, Terminal
from skerry.sdk._sync.volume import VolumeFiles

REFERENCE = Path(__file__).resolve().parents[1] / "docs" / "reference"

STATES = {
    SandboxState.CREATING: "asked for, not yet usable",
    SandboxState.RUNNING: "usable",
    SandboxState.PAUSED: "nothing of it runs until it is resumed; it waits in memory or on the disk",
    SandboxState.STOPPED: "its processes have ended, its files are kept until it is started",
    SandboxState.DESTROYED: "ended because somebody wanted it, by a call or by a timeout",
    SandboxState.FAILED: "ended although nobody wanted it",
}
ENDS = {
    EndCode.KILLED: "a call destroyed it",
    EndCode.TIMEOUT: "its `timeout_s` was over",
    EndCode.IDLE_TIMEOUT: "nobody used it for `idle_timeout_s`",
    EndCode.OUT_OF_MEMORY: "it needed more memory than its limit",
    EndCode.CRASHED: "its main process ended unexpectedly",
    EndCode.AGENT_VIOLATION: "its agent broke the protocol; see the [isolation page](../explanation/isolation.md)",
    EndCode.AGENT_UNREACHABLE: "its agent did not answer any more",
    EndCode.START_FAILED: "it could not be started",
    EndCode.SERVER_STOPPED: "the server was stopped, without `--keep`",
    EndCode.NODE_LOST: "a server that was started anew did not find it alive",
}


def errors() -> list[str]:
    lines = ["| code | class | HTTP | retryable | meaning |", "|---|---|---|---|---|"]
    for code, error in registered().items():
        meaning = " ".join((inspect.getdoc(error) or "").split())
        again = "yes" if error.retryable else ""
        lines.append(f"| `{code}` | {error.__name__} | {error.status} | {again} | {meaning} |")
    return lines


def settings() -> list[str]:
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = str(field.default).lower() if isinstance(field.default, bool) else field.default
        meaning = " ".join((field.description or "").split())
        lines.append(f"| `SKERRY_{name.upper()}` | `{default}` | {meaning} |")
    return lines


def states() -> list[str]:
    lines = ["| state | meaning | what can follow |", "|---|---|---|"]
    for state in SandboxState:
        follows = ", ".join(f"`{other}`" for other in SandboxState if other in TRANSITIONS[state])
        lines.append(f"| `{state}` | {STATES[state]} | {follows or 'nothing'} |")
    return lines


def ends() -> list[str]:
    return ["| code | why |", "|---|---|", *(f"| `{code}` | {ENDS[code]} |" for code in EndCode)]


def commands() -> list[str]:
    """Every command: what it does, its arguments and options."""
    lines: list[str] = []
    for words, command in _commands(typer.main.get_command(app), ("skerry",)):
        lines += ["", f"## {words}", "", *inspect.cleandoc(command.help or "").splitlines()]
        rows = [row for parameter in command.params if (row := _parameter(parameter))]
        if rows:
            lines += ["", "| argument or option | default | meaning |", "|---|---|---|", *rows]
    return lines[1:]


def _commands(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if inner := getattr(command, "commands", {}):  # a group of commands
        for name, member in inner.items():
            yield from _commands(member, (*words, name))
    else:
        yield " ".join(words), command


def _parameter(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        shown = f"`{parameter.name.upper()}`" + ("…" if parameter.nargs != 1 else "")
        default = "required" if parameter.required else ""
    else:
        shown = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
        default = "" if parameter.default in (None, False) else f"`{str(parameter.default).lower()}`"
    return f"| {shown} | {default} | {' '.join((parameter.help or '').split())} |"


def sdk() -> list[str]:
    """Signatures and docstrings of what the SDK offers, class by class, with what it has from its bases."""
    lines: list[str] = []
    for offered in SDK:
        [tree, *bases] = [_tree(part) for part in offered.__mro__ if part.__module__.startswith("skerry.sdk")]
        body = [member for part in (tree, *bases) for member in part.body]
        members = "\n".join(member for member in map(_member, body) if member)
        lines += ["", f"## {offered.__name__}", "", *(ast.get_docstring(tree) or "").splitlines(), ""]
        lines += ["```python", *_formatted(members).splitlines(), "```"]
    return lines[1:]


def _tree(offered: type) -> ast.ClassDef:
    [tree] = ast.parse(textwrap.dedent(inspect.getsource(offered))).body
    assert isinstance(tree, ast.ClassDef)
    return tree


def _member(member: ast.stmt) -> str:
    """The source of a public method, property or attribute, without its body and `self`; of others nothing."""
    if isinstance(member, ast.AnnAssign) and not ast.unparse(member.target).startswith("_"):
        return ast.unparse(member)
    if not isinstance(member, ast.FunctionDef) or member.name.startswith("_"):
        return ""
    if any(ast.unparse(mark) == "overload" for mark in member.decorator_list):
        return ""
    member.args.args = member.args.args[1:]
    member.body = member.body[:1] if ast.get_docstring(member) else [ast.Expr(ast.Constant(...))]
    return ast.unparse(member)


def _formatted(source: str) -> str:
    ruff = Path(sys.executable).with_name("ruff")
    return subprocess.run(
        [ruff, "format", "--line-length=120", "-"], input=source, capture_output=True, text=True, check=True
    ).stdout


SDK = (
    Sandbox, Snapshot, ForkIncomplete, Execution, ShownResult, Context, ExecResult, Process, Files, Pty, Terminal,
    Image, Template, Volume, VolumeFiles,
)  # fmt: skip
TABLES: dict[str, Callable[[], list[str]]] = {
    "errors.md errors": errors,
    "settings.md settings": settings,
    "states.md states": states,
    "states.md ends": ends,
    "cli.md commands": commands,
    "sdk.md classes": sdk,
}


def main(arguments: list[str]) -> int:
    """The exit status: 1 when `--check` found a difference."""
    stale = []
    for place, make in TABLES.items():
        name, table = place.split()
        path = REFERENCE / name
        begin, end = f"<!-- {table}: generated by tools/reference_docs.py -->", f"<!-- /{table} -->"
        text = path.read_text()
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise SystemExit(f"{path} has no place for the table {table!r}")
        new = "\n".join([before + begin, "", *make(), "", end + after])
        if new != text:
            stale.append(name)
            if "--check" not in arguments:
                path.write_text(new)
    if stale and "--check" in arguments:
        print(f"stale: {', '.join(stale)}; run tools/reference_docs.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

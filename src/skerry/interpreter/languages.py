"""What the adaptor must know of each language beyond Jupyter's protocol: how its kernel is started, and how its
environment and working directory are changed.

A kernel that has a specification in the image (`jupyter kernelspec list`) needs no entry: it is found by its name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

DENO = ("deno", "jupyter", "--kernel", "--conn", "{connection_file}")
"""https://docs.deno.com/runtime/reference/cli/jupyter/"""
_REQUIRE = (
    "globalThis.require = (await import('node:module')).createRequire(process.cwd() + '/'); "
    "globalThis.Buffer ??= (await import('node:buffer')).Buffer; undefined"
)


@dataclass(frozen=True)
class Language:
    """One language. Snippets are code in it."""

    kernels: tuple[str, ...] = ()
    """Prefixes of the names of kernels that speak it."""
    command: tuple[str, ...] = ()
    """Starts its kernel where no specification is needed."""
    env: Mapping[str, str] | None = None
    """For its kernel only."""
    first: str = ""
    """Runs before anything else."""
    set_variable: Callable[[str, str], str] | None = None
    unset_variable: Callable[[str], str] | None = None
    change_directory: Callable[[str], str] | None = None
    displays_values: bool = False
    """The value of a cell comes as something displayed."""
    fence: Callable[[str], str] | None = None
    """Sends a word behind all output of the cells before: for kernels that say they are idle before it is all out."""


def _quoted(text: str) -> str:
    return json.dumps(text)


def _quoted_in_shell(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _quoted_in_r(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _quoted_in_julia(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("$", "\\$")


_JAVASCRIPT = Language(
    command=DENO, env={"NO_COLOR": "1", "DENO_NO_UPDATE_CHECK": "1", "DENO_NO_PROMPT": "1"}, first=_REQUIRE,
    set_variable=lambda name, value: f"process.env[{_quoted(name)}] = {_quoted(value)}; undefined",
    unset_variable=lambda name: f"delete process.env[{_quoted(name)}]; undefined",
    change_directory=lambda path: f"process.chdir({_quoted(path)}); {_REQUIRE}",
    fence=lambda word: (
        f"console.log({_quoted(word)}); await Deno.jupyter.display({{'text/plain': {_quoted(word)}}}, {{raw: true}}); "
        "undefined"
    ),
)  # fmt: skip

LANGUAGES: Mapping[str, Language] = {
    "javascript": _JAVASCRIPT,
    "typescript": _JAVASCRIPT,
    "r": Language(
        kernels=("ir",),
        displays_values=True,
        set_variable=lambda name, value: f"invisible(Sys.setenv(`{name}` = {_quoted_in_r(value)}))",
        unset_variable=lambda name: f"invisible(Sys.unsetenv({_quoted_in_r(name)}))",
        change_directory=lambda path: f"invisible(setwd({_quoted_in_r(path)}))",
    ),
    "bash": Language(
        kernels=("bash",),
        set_variable=lambda name, value: f"export {name}={_quoted_in_shell(value)}",
        unset_variable=lambda name: f"unset {name}",
        change_directory=lambda path: f"cd {_quoted_in_shell(path)}",
    ),
    "julia": Language(
        kernels=("julia",),
        set_variable=lambda name, value: f"ENV[{_quoted_in_julia(name)}] = {_quoted_in_julia(value)}; nothing",
        unset_variable=lambda name: f"delete!(ENV, {_quoted_in_julia(name)}); nothing",
        change_directory=lambda path: f"cd({_quoted_in_julia(path)}); nothing",
    ),
}

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
_RESEED = """
(() => {
  const mask = (1n << 64n) - 1n;
  let state = %(seed)dn & mask;
  const random = () => {
    state = (state + 0x9E3779B97F4A7C15n) & mask;
    let z = state;
    z = ((z ^ (z >> 30n)) * 0xBF58476D1CE4E5B9n) & mask;
    z = ((z ^ (z >> 27n)) * 0x94D049BB133111EBn) & mask;
    return Number((z ^ (z >> 31n)) >> 11n) / 2 ** 53;
  };
  Object.defineProperty(Math, "random", { value: random, configurable: true, writable: true, enumerable: false });
  for (let left = 0; left < 4; left++) crypto.getRandomValues(new Uint8Array(65536));
  const node = process.getBuiltinModule("node:crypto");
  for (let left = 0; left < 512; left++) { crypto.randomUUID(); node.randomUUID(); }
})(); undefined
"""
"""V8's generator cannot be seeded: another, SplitMix64, takes its place. Deno's own asks the kernel after 64 KiB; both
makers of UUIDs have some in store."""


@dataclass(frozen=True)
class Language:
    """One language. Snippets are code in it."""

    kernels: tuple[str, ...] = ()
    """Prefixes of the names of kernels that speak it."""
    command: tuple[str, ...] = ()
    """Starts its kernel where no specification is needed."""
    env: Mapping[str, str] | None = None
    """For its kernel only."""
    scripts: bool = False
    """Its `-e EXPRESSION` is run from a file: R itself makes one, deletes it and keeps it open, and no memory with such
    a file in it can be saved."""
    first: str = ""
    """Runs before anything else."""
    set_variable: Callable[[str, str], str] | None = None
    unset_variable: Callable[[str], str] | None = None
    change_directory: Callable[[str], str] | None = None
    reseed: Callable[[int], str] | None = None
    """Seeds what the language's programs share anew, with a number of 64 bits, and says nothing."""
    displays_values: bool = False
    """The value of a cell comes as something displayed."""
    syntax: tuple[str, ...] = ()
    """Reads code and says, as `error: NAME: MESSAGE` and where, what keeps it from being understood: for a kernel that
    says only that something does. Nothing is run."""
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
    syntax=("deno", "fmt", "--check", "--ext", "ts", "-"),
    set_variable=lambda name, value: f"process.env[{_quoted(name)}] = {_quoted(value)}; undefined",
    unset_variable=lambda name: f"delete process.env[{_quoted(name)}]; undefined",
    change_directory=lambda path: f"process.chdir({_quoted(path)}); {_REQUIRE}",
    reseed=lambda seed: _RESEED % {"seed": seed},
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
        scripts=True,
        displays_values=True,
        set_variable=lambda name, value: f"invisible(Sys.setenv(`{name}` = {_quoted_in_r(value)}))",
        unset_variable=lambda name: f"invisible(Sys.unsetenv({_quoted_in_r(name)}))",
        change_directory=lambda path: f"invisible(setwd({_quoted_in_r(path)}))",
        reseed=lambda seed: f"invisible(set.seed({seed % 2**31}L))",
    ),
    "bash": Language(
        kernels=("bash",),
        set_variable=lambda name, value: f"export {name}={_quoted_in_shell(value)}",
        unset_variable=lambda name: f"unset {name}",
        change_directory=lambda path: f"cd {_quoted_in_shell(path)}",
        reseed=lambda seed: f"RANDOM={seed % 2**31}",
    ),
    "julia": Language(
        kernels=("julia",),
        set_variable=lambda name, value: f"ENV[{_quoted_in_julia(name)}] = {_quoted_in_julia(value)}; nothing",
        unset_variable=lambda name: f"delete!(ENV, {_quoted_in_julia(name)}); nothing",
        change_directory=lambda path: f"cd({_quoted_in_julia(path)}); nothing",
        reseed=lambda seed: f"import Random; Random.seed!(0x{seed:016x}); nothing",
    ),
}

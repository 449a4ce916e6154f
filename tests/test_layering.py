"""Which package may import which. One direction, no cycles; `if TYPE_CHECKING:` does not count."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import skerry

ROOT = Path(skerry.__file__).parent

VOCABULARY = {"skerry", "errors", "expansion", "failpoints", "models", "ports"}
ALLOWED: dict[str, set[str]] = {
    "skerry": {"sdk"},  # lazily, in `__getattr__`
    "errors": set(),
    "failpoints": set(),
    "expansion": {"errors"},
    "models": set(),
    "ports": {"errors", "models"},
    "core": VOCABULARY,
    "store": VOCABULARY,
    "facades": VOCABULARY | {"core"},
    "host": VOCABULARY | {"templates"},
    "templates": set(),
    "agentlink": VOCABULARY,
    "drivers": VOCABULARY,
    "node": VOCABULARY | {"host", "drivers", "agentlink"},
    "config": {"skerry"},
    "interpreter": {"interpreter"},
    "sdk": {"skerry", "errors", "expansion", "models"},
    "mcp": {"skerry", "errors", "models"},
    "cli": {"skerry", "errors", "models", "sdk"},
    "__main__": {"cli"},
}
LAZY = {("cli", "server"), ("cli", "config"), ("cli", "host"), ("cli", "mcp")}
"""`skerry up` and `skerry doctor` reach for the server's side, `skerry mcp` for what an extra installs: inside their
functions only."""


def test_every_import_points_the_allowed_way() -> None:
    wrong = []
    for path in ROOT.rglob("*.py"):
        here = part_of(path)
        if here == "server":
            continue  # the composition root knows every part
        for target, lazy in imports(path):
            there = target.split(".")[1] if "." in target else "skerry"
            if there == here or there in ALLOWED[here] or (lazy and (here, there) in LAZY):
                continue
            wrong.append(f"{path.relative_to(ROOT)} imports {target}")
    assert wrong == []


def test_there_are_no_cycles() -> None:
    modules = {module_of(path): path for path in ROOT.rglob("*.py")}
    edges = {
        name: {found for target, lazy in imports(path) if not lazy for found in (target,) if found in modules}
        for name, path in modules.items()
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " → ".join((*trail[trail.index(name) :], name))
        if name not in done:
            for target in edges[name]:
                visit(target, (*trail, name))
            done.add(name)

    for name in modules:
        visit(name, ())


def part_of(path: Path) -> str:
    relative = path.relative_to(ROOT)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem if relative.stem != "__init__" else "skerry"


def module_of(path: Path) -> str:
    parts = ("skerry", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """The modules of ours that a file imports, and whether only inside a function."""
    yield from _imports(ast.parse(path.read_text()).body, lazy=False)


def _imports(nodes: list[ast.stmt], *, lazy: bool) -> Iterator[tuple[str, bool]]:
    for node in nodes:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from ((name.name, lazy) for name in node.names if name.name.split(".")[0] == "skerry")
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == "skerry":
            module = node.module or ""
            for name in node.names:
                longer = ROOT.joinpath(*module.split(".")[1:], name.name)
                is_module = longer.is_dir() or longer.with_suffix(".py").exists()
                yield (f"{module}.{name.name}" if is_module else module), lazy
        deeper = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for field in ("body", "orelse", "finalbody", "handlers"):
            yield from _imports(
                [child for child in getattr(node, field, []) if isinstance(child, ast.stmt)], lazy=deeper
            )

"""`skerry bench`: the benchmark suite of a source tree."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from skerry.errors import InvalidRequest


def bench(arguments: Annotated[list[str] | None, typer.Argument(help="Passed on; --help lists them.")] = None) -> int:
    """Run the benchmarks (needs a source tree: they compare with programs that are not installed otherwise)."""
    root = Path(__file__).parents[3]
    if not (root / "bench" / "__main__.py").exists():
        raise InvalidRequest("cannot run the benchmarks: they come with the source tree, see CONTRIBUTING.md")
    return subprocess.run([sys.executable, "-m", "bench", *(arguments or [])], cwd=root, check=False).returncode

"""What is imported and run before anybody waits for it. What the image does not have is left out."""

from __future__ import annotations

import contextlib
import importlib

MODULES = ("numpy", "pandas", "matplotlib.pyplot")

FIRST_CELLS = ("1+1", "print('warm')")
"""Always: the very first cell of an IPython is slow."""

CELLS = (
    *FIRST_CELLS,
    "1/0",
    "%time None",
    "import asyncio\nawait asyncio.sleep(0)",
    "import pandas\npandas.DataFrame({'a': [1, 2], 'b': ['x', 'y']})",
    "from matplotlib import pyplot\npyplot.plot([1, 2])\npyplot.show()",
)
"""A value, output, an error, a magic, a coroutine, a table, a figure: what a first one loads and compiles is loaded."""


def import_modules() -> None:
    """Import MODULES."""
    for name in MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)

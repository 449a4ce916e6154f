"""Pillow's images are results: `image.show()` shows them, there being no screen; and for callers that want results as
data, so does saving one to a file, as E2B's interpreter has it."""

from __future__ import annotations

import functools
import sys
from typing import Any

from . import structure
from .imports import after_import


def adopt() -> None:
    """As soon as somebody imports Pillow."""
    after_import("PIL.Image", _use)


def _use() -> None:
    from IPython.display import display

    image = sys.modules["PIL.Image"].Image
    save = image.save

    def show(self: Any, title: str | None = None) -> None:
        display(self)

    @functools.wraps(save)
    def save_and_show(self: Any, fp: Any, format: str | None = None, **options: Any) -> None:
        save(self, fp, format, **options)
        if structure.wanted and isinstance(fp, str):
            display(self)

    image.show, image.save = show, save_and_show

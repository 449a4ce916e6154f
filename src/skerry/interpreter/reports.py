"""Exceptions as user code would see them: no frame of ours, no escape codes, no more text than a reader can bear."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import TracebackType

CELL_PREFIX = "<cell "
_TEXT_MAX = 1024 * 1024
_OURS = str(Path(__file__).resolve().parent) + "/"
_PLAIN = ("SystemExit", "UsageError")
"""Where in IPython they come from tells nobody anything."""


def describe(error: BaseException) -> tuple[str, str, str]:
    """Name, value and traceback of an exception. Never raises."""
    name = name_of(error)
    try:
        value = str(error)
    except Exception:
        value = f"<{name} whose str() failed>"
    try:
        text = _rendered(error)
    except Exception:
        text = f"{name}: {value}\n"
    return name, _shorten(value), _shorten(text)


def _rendered(error: BaseException) -> str:
    if name_of(error) in _PLAIN:
        return f"{name_of(error)}: {error}\n"
    rendering = traceback.TracebackException(type(error), error, user_frames(error.__traceback__))
    rendering.stack[:] = [frame for frame in rendering.stack if not frame.filename.startswith(_OURS)]
    return "".join(rendering.format())


def name_of(error: BaseException) -> str:
    return type(error).__name__


def user_frames(frames: TracebackType | None) -> TracebackType | None:
    """The part of a traceback that begins in a cell; nothing of it when no cell has been reached."""
    while frames is not None and not frames.tb_frame.f_code.co_filename.startswith(CELL_PREFIX):
        frames = frames.tb_next
    return frames


def _shorten(text: str) -> str:
    if len(text) <= _TEXT_MAX:
        return text
    half = _TEXT_MAX // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half} characters left out]\n{text[-half:]}"

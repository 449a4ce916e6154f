"""matplotlib figures are results: shown at the end of a cell, or at `plt.show()`, without being asked for.

This module is also the matplotlib backend, `module://skerry_interpreter.figures`: Agg with a `show` of its own.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Mapping
from typing import Any

from traitlets import Dict, Unicode
from traitlets.config import SingletonConfigurable

from . import structure
from .imports import after_import

_MIME = {
    "png": "image/png", "retina": "image/png", "jpeg": "image/jpeg", "jpg": "image/jpeg", "svg": "image/svg+xml",
    "pdf": "application/pdf",
}  # fmt: skip
_show: Callable[[Mapping[str, Any], bool], None] | None = None


class InlineBackend(SingletonConfigurable):
    """`%config InlineBackend.figure_format = 'svg'` and the like, as notebooks have it."""

    figure_format = Unicode("png", help="png, retina, jpeg, svg or pdf").tag(config=True)
    figure_formats = Unicode("", help="the same under another name").tag(config=True)
    print_figure_kwargs = Dict({"bbox_inches": "tight"}, help="passed to Figure.savefig").tag(config=True)


def adopt(shell: Any, show: Callable[[Mapping[str, Any], bool], None]) -> None:
    """Become matplotlib's backend as soon as somebody imports it. MPLBACKEND would reach child processes too, which do
    not have this module."""
    after_import("matplotlib.pyplot", lambda: _use(shell, show))


def _use(shell: Any, show: Callable[[Mapping[str, Any], bool], None]) -> None:
    global _show
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    globals()["FigureCanvas"] = FigureCanvasAgg
    _show = show
    matplotlib.use(f"module://{__name__}")
    shell.configurables.append(InlineBackend.instance(parent=shell))
    formatter = shell.display_formatter.formatters["image/png"]
    formatter.for_type_by_name("matplotlib.figure", "Figure", _as_png)
    shell.display_formatter.formatters[structure.CHART].for_type_by_name("matplotlib.figure", "Figure", structure.chart)


def show(*_: Any, **__: Any) -> None:
    """`plt.show()`. Shows all open figures and closes them; called again at the end of each cell."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None or _show is None:
        return
    managers = _managers()
    try:
        for manager in managers:
            figure = manager.canvas.figure
            if figure.axes or figure.texts or figure.lines or figure.images:
                _show(_bundle(figure), False)
    finally:
        if managers:
            pyplot.close("all")


def close(value: Any) -> None:
    """A figure that has been shown as the value of its cell is not shown again."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot and isinstance(value, pyplot.Figure):
        pyplot.close(value)


def _managers() -> list[Any]:
    helpers = sys.modules.get("matplotlib._pylab_helpers")
    return helpers.Gcf.get_all_fig_managers() if helpers else []


def _bundle(figure: Any) -> dict[str, Any]:
    settings = InlineBackend.instance()
    wanted = settings.figure_formats.strip("{}[]'\" ") or settings.figure_format
    kind = wanted if wanted in _MIME else "png"
    content = _rendered(figure, kind)
    bundle = {_MIME[kind]: content.decode() if kind == "svg" else content, "text/plain": repr(figure)}
    described = structure.chart(figure)
    return bundle if described is None else {**bundle, structure.CHART: described}


def _as_png(figure: Any) -> bytes | None:
    return _rendered(figure, "png") if figure.axes or figure.texts or figure.lines or figure.images else None


def _rendered(figure: Any, kind: str) -> bytes:
    buffer = io.BytesIO()
    options = dict(InlineBackend.instance().print_figure_kwargs)
    if kind == "retina":
        options["dpi"] = 2 * figure.dpi
    figure.savefig(buffer, format={"retina": "png", "jpg": "jpeg"}.get(kind, kind), **options)
    return buffer.getvalue()

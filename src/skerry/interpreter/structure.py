"""Figures and tables once more as data, for callers that draw them themselves: `e2b/chart` and `e2b/data`."""

from __future__ import annotations

import datetime
import math
from typing import Any

from IPython.core.formatters import BaseFormatter
from traitlets import ObjectName, Unicode

CHART, TABLE = "e2b/chart", "e2b/data"

wanted = False
"""Whether the run under way asks for it."""


def chart(figure: Any) -> dict[str, Any] | None:
    """What a matplotlib figure shows, by `e2b_charts`; None when it cannot tell, or is not installed."""
    if not wanted:
        return None
    try:
        from e2b_charts import chart_figure_to_dict

        described: dict[str, Any] | None = chart_figure_to_dict(figure) or None
    except Exception:  # somebody else's reading of any figure there may be: the picture matters more
        return None
    return described


def table(frame: Any) -> dict[str, list[Any]] | None:
    """A pandas data frame by columns."""
    if not wanted:
        return None
    columns = frame.to_dict(orient="list")
    return {str(name): [_plain(value) for value in values] for name, values in columns.items()}


def _plain(value: Any) -> Any:
    """JSON has neither moments nor numpy's numbers nor what is no number."""
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)


class _Chart(BaseFormatter):
    format_type = Unicode(CHART)
    print_method = ObjectName("_repr_chart_")
    _return_type = (dict, str)


class _Table(BaseFormatter):
    format_type = Unicode(TABLE)
    print_method = ObjectName("_repr_data_")
    _return_type = (dict, str)


def register(formatter: Any) -> None:
    """Teach IPython's display formatter both."""
    formatter.formatters[CHART] = _Chart(parent=formatter)
    formatter.formatters[TABLE] = _Table(parent=formatter)
    formatter.formatters[TABLE].for_type_by_name("pandas", "DataFrame", table)
    formatter.formatters[TABLE].for_type_by_name("pandas.core.frame", "DataFrame", table)
    formatter.active_types = [*formatter.active_types, CHART, TABLE]

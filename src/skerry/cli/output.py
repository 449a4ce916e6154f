"""How commands print: tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from skerry.errors import InvalidRequest
from skerry.models import PauseGrade, Sandbox
from skerry.sdk.wire import UNSET, Unset

_WIDE = 2000
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
TimeoutOption = Annotated[
    str | None,
    typer.Option(help="Seconds from now until the time is over, or `none`; default: as many as it was given last."),
]


def timeout_of(given: str | None) -> float | Unset | None:
    """What `TimeoutOption` says. Raises InvalidRequest."""
    if given is None:
        return UNSET
    if given == "none":
        return None
    try:
        return float(given)
    except ValueError:
        raise InvalidRequest(f"cannot use --timeout {given}: it is a number of seconds, or none") from None


@contextmanager
def working(text: str) -> Iterator[None]:
    """Show on a terminal that something is being done, and for how long; what is printed meanwhile stays."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as progress:
        progress.add_task(text)
        yield


def each(
    ids: Sequence[str], doing: str, change: Callable[[str], Sandbox], shown: Callable[[Sandbox], str], *, json: bool
) -> None:
    """Change sandboxes one after the other, and print a line for each, or all as JSON."""
    changed = []
    for id_ in ids:
        with working(f"{doing} {id_}"):
            sandbox = change(id_)
        changed.append(sandbox)
        if not json:
            print(shown(sandbox).rstrip(), flush=True)
    if json:
        print_json(changed)


def kept(sandbox: Sandbox) -> str:
    """What is kept of one that rests, and where; empty for one that runs."""
    rest = sandbox.rest
    if rest is None:
        return ""
    if rest.grade is PauseGrade.FROZEN:
        return "in memory"
    return f"{'all' if rest.memory else 'files'} on disk, {rest.size_mib:.1f} MiB"


def print_json(content: Any) -> None:
    """A model, a list of models, or plain data."""
    print(json.dumps(_plain(content)))


def _plain(content: Any) -> Any:
    if isinstance(content, BaseModel):
        return content.model_dump(mode="json")
    if isinstance(content, list | tuple):
        return [_plain(item) for item in content]
    return content


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Aligned columns; nothing around them, and nothing cut off: a narrow terminal wraps the lines itself."""
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    Console(soft_wrap=True, width=_WIDE).print(table)


def since(moment: datetime) -> str:
    """How long ago, roughly."""
    return span((datetime.now(UTC) - moment).total_seconds())


def span(seconds: float) -> str:
    """A duration, roughly."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"

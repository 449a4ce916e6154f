"""Several things at once, with the first failure raised as itself and not inside a group."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import anyio

Action = Callable[[], Coroutine[Any, Any, None]]


async def together(*actions: Action) -> None:
    """Run all to their ends; the first that fails cancels the others."""
    with _unwrapped():
        async with anyio.create_task_group() as group:
            for action in actions:
                group.start_soon(action)


async def race(*actions: Action) -> None:
    """Run all until the first ends or fails; the others are cancelled."""
    with _unwrapped():
        async with anyio.create_task_group() as group:

            async def run(action: Action) -> None:
                await action()
                group.cancel_scope.cancel()

            for action in actions:
                group.start_soon(run, action)


@contextmanager
def _unwrapped() -> Iterator[None]:
    first: BaseException | None = None
    try:
        yield
    except BaseExceptionGroup as failures:
        first = failures
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
    if first is not None:
        raise first

"""Keeps the pools as full as they should be, in the background and giving way to what callers wait for."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

import anyio
import anyio.abc

from skerry.errors import Error
from skerry.node.gate import BootGate
from skerry.node.pool import Pool
from skerry.node.unit import Unit

logger = logging.getLogger(__name__)

TICK_S = 1.0
"""How often a pool looks again without being told that something changed."""
SETTLE_S = 0.1
"""From a claim to the start of the refill for it: the claim's own first calls come then, and go before."""
SETTLE_EMPTY_S = 0.01
"""The same when the pool is empty and the next claim would have to start cold."""
_RETRY_MAX_S = 60.0


class Refill:
    """One task for each pool.

    Args:
        prepare: makes what a pool's sandboxes are started from.
        start: starts a pool's sandbox, ready to be claimed.
        remove: removes one that is no longer wanted.
    """

    def __init__(
        self,
        group: anyio.abc.TaskGroup,
        gate: BootGate,
        prepare: Callable[[Pool], Awaitable[None]],
        start: Callable[[Pool], Awaitable[Unit]],
        remove: Callable[[Unit], None],
    ) -> None:
        self._group = group
        self._gate = gate
        self._prepare = prepare
        self._start = start
        self._remove = remove

    def look_after(self, pool: Pool) -> anyio.CancelScope:
        """Begin to keep `pool` filled; cancel the scope to stop."""
        scope = anyio.CancelScope()
        self._group.start_soon(self._keep, pool, scope, name=f"pool {pool.template.name}")
        return scope

    async def _keep(self, pool: Pool, scope: anyio.CancelScope) -> None:
        with scope:
            async with anyio.create_task_group() as starts:
                while True:
                    changed = pool.changed
                    for _ in range(pool.missing(time.monotonic())):
                        pool.starting += 1
                        starts.start_soon(self._start_one, pool)
                    surplus = pool.surplus(time.monotonic())
                    if surplus is not None:
                        self._remove(surplus)
                    with anyio.move_on_after(TICK_S):
                        await changed.wait()
                        await anyio.sleep(SETTLE_S if len(pool) else SETTLE_EMPTY_S)

    async def _start_one(self, pool: Pool) -> None:
        try:
            if pool.failures:
                await anyio.sleep(min(_RETRY_MAX_S, 0.5 * 2**pool.failures))
            await self._prepare(pool)
            async with self._gate.enter(background=True):
                # While it waited for its turn, the demand may have passed.
                if len(pool) + pool.starting <= pool.target(time.monotonic()):
                    pool.put(await self._start(pool))
            pool.failures = 0
        except Error as error:
            pool.failures += 1
            logger.warning("cannot refill the pool of %s: %s %s", pool.template.name, error.message, error.details)
        except Exception:
            pool.failures += 1
            logger.exception("cannot refill the pool of %s", pool.template.name)
        finally:
            pool.starting -= 1

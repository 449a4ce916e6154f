"""Forks of a sandbox with a heap of 64 MiB: how long until all answer, and what memory each takes."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from bench import procs
from bench.api import RawApi
from bench.byhand import BEST, ByHand, by_hand, keep, only_state
from bench.density import Groups
from bench.report import SuiteResult
from bench.rounds import turns
from bench.server import Server, pool_of, started
from bench.settings import Settings

HEAP_MIB = 64
COUNTS = (1, 10, 50)
AT_A_TIME = os.cpu_count() or 1
SETTLE_S = 10.0


async def measure(settings: Settings, result: SuiteResult) -> None:
    data = settings.scratch / "forks"
    counts = (1, 2) if settings.quick else COUNTS
    with started(pool_of(0), data) as server, server.api() as api:
        parent = api.create(timeout_s=None)["id"]
        api.run_code(parent, f"import os; heap = os.urandom({HEAP_MIB} << 20)")
        api.call("POST", f"/v1/sandboxes/{parent}/pause", {"to_disk": True})
        kept = keep(only_state(data), settings.scratch / "kept-forks")
        api.call("POST", f"/v1/sandboxes/{parent}/resume", {})
        names = tuple(f"fork-{number}-" for number in range(max(counts)))
        async with by_hand(kept, settings.scratch / "hand-forks", ("parent", *names)) as hand:
            for count in counts:
                await _times(settings, result, server, api, parent, hand, names[:count])
        for count in counts[1:]:
            with _forks(api, parent, count) as ids:
                for sandbox_id in ids:
                    api.run_code(sandbox_id, "1+1")
                _memory(result, groups_of(server), count)
        api.destroy(parent)
    shutil.rmtree(kept.directory)


@contextmanager
def _forks(api: RawApi, parent: str, count: int) -> Iterator[list[str]]:
    """Raises RuntimeError when one of them could not be made."""
    reply: dict[str, Any] = api.call("POST", f"/v1/sandboxes/{parent}/fork", {"count": count})
    ids = [item["sandbox"]["id"] for item in reply["items"] if item["sandbox"] is not None]
    try:
        if len(ids) < count:
            raise RuntimeError(f"{count - len(ids)} of {count} forks could not be made: {reply['items']}")
        yield ids
    finally:
        for sandbox_id in ids:
            api.destroy(sandbox_id)


async def _times(
    settings: Settings, result: SuiteResult, server: Server, api: RawApi, parent: str, hand: ByHand,
    names: tuple[str, ...],
) -> None:  # fmt: skip
    count, target = len(names), settings.scratch / "forked"

    async def ours() -> dict[str, float]:
        await server.settle(timeout_s=SETTLE_S)
        api.connect()
        start = time.perf_counter()
        with _forks(api, parent, count) as ids:
            made = time.perf_counter() - start
            for sandbox_id in ids:
                api.run_code(sandbox_id, "1+1")
            return {"made": made, "ours": time.perf_counter() - start}

    async def theirs() -> dict[str, float]:
        """A checkpoint, and as many restores of it, as many at a time as there are cores."""
        hand.restore(name="parent")
        await server.settle(timeout_s=SETTLE_S)
        start = time.perf_counter()
        hand.checkpoint(target, BEST, "--leave-running", name="parent")
        with ThreadPoolExecutor(AT_A_TIME) as threads:
            list(threads.map(lambda name: hand.restore(image=target, name=name), names))
        taken = time.perf_counter() - start
        for name in ("parent", *names):
            await hand.end(name)
        shutil.rmtree(target)
        return {"theirs": taken}

    times = await turns(
        [ours, theirs], settings.count({1: 10, 10: 4}.get(count, 2), 1), warm_up=count == 1,
        budget_s=settings.seconds(120, 30),
    )  # fmt: skip
    subject = result.measure(f"fork of {count}, until all have answered a `run_code`", times["ours"], note="HTTP")
    result.measure(f"fork of {count}, until the call returns", times["made"], note="HTTP")
    bare = result.measure(
        f"`runsc checkpoint --leave-running`, then {count} × `runsc restore`, by hand", times["theirs"]
    )
    result.compare(f"fork of {count} until all answer ÷ checkpoint and {count} × restore by hand", subject, bare)


def groups_of(server: Server) -> Groups:
    """The control groups of the sandboxes that this server runs."""
    own = procs.children(server.pid)
    return Groups({
        group: pids for group, pids in procs.by_cgroup().items() if own.intersection(pids) and server.pid not in pids
    })  # fmt: skip


def _memory(result: SuiteResult, groups: Groups, count: int) -> None:
    memory = groups.memory()
    name = f"memory of one of {count} forks and their parent, heap of {HEAP_MIB} MiB"
    for kind, samples in (
        ("resident, with what is shared", [one.rss for one in memory]),
        ("PSS", [one.pss for one in memory]),
        ("private", [one.private for one in memory]),
        ("control group", groups.charged_mib()),
    ):
        result.measure(name, samples, "MiB", kind)

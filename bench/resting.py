"""Many sandboxes at rest on the disk: what they cost while nobody asks for them."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench.api import RawApi
from bench.forks import groups_of
from bench.report import Check, SuiteResult
from bench.rounds import took
from bench.server import Server, pool_of, started
from bench.settings import Settings

WITH_MEMORY = 24
"""As many keep their memory; the others, which are made in a third of the time, their files only."""
LIST_S = 1.0
PAGE = 1000
AT_A_TIME = 3
GROWTH_MIB = 48.0
"""Of the server, that counts as no memory for a thousand: what it keeps is in its database."""


async def measure(settings: Settings, result: SuiteResult) -> None:
    count = 1000 if settings.thousand else settings.count(100, 6)
    data = settings.scratch / "resting"
    with started(pool_of(0), data) as server:
        await server.settle(timeout_s=10)
        _lay(server, 4, 0)  # what the server loads at its first pause is no cost of a sandbox
        before, begun = server.memory(), time.monotonic()
        _lay(server, count - 4, WITH_MEMORY)
        whole = min(WITH_MEMORY, count - 4)
        result.facts[f"{count} at rest: made"] = (
            f"{whole} paused with their memory, {count - whole} with their files only; each by a create and a pause, "
            f"in {time.monotonic() - begun:.0f} s"
        )
        await server.settle(timeout_s=30)
        _show(settings, result, server, count, server.memory().pss - before.pss)
    size = sum(path.stat().st_blocks * 512 for path in (data / "states").rglob("*") if path.is_file())
    result.facts[f"{count} at rest: on the disk"] = f"{size / count / 2**20:.1f} MiB each"
    with started(pool_of(0), data) as server, server.api() as api:
        ids = _listed(api)
        woken = [took(lambda sandbox_id=sandbox_id: api.run(sandbox_id, ["true"])) for sandbox_id in ids[:: count // 5]]  # type: ignore[misc]
        result.measure(f"first `exec` in one of {count} at rest, after a restart of the server", woken, note="HTTP")
    shutil.rmtree(data)


def _lay(server: Server, count: int, with_memory: int) -> None:
    def one(number: int) -> None:
        with server.api() as api:
            sandbox_id = api.create(timeout_s=None)["id"]
            memory = number < with_memory
            api.call("POST", f"/v1/sandboxes/{sandbox_id}/pause", {"keep_memory": memory, "to_disk": True})

    with ThreadPoolExecutor(AT_A_TIME) as threads:
        list(threads.map(one, range(count)))


def _listed(api: RawApi) -> list[str]:
    items: list[dict[str, Any]] = api.call("GET", f"/v1/sandboxes?state=paused&limit={PAGE}")["items"]
    return [item["id"] for item in items]


def _show(settings: Settings, result: SuiteResult, server: Server, count: int, grown: float) -> None:
    with server.api() as api:
        found = len(_listed(api))
        times = [took(lambda: _listed(api)) for _ in range(settings.count(20, 3))]
    if found != count:
        result.failures.append(f"{found} of {count} sandboxes at rest were listed")
    listed = result.measure(f"list of {count} at rest", times, note="HTTP, one page")
    if listed is not None:
        worst = listed.summary.maximum
        result.checks.append(
            Check(f"list of {count} at rest, the slowest", f"{worst * 1000:.0f} ms", "≤ 1 s", worst <= LIST_S)
        )
    left = len(groups_of(server).pids)
    result.checks.append(Check(f"sandboxes at rest of which a process runs, of {count}", str(left), "none", not left))
    name = f"server memory, {count} at rest"
    result.checks.append(Check(name, f"{grown:+.1f} MiB PSS", f"≤ +{GROWTH_MIB:g} MiB", grown <= GROWTH_MIB))

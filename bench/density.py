"""What a sandbox costs while it does nothing: memory of its own, memory of the server, CPU."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass

import anyio

from bench import procs
from bench.api import RawApi
from bench.report import Check, SuiteResult
from bench.server import Server, pool_of, started
from bench.settings import Settings

UNCLAIMED_CPU_PERCENT = 1.0
ROOT = "/skerry/"


@dataclass(frozen=True, slots=True)
class Groups:
    """The control groups of the sandboxes of one server."""

    pids: Mapping[str, list[int]]

    @property
    def parent(self) -> str:
        """The group that holds them all; it also counts the CPU of those that ended."""
        return posixpath.dirname(next(iter(self.pids)))

    def memory(self) -> list[procs.Memory]:
        return [procs.memory(pids) for pids in self.pids.values()]

    def charged_mib(self) -> list[float]:
        return [procs.group_memory_mib(group) for group in self.pids]


def sandbox_groups(server_pid: int, others: Mapping[str, list[int]]) -> Groups:
    """Skerry's control groups that were not there in `others` (a look taken before this server started)."""
    now = procs.by_cgroup()
    return Groups({
        group: pids for group, pids in now.items() if ROOT in group and group not in others and server_pid not in pids
    })  # fmt: skip


async def cpu_percent(groups: Groups, server: Server, during_s: float) -> tuple[float, float]:
    """Of one core: all sandboxes together, and the server."""
    sandboxes, own = procs.group_cpu_s(groups.parent), procs.cpu_s(server.pid)
    await anyio.sleep(during_s)
    used = procs.group_cpu_s(groups.parent) - sandboxes, procs.cpu_s(server.pid) - own
    return 100 * used[0] / during_s, 100 * used[1] / during_s


async def run(settings: Settings) -> SuiteResult:
    result = SuiteResult("density", "What an idle sandbox costs")
    for count in (1, 2) if settings.quick else (1, 20, 100):
        await _unclaimed(settings, result, count)
    for count in (1, 2) if settings.quick else (1, 20, 100):
        await _claimed(settings, result, count)
    return result


async def _unclaimed(settings: Settings, result: SuiteResult, count: int) -> None:
    """In the pool: booted, interpreter warm, frozen."""
    others = procs.by_cgroup()
    with started(pool_of(count)) as server:
        if not await server.settle(count, timeout_s=60 + 2 * count):
            result.failures.append(f"the pool did not reach {count} sandboxes, or never came to rest")
        groups = sandbox_groups(server.pid, others)
        if not groups.pids:
            result.failures.append(f"no sandbox's control group was found with a pool of {count}")
            return
        _memory(result, f"{count} unclaimed (frozen, interpreter warm)", groups)
        result.facts[f"server with {count} unclaimed"] = _shown(server.memory())
        sandboxes, own = await cpu_percent(groups, server, settings.seconds(20, 2))
    name = f"CPU of {count} unclaimed sandboxes, together"
    result.facts[f"CPU of the server with {count} unclaimed"] = f"{own:.2f} % of a core"
    if count >= 100 or settings.quick:
        met = sandboxes <= UNCLAIMED_CPU_PERCENT
        result.checks.append(Check(name, f"{sandboxes:.2f} % of a core", f"≤ {UNCLAIMED_CPU_PERCENT:g} %", met))
    else:
        result.facts[name] = f"{sandboxes:.2f} % of a core"


async def _claimed(settings: Settings, result: SuiteResult, count: int) -> None:
    """Claimed and idle: started cold, so without an interpreter at first; then each has run a piece of code."""
    others = procs.by_cgroup()
    with started(pool_of(0)) as server, server.api() as api:
        before = server.memory().pss
        ids = [api.create(timeout_s=None)["id"] for _ in range(count)]
        await _idle(settings, result, server, others, f"{count} claimed, no code run yet")
        for sandbox_id in ids:
            api.run_code(sandbox_id, "1+1")
        await _idle(settings, result, server, others, f"{count} claimed, interpreter warm")
        per_sandbox = (server.memory().pss - before) / count
        result.facts[f"server memory per claimed sandbox, at {count}"] = f"{per_sandbox:.2f} MiB"
        _destroy(api, ids)


async def _idle(
    settings: Settings, result: SuiteResult, server: Server, others: Mapping[str, list[int]], name: str
) -> None:
    await anyio.sleep(settings.seconds(10, 1))
    groups = sandbox_groups(server.pid, others)
    if not groups.pids:
        result.failures.append(f"no sandbox's control group was found: {name}")
        return
    _memory(result, name, groups)
    sandboxes, own = await cpu_percent(groups, server, settings.seconds(20, 2))
    result.facts[f"CPU of {name}, together"] = f"{sandboxes:.2f} % of a core (server {own:.2f} %)"


def _destroy(api: RawApi, ids: list[str]) -> None:
    for sandbox_id in ids:
        api.destroy(sandbox_id)


def _memory(result: SuiteResult, name: str, groups: Groups) -> None:
    memory = groups.memory()
    result.measure(f"memory of one of {name}", [one.pss for one in memory], "MiB", "PSS")
    result.measure(f"memory of one of {name}", [one.private for one in memory], "MiB", "private")
    result.measure(f"memory of one of {name}", groups.charged_mib(), "MiB", "control group")


def _shown(memory: procs.Memory) -> str:
    return f"{memory.pss:.1f} MiB PSS, {memory.private:.1f} MiB private"

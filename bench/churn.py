"""Create → run_code → destroy, over and over: how many a second, and what bounds it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import anyio
from anyio import to_thread

from bench import baselines, procs
from bench.density import sandbox_groups
from bench.report import SuiteResult
from bench.server import Server, started
from bench.settings import Settings
from skerry import AsyncSandbox

CONCURRENCIES = (1, 2, 4)


@dataclass(frozen=True, slots=True)
class Cpu:
    """CPU seconds used so far."""

    machine: dict[str, float]
    server: float
    sandboxes: float
    client: float

    def split(self, earlier: Cpu, cores: int) -> str:
        """Who used the machine since `earlier`, in % of all its cores."""
        spent = {kind: value - earlier.machine.get(kind, 0.0) for kind, value in self.machine.items()}
        total = sum(spent.values()) or 1.0
        busy = total - spent["idle"] - spent["iowait"] - spent["steal"]
        kernel = spent["system"] + spent["irq"] + spent["softirq"]
        parts = {
            "server": self.server - earlier.server,
            "sandboxes (runsc and what runs in them)": self.sandboxes - earlier.sandboxes,
            "client": self.client - earlier.client,
        }
        parts["other"] = max(0.0, busy - sum(parts.values()))
        shares = [f"{name} {100 * value / total:.0f} %" for name, value in parts.items()]
        summary = f"busy {100 * busy / total:.0f} % of {cores} cores: {', '.join(shares)}"
        waits = 100 * spent["iowait"] / total
        return f"{summary}; in kernel mode {100 * kernel / total:.0f} %, waiting for disks {waits:.0f} %"


def _cpu(server: Server, parent: str) -> Cpu:
    return Cpu(procs.machine_cpu_s(), procs.cpu_s(server.pid), procs.group_cpu_s(parent), time.process_time())


async def _cycles(
    server: Server, concurrency: int, seconds: float
) -> tuple[list[float], list[str], float, dict[str, int]]:
    """Times of all whole cycles, what failed, how long it took, and where the sandboxes came from."""
    times, errors, origins = list[float](), list[str](), dict[str, int]()
    start = time.perf_counter()

    async def worker() -> None:
        while time.perf_counter() - start < seconds and len(errors) < 10:
            begun = time.perf_counter()
            try:
                async with await AsyncSandbox.create(**server.sdk_options) as sandbox:
                    await sandbox.run_code("1+1")
                origins[str(sandbox.created.origin)] = origins.get(str(sandbox.created.origin), 0) + 1
                times.append(time.perf_counter() - begun)
            except Exception as error:
                errors.append(f"{type(error).__name__}: {error}")

    async with anyio.create_task_group() as group:
        for _ in range(concurrency):
            group.start_soon(worker)
    return times, errors, time.perf_counter() - start, origins


async def _runsc_per_s(by_hand: baselines.Runsc, concurrency: int, seconds: float) -> float:
    """`runsc run true` by hand at the same concurrency."""
    count, start = 0, time.perf_counter()

    async def worker() -> None:
        nonlocal count
        while time.perf_counter() - start < seconds:
            await to_thread.run_sync(partial(by_hand.run, "true"))
            count += 1

    async with anyio.create_task_group() as group:
        for _ in range(concurrency):
            group.start_soon(worker)
    return count / (time.perf_counter() - start)


async def run(settings: Settings) -> SuiteResult:
    """Skerry and the baseline take turns at each concurrency; the pool is full when a turn begins, so the length of a
    turn is chosen to leave it far behind."""
    result = SuiteResult("churn", "Create → run_code → destroy, sustained")
    by_hand = baselines.Runsc(settings.rootfs, settings.scratch / "runsc-churn")
    seconds, turns = settings.seconds(15, 2), settings.count(3, 1)
    others = procs.by_cgroup()
    with started() as server:
        await server.settle()
        parent = await _parent(server, others)
        for concurrency in CONCURRENCIES:
            rates, bare, times = list[float](), list[float](), list[float]()
            for _ in range(turns):
                before = _cpu(server, parent)
                taken, errors, elapsed, origins = await _cycles(server, concurrency, seconds)
                after = _cpu(server, parent)
                rates.append(len(taken) / elapsed)
                times += taken
                result.failures += errors[:3]
                await server.settle()
                bare.append(await _runsc_per_s(by_hand, concurrency, seconds / 2))
                await server.settle()
            result.facts[f"{concurrency} at a time: CPU"] = after.split(before, len(os.sched_getaffinity(0)))
            result.facts[f"{concurrency} at a time: origin"] = ", ".join(f"{n} {name}" for name, n in origins.items())
            ours = result.measure(
                f"cycles a second, {concurrency} at a time", rates, "/s", f"SDK; turns of {seconds:g} s"
            )
            theirs = result.measure(f"`runsc run true` a second, {concurrency} at a time", bare, "/s", "by hand")
            result.measure(f"one whole cycle, {concurrency} at a time", times, note="SDK")
            result.compare(f"cycles ÷ `runsc run true` a second, {concurrency} at a time", ours, theirs)
    return result


async def _parent(server: Server, others: Mapping[str, list[int]]) -> str:
    """The control group that holds all sandboxes of this server: seen from one of them."""
    async with await AsyncSandbox.create(**server.sdk_options):
        return sandbox_groups(server.pid, others).parent

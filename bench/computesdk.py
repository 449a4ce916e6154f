"""Create-and-first-command in the shape of the public ComputeSDK benchmark: one after another, staggered, all at once.

One iteration: create, a shell probe of the sandbox's identity, `node -v`; the clock stops; destroy. A marker that an
earlier iteration left is a hard failure: the sandbox was used before.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field

import anyio

from bench import baselines
from bench.identity import PROBE, SIGNALS, SUSPICIOUS, Identities, parse_identity
from bench.report import Check, SuiteResult
from bench.server import Server, started
from bench.settings import Settings
from bench.stats import composite_score, summarize, trimmed
from skerry import AsyncSandbox

STAGGER_S = 0.2
ITERATION_TIMEOUT_S = 120.0


@dataclass(slots=True)
class Mode:
    """What one way of launching found: seconds to interactive of those that worked, and why the others did not."""

    times: list[float] = field(default_factory=list[float])
    errors: list[str] = field(default_factory=list[str])
    launched: float = 0.0
    first_ready: float = 0.0
    last_ready: float = 0.0
    by_origin: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def success_rate(self) -> float:
        total = len(self.times) + len(self.errors)
        return len(self.times) / total if total else 0.0


async def _interactive(server: Server, identities: Identities, mode: Mode) -> None:
    """One iteration; whatever goes wrong is an error of this one only."""
    sandbox = None
    start = time.perf_counter()
    try:
        with anyio.fail_after(ITERATION_TIMEOUT_S):
            sandbox = await AsyncSandbox.create(**server.sdk_options)
            probe = await sandbox.exec(["sh", "-c", PROBE, "sh", secrets.token_hex(8)])
            if probe.returncode != 0:
                raise RuntimeError(f"the probe ended with {probe.returncode}: {probe.stderr}")
            identities.check(parse_identity(probe.stdout))
            node = await sandbox.exec(["node", "-v"])
            if node.returncode != 0:
                raise RuntimeError(f"node -v ended with {node.returncode}: {node.stderr}")
        now = time.perf_counter()
        mode.times.append(now - start)
        mode.first_ready, mode.last_ready = mode.first_ready or now, now
    except Exception as error:
        mode.errors.append(f"{type(error).__name__}: {error}")
    finally:
        if sandbox is not None:
            await _destroy(sandbox, mode)


async def _destroy(sandbox: AsyncSandbox, mode: Mode) -> None:
    origin = str(sandbox.created.origin)
    mode.by_origin[origin] = mode.by_origin.get(origin, 0) + 1
    try:
        with anyio.fail_after(30):
            await sandbox.kill()
    except Exception as error:
        mode.errors.append(f"destroy: {type(error).__name__}: {error}")


async def _sequential(server: Server, identities: Identities, count: int) -> Mode:
    mode = Mode(launched=time.perf_counter())
    for _ in range(count):
        await _interactive(server, identities, mode)
    return mode


async def _together(server: Server, identities: Identities, count: int, delay_s: float) -> Mode:
    mode = Mode(launched=time.perf_counter())
    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(_interactive, server, identities, mode)
            if delay_s:
                await anyio.sleep(delay_s)
    return mode


def _record(result: SuiteResult, name: str, mode: Mode) -> None:
    rate = mode.success_rate
    result.checks.append(Check(f"{name}: success", f"{100 * rate:.1f} %", "100 %", rate == 1.0))
    if mode.times:
        result.measure(f"{name}: time to interactive", mode.times, note="SDK")
        result.measure(f"{name}: the same, trimmed as ComputeSDK does", trimmed(mode.times))
        result.facts[f"{name}: wall time, first request → last ready"] = f"{mode.last_ready - mode.launched:.2f} s"
        result.facts[f"{name}: time to first ready"] = f"{1000 * (mode.first_ready - mode.launched):.0f} ms"
        result.facts[f"{name}: ComputeSDK score"] = f"{composite_score(mode.times, rate):.1f} of 100"
        result.facts[f"{name}: origin"] = ", ".join(f"{n} {origin}" for origin, n in sorted(mode.by_origin.items()))
    result.failures += [f"{name}: {error}" for error in mode.errors[:5]]


async def run(settings: Settings) -> SuiteResult:
    """The baseline runs before and after, not between: it would give the pool time to refill that no caller gives."""
    result = SuiteResult("computesdk", "In the shape of the ComputeSDK benchmark")
    by_hand = baselines.Runsc(settings.rootfs, settings.scratch / "runsc-computesdk")
    count, identities, bare = settings.count(100, 4), Identities(), list[float]()

    def baseline() -> None:
        for _ in range(settings.count(15, 2)):
            start = time.perf_counter()
            by_hand.run("node", "-v")
            bare.append(time.perf_counter() - start)

    with started() as server:
        baseline()
        await server.settle()
        modes = {"sequential": await _sequential(server, identities, count)}
        await server.settle()
        modes["staggered 200 ms"] = await _together(server, identities, count, STAGGER_S)
        await server.settle()
        modes["burst"] = await _together(server, identities, count, 0)
        await server.settle()
        baseline()
    for name, mode in modes.items():
        _record(result, f"{name} {count}", mode)
    runsc = result.measure("`runsc run node -v` by hand", bare, note="before and after")
    for measured in [m for m in result.measurements if m.name.endswith("interactive")]:
        result.compare(f"{measured.name.partition(':')[0]} ÷ `runsc run node -v`", measured, runsc)
    if modes["burst"].times and runsc:
        per_s = len(modes["burst"].times) / (modes["burst"].last_ready - modes["burst"].launched)
        result.facts["burst: sandboxes made interactive per second"] = f"{per_s:.1f}"
        result.facts["one `runsc run node -v` after another, per second"] = f"{1 / summarize(bare).median:.1f}"
    suspected = identities.most_repeated >= SUSPICIOUS
    most = f"{identities.most_repeated} of {len(SIGNALS)}"
    result.checks.append(
        Check("identity signals that repeat between sandboxes", most, f"< {SUSPICIOUS}", not suspected)
    )
    return result

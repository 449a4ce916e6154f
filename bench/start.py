"""How fast a sandbox starts and answers: claims, first results, cold starts, exec and run_code round trips."""

from __future__ import annotations

import json
import time

from bench import baselines
from bench.api import RawApi
from bench.report import SuiteResult
from bench.rounds import Sampler, interleave, timed, timed_async
from bench.server import Server, pool_of, started
from bench.settings import Settings
from skerry import AsyncSandbox

POOL = 4
SETTLE_S = 5.0
"""Longest wait for rest before one sample: on a machine that never rests, measure all the same."""

SPAWN_LOOP = """
import json, os, time
times = []
for _ in range(10):
    start = time.perf_counter()
    pid = os.posix_spawn("/bin/true", ["true"], {"PATH": "/usr/bin:/bin"})
    os.waitpid(pid, 0)
    times.append(time.perf_counter() - start)
print(json.dumps(times[1:]))
"""
"""The same fork and exec as `exec true`, without any of Skerry: the floor inside."""

PIPED_SPAWN_LOOP = """
import json, subprocess, time
times = []
for _ in range(10):
    start = time.perf_counter()
    subprocess.run(["/bin/true"], stdin=subprocess.DEVNULL, capture_output=True, start_new_session=True)
    times.append(time.perf_counter() - start)
print(json.dumps(times[1:]))
"""
"""And with what `exec` must do besides: two pipes read to their end, a session of its own."""


async def run(settings: Settings) -> SuiteResult:
    result = SuiteResult("start", "How fast a sandbox starts and answers")
    by_hand = baselines.Runsc(settings.rootfs, settings.scratch / "runsc-start")
    with started(pool_of(POOL)) as server:
        await _claims(settings, result, server, by_hand)
        await _round_trips(settings, result, server, by_hand)
    with started(pool_of(0)) as server:
        await _cold(settings, result, server, by_hand)
    return result


# --- claims -------------------------------------------------------------------------------------------------------


async def _claims(settings: Settings, result: SuiteResult, server: Server, by_hand: baselines.Runsc) -> None:
    not_pooled = 0

    with server.api() as api:

        async def claim() -> float | None:
            nonlocal not_pooled
            start = time.perf_counter()
            created = api.create()
            taken = time.perf_counter() - start
            api.destroy(created["id"])
            not_pooled += created["origin"] != "pool"
            return taken if created["origin"] == "pool" else None

        async def raw_first_result() -> float:
            start = time.perf_counter()
            created = api.create()
            api.run_code(created["id"], "1+1")
            taken = time.perf_counter() - start
            api.destroy(created["id"])
            return taken

        async def sdk_first_result() -> float:
            start = time.perf_counter()
            sandbox = await AsyncSandbox.create(**server.sdk_options)
            await sandbox.run_code("1+1")
            taken = time.perf_counter() - start
            await sandbox.kill()
            return taken

        async def settle() -> None:
            await server.settle(POOL, SETTLE_S)
            api.connect()

        samplers: dict[str, Sampler] = {
            "claim": claim,
            "raw": raw_first_result,
            "sdk": sdk_first_result,
            "runsc": timed(lambda: by_hand.run("true")),
            "python": timed(lambda: by_hand.run("python3", "-c", "print(1+1)")),
            **baselines.others(settings.rootfs),
        }
        times = await interleave(
            samplers, settings.count(60, 3), before_each=settle, budget_s=settings.seconds(400, 60)
        )
    runsc = result.measure("`runsc run true` by hand", times.pop("runsc"))
    python = result.measure("`runsc run python3 -c 'print(1+1)'` by hand", times.pop("python"))
    claimed = result.measure("claim of a warm sandbox", times.pop("claim"), note="HTTP")
    raw = result.measure("create → first `run_code('1+1')` result", times.pop("raw"), note="HTTP, 2 requests")
    sdk = result.measure("create → first `run_code('1+1')` result", times.pop("sdk"), note="SDK")
    for name, samples in times.items():
        result.measure(name, samples)
    result.compare("claim ÷ `runsc run true`", claimed, runsc, 0.06)
    result.compare("create → first result (SDK) ÷ `runsc run python3`", sdk, python, 0.12)
    result.compare("create → first result (HTTP) ÷ `runsc run python3`", raw, python)
    result.facts["claims that found the pool empty (not counted)"] = str(not_pooled)


# --- in a running sandbox -----------------------------------------------------------------------------------------


async def _round_trips(settings: Settings, result: SuiteResult, server: Server, by_hand: baselines.Runsc) -> None:
    async with await AsyncSandbox.create(timeout=None, **server.sdk_options) as sandbox:
        with server.api() as api:
            await _exec(settings, result, api, sandbox, by_hand)
            await _run_code(settings, result, api, sandbox)


async def _exec(
    settings: Settings, result: SuiteResult, api: RawApi, sandbox: AsyncSandbox, by_hand: baselines.Runsc
) -> None:
    async def loop(code: str) -> list[float]:
        process = await sandbox.exec(["python3", "-c", code])
        times: list[float] = json.loads(process.stdout)
        return times

    async def looped() -> list[float]:
        """As many in a row as the loops inside do: after a pause every start costs more, whoever makes it."""
        times = []
        for _ in range(10):
            start = time.perf_counter()
            api.run(sandbox.id, ["true"])
            times.append(time.perf_counter() - start)
        return times[1:]

    with by_hand.running() as sleeper:
        samplers: dict[str, Sampler] = {
            "http": timed(lambda: api.run(sandbox.id, ["true"])),
            "sdk": timed_async(lambda: sandbox.exec(["true"])),
            "looped": looped,
            "runsc": timed(lambda: by_hand.exec(sleeper, "true")),
            "spawn": lambda: loop(SPAWN_LOOP),
            "piped": lambda: loop(PIPED_SPAWN_LOOP),
        }
        times = await interleave(samplers, settings.count(100, 3), warm_up=2, budget_s=settings.seconds(200, 30))
    http = result.measure("`exec true`", times["http"], note="HTTP")
    result.measure("`exec true`", times["sdk"], note="SDK")
    in_a_row = result.measure("`exec true`, some in a row", times["looped"], note="HTTP")
    runsc = result.measure("`runsc exec true` by hand", times["runsc"])
    spawn = result.measure("`posix_spawn` of true in a loop inside", times["spawn"])
    piped = result.measure("the same with pipes and a session, inside", times["piped"])
    result.compare("`exec true` ÷ `runsc exec true`", http, runsc, 0.5)
    result.compare("`exec true` in a row ÷ the same fork+exec inside (pipes, session)", in_a_row, piped, 1.3)
    result.compare("`exec true` in a row ÷ bare `posix_spawn` inside", in_a_row, spawn)


async def _run_code(settings: Settings, result: SuiteResult, api: RawApi, sandbox: AsyncSandbox) -> None:
    samplers: dict[str, Sampler] = {
        "http": timed(lambda: api.run_code(sandbox.id, "1+1")),
        "sdk": timed_async(lambda: sandbox.run_code("1+1")),
        "echo": timed(lambda: api.text("/health")),
    }
    times = await interleave(samplers, settings.count(500, 10), warm_up=5, budget_s=settings.seconds(60, 10))
    http = result.measure("`run_code('1+1')` round trip", times["http"], note="HTTP")
    result.measure("`run_code('1+1')` round trip", times["sdk"], note="SDK")
    echo = result.measure("HTTP echo on the same server", times["echo"], note="GET /health")
    result.compare("`run_code` round trip ÷ HTTP echo", http, echo, 4.0)


# --- cold ---------------------------------------------------------------------------------------------------------


async def _cold(settings: Settings, result: SuiteResult, server: Server, by_hand: baselines.Runsc) -> None:
    pooled = 0
    with server.api() as api:

        async def cold() -> float:
            nonlocal pooled
            start = time.perf_counter()
            created = api.create()
            api.run(created["id"], ["true"])
            taken = time.perf_counter() - start
            api.destroy(created["id"])
            pooled += created["origin"] != "cold"
            return taken

        async def settle() -> None:
            await server.settle(timeout_s=SETTLE_S)
            api.connect()

        samplers: dict[str, Sampler] = {"cold": cold, "runsc": timed(lambda: by_hand.run("true"))}
        times = await interleave(
            samplers, settings.count(60, 3), before_each=settle, budget_s=settings.seconds(200, 40)
        )
    subject = result.measure("cold create → first exec, no pool", times["cold"], note="HTTP")
    runsc = result.measure("`runsc run true` by hand, beside the cold creates", times["runsc"])
    result.compare("cold create → first exec ÷ `runsc run true`", subject, runsc, 1.25)
    if pooled:
        result.failures.append(f"{pooled} creates were not cold though the pool is off")

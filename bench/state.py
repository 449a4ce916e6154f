"""What it costs to let a sandbox rest and go on: pauses, resumes, snapshots; beside `runsc` by hand on the same bytes.

Forks are measured in `forks`, many sandboxes at rest in `resting`, what each choice of ours bought in `choices`.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from bench import choices, forks, resting, steps
from bench.api import RawApi
from bench.baselines import call
from bench.byhand import BEST, ByHand, Kept, by_hand, keep, only_state
from bench.report import Measurement, SuiteResult, shown
from bench.rounds import took, turns
from bench.server import PROGRAM, Server, pool_of, started
from bench.settings import Settings

HEAPS_MIB = (16, 64, 256, 1024)
USUAL_MIB = 64
SETTLE_S = 3.0
"""Longest wait for rest before one sample: on a machine that never rests, measure all the same."""
TO_DISK = {"to_disk": True}

TICKER = """
import threading, time
worst = [0.0]
def tick():
    last = time.time()
    while True:
        time.sleep(0.001)
        now = time.time()
        worst[0], last = max(worst[0], now - last), now
threading.Thread(target=tick, daemon=True).start()
"""
"""Inside: the longest time in which nothing of it ran, by its own clock."""


class Subject:
    """A sandbox with a heap of random bytes."""

    def __init__(self, server: Server, api: RawApi, heap_mib: int) -> None:
        self._server, self._api = server, api
        self.id: str = api.create(timeout_s=None, memory_mib=2 * heap_mib + 512)["id"]
        self.code(f"import os; heap = os.urandom({heap_mib} << 20)")

    def code(self, code: str) -> dict[str, Any]:
        return self._api.run_code(self.id, code)

    def delete_snapshot(self, snapshot_id: str) -> None:
        self._api.call("DELETE", f"/v1/snapshots/{snapshot_id}")

    def call(self, what: str, **spec: Any) -> Any:
        return self._api.call("POST", f"/v1/sandboxes/{self.id}/{what}", spec)

    async def settle(self) -> None:
        await self._server.settle(timeout_s=SETTLE_S)
        self._api.connect()

    async def rest_and_go_on(self) -> dict[str, float]:
        """One that is paused on the disk, and in the end is again."""
        await self.settle()
        resume = took(lambda: self.call("resume"))
        first = took(lambda: self.code("1+1"))
        await self.settle()
        self.call("pause")
        await self.settle()
        frozen = took(lambda: (self.call("resume"), self.code("1+1")))
        await self.settle()
        pause = took(lambda: self.call("pause", **TO_DISK))
        return {"resume": resume, "resume and code": resume + first, "frozen": frozen, "pause": pause}


async def run(settings: Settings) -> SuiteResult:
    result = SuiteResult("state", "Sandboxes that rest, and go on")
    growth: dict[str, dict[int, Measurement | None]] = {"ours": {}, "theirs": {}}
    for heap_mib in HEAPS_MIB[:2] if settings.quick else HEAPS_MIB:
        growth["ours"][heap_mib], growth["theirs"][heap_mib] = await _at_rest(settings, result, heap_mib)
    least, most = min(growth["ours"]), max(growth["ours"])
    for name, of in (("resume from disk", growth["ours"]), ("`runsc restore` by hand", growth["theirs"])):
        result.compare(f"{name}: heap of {most} MiB ÷ heap of {least} MiB", of[most], of[least])
    await _steps(settings, result)
    await choices.measure(settings, result)
    await forks.measure(settings, result)
    await resting.measure(settings, result)
    return result


# --- pause and resume ---------------------------------------------------------------------------------------------


async def _at_rest(
    settings: Settings, result: SuiteResult, heap_mib: int
) -> tuple[Measurement | None, Measurement | None]:
    """Returns the resumes from disk, and the restores by hand."""
    data = settings.scratch / f"state-{heap_mib}"
    with started(pool_of(0), data) as server, server.api() as api:
        subject = Subject(server, api, heap_mib)
        subject.call("pause", **TO_DISK)
        kept = keep(only_state(data), settings.scratch / f"kept-{heap_mib}")
        rounds, budget_s = settings.count(20 if heap_mib <= USUAL_MIB else 10, 2), settings.seconds(150, 30)
        async with by_hand(kept, settings.scratch / f"hand-{heap_mib}") as hand:
            theirs = partial(_theirs, subject, hand, kept, settings.scratch / "written")
            times = await turns([subject.rest_and_go_on, theirs], rounds, budget_s=budget_s)
            if heap_mib == USUAL_MIB:
                subject.call("resume")
                await _snapshots(settings, result, subject, hand)
    shutil.rmtree(kept.directory)
    shutil.rmtree(data)
    return _show(result, heap_mib, times)


async def _theirs(subject: Subject, hand: ByHand, kept: Kept, target: Path) -> dict[str, float]:
    await subject.settle()
    grouped = took(lambda: hand.restore(grouped=True))
    await hand.end()
    await subject.settle()
    restore = took(hand.restore)
    await subject.settle()
    checkpoint = took(lambda: hand.checkpoint(target, BEST))
    await hand.end()
    shutil.rmtree(target)
    await subject.settle()
    command = ["cp", "-r", "--reflink=never", "--sparse=always", str(kept.directory), str(target)]
    copy = took(lambda: call(command))
    shutil.rmtree(target)
    return {"grouped": grouped, "restore": restore, "checkpoint": checkpoint, "cp": copy}


def _show(
    result: SuiteResult, heap_mib: int, times: Mapping[str, list[float]]
) -> tuple[Measurement | None, Measurement | None]:
    heap = f"heap of {heap_mib} MiB"
    restore = result.measure(f"`runsc restore` by hand, {heap}", times["restore"])
    name = f"`runsc restore` by hand, in a control group as a sandbox's, {heap}"
    grouped = result.measure(name, times["grouped"])
    checkpoint = result.measure(f"`runsc checkpoint` by hand, {heap}", times["checkpoint"])
    copy = result.measure(f"`cp` of what is kept, {heap}", times["cp"])
    pause = result.measure(f"pause to disk, {heap}", times["pause"], note="HTTP")
    resume = result.measure(f"resume from disk, {heap}", times["resume"], note="HTTP")
    code = result.measure(f"resume from disk → first `run_code`, {heap}", times["resume and code"], note="HTTP")
    frozen = result.measure(f"resume of a frozen one → first `run_code`, {heap}", times["frozen"], note="HTTP")
    result.compare(f"frozen resume → first `run_code` ÷ `runsc restore`, {heap}", frozen, restore, 0.15)
    result.compare(f"pause to disk ÷ `runsc checkpoint`, {heap}", pause, checkpoint, 1.3)
    result.compare(f"pause to disk ÷ `cp`, {heap}", pause, copy)
    result.compare(f"resume from disk ÷ `runsc restore`, {heap}", resume, restore, 1.3)
    result.compare(f"resume from disk ÷ `runsc restore` in such a control group, {heap}", resume, grouped)
    result.compare(f"resume from disk → first `run_code` ÷ `runsc restore`, {heap}", code, restore)
    return resume, restore


# --- snapshots ----------------------------------------------------------------------------------------------------


async def _snapshots(settings: Settings, result: SuiteResult, subject: Subject, hand: ByHand) -> None:
    target = settings.scratch / "snapshot"
    subject.code(TICKER)
    hand.restore()

    async def ours() -> dict[str, float]:
        await subject.settle()
        subject.code("worst[0] = 0.0")
        start = time.perf_counter()
        snapshot = subject.call("snapshots")
        whole = time.perf_counter() - start
        inside = float(subject.code("print(worst[0])")["stdout"])
        subject.delete_snapshot(snapshot["id"])
        return {"pause": snapshot["pause_s"], "inside": inside, "whole": whole}

    async def theirs() -> dict[str, float]:
        await subject.settle()
        taken = took(lambda: hand.checkpoint(target, BEST, "--leave-running"))
        shutil.rmtree(target)
        return {"bare": taken}

    times = await turns([ours, theirs], settings.count(20, 2), budget_s=settings.seconds(100, 20))
    await hand.end()
    bare = result.measure("`runsc checkpoint --leave-running` by hand", times["bare"])
    told = result.measure("snapshot of a running one: how long it stood still, as the reply tells", times["pause"])
    inside = result.measure("snapshot of a running one: longest gap of a loop inside, by its clock", times["inside"])
    result.measure("snapshot of a running one, until it is written and sealed", times["whole"], note="HTTP")
    result.compare("snapshot: stood still, as told ÷ `runsc checkpoint --leave-running`", told, bare)
    result.compare("snapshot: stood still, as seen inside ÷ `runsc checkpoint --leave-running`", inside, bare)


# --- where the time goes ------------------------------------------------------------------------------------------


async def _steps(settings: Settings, result: SuiteResult) -> None:
    out = settings.scratch / "steps.jsonl"
    with started(pool_of(0), program=("-m", "bench.steps", str(out), *PROGRAM[2:])) as server, server.api() as api:
        subject = Subject(server, api, USUAL_MIB)
        subject.call("pause", **TO_DISK)
        out.unlink()  # of the start, and of a first time
        for _ in range(settings.count(12, 2)):
            await subject.settle()
            subject.call("resume")
            await subject.settle()
            subject.call("pause", **TO_DISK)
    found = steps.medians(out)
    for title, parts in (("pause to disk", steps.PAUSE), ("resume from disk", steps.RESUME)):
        named = [f"{name} {shown(found[name], 's')}" for name in parts if name in found]
        result.facts[f"where a {title} goes, heap of {USUAL_MIB} MiB, medians"] = "; ".join(named)

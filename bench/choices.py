"""What each way of keeping a sandbox costs and saves: the options of a checkpoint, the page cache, the seal, the disk.

By hand, on one sandbox whose memory is a quarter random, a quarter the same words again, and half zeros.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.baselines import BaselineFailed, call
from bench.byhand import BEST, ByHand, Kept, by_hand, keep, only_state
from bench.report import SuiteResult
from bench.rounds import Sampler, Turn, interleave, timed_async, took, turns
from bench.server import Server, pool_of, started
from bench.settings import Settings
from skerry.host.sparse import copy_sparse
from skerry.node.states import States
from skerry.ports import State

SETTLE_S = 3.0
MIB = 1024 * 1024
MEMORY = """
import os
noise = os.urandom(32 << 20)
words = bytearray(b"the same words again, and " * ((32 << 20) // 26))
zeros = bytearray(64 << 20)
zeros[::4096] = bytes(len(zeros) // 4096)
"""
CHECKPOINTS = {
    "no compression": (BEST,),
    "flate": ("--compression=flate-best-speed",),
    "without zero pages": (BEST, "--exclude-committed-zero-pages"),
    "O_DIRECT": (BEST, "--direct"),
}
PLAIN = "no compression"
DISK_MIB = 64


async def measure(settings: Settings, result: SuiteResult) -> None:
    data, images = settings.scratch / "choices", settings.scratch / "choices-images"
    images.mkdir()
    with started(pool_of(0), data) as server, server.api() as api:
        sandbox_id = api.create(timeout_s=None)["id"]
        api.run_code(sandbox_id, MEMORY)
        api.call("POST", f"/v1/sandboxes/{sandbox_id}/pause", {"to_disk": True})
        kept = keep(only_state(data), settings.scratch / "kept-choices")
        async with by_hand(kept, settings.scratch / "hand-choices") as hand:
            await _checkpoints(settings, result, server, hand, images)
            await _restores(settings, result, server, hand, images)
    await _seal(settings, result, kept)
    await _disks(settings, result)
    for path in (kept.directory, data, images):
        shutil.rmtree(path)


async def _checkpoints(
    settings: Settings, result: SuiteResult, server: Server, hand: ByHand, images: Path
) -> None:  # fmt: skip
    """In the end there is an image of each kind."""
    hand.restore()

    def turn(name: str, options: tuple[str, ...]) -> Turn:
        async def one() -> dict[str, float]:
            shutil.rmtree(images / name, ignore_errors=True)
            await server.settle(timeout_s=SETTLE_S)
            return {name: took(lambda: hand.checkpoint(images / name, *options, "--leave-running"))}

        return one

    kinds = [turn(name, options) for name, options in CHECKPOINTS.items()]
    times = await turns(kinds, settings.count(12, 1), budget_s=settings.seconds(90, 30))
    await hand.end()
    plain = result.measure(f"`runsc checkpoint` by hand, {PLAIN}", times[PLAIN])
    for name in CHECKPOINTS:
        size = sum(path.stat().st_blocks * 512 for path in (images / name).iterdir())
        result.facts[f"checkpoint of 32 MiB noise, 32 MiB words, 64 MiB zeros, {name}"] = f"{size / MIB:.1f} MiB"
        if name != PLAIN:
            measured = result.measure(f"`runsc checkpoint` by hand, {name}", times[name])
            result.compare(f"`runsc checkpoint`: {name} ÷ {PLAIN}", measured, plain)


async def _restores(settings: Settings, result: SuiteResult, server: Server, hand: ByHand, images: Path) -> None:
    def turn(name: str, image: Path, *options: str, before: Callable[[], object] | None = None) -> Turn:
        async def one() -> dict[str, float]:
            await server.settle(timeout_s=SETTLE_S)
            if before is not None:
                before()
            taken = took(lambda: hand.restore(*options, image=image))
            await hand.end()
            return {name: taken}

        return one

    def warned() -> None:
        _drop(images / PLAIN)
        _read_ahead(images / PLAIN)

    created = "into one that was created before"
    kinds = [turn(name, images / name) for name in CHECKPOINTS if name != "O_DIRECT"]
    kinds.append(turn("O_DIRECT", images / PLAIN, "--direct"))
    kinds.append(turn("not in the page cache", images / PLAIN, before=lambda: _drop(images / PLAIN)))
    kinds.append(turn("not in the page cache, but read ahead", images / PLAIN, before=warned))
    kinds.append(turn(created, images / PLAIN, before=hand.create))
    times = await turns(kinds, settings.count(12, 1), budget_s=settings.seconds(150, 40))
    plain = result.measure(f"`runsc restore` by hand, {PLAIN}", times.pop(PLAIN))
    for name, samples in times.items():
        measured = result.measure(f"`runsc restore` by hand, {name}", samples)
        result.compare(f"`runsc restore`: {name} ÷ {PLAIN}, in the page cache", measured, plain)


def _open_all(image: Path) -> Iterator[int]:
    for path in image.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        yield descriptor
        os.close(descriptor)


def _drop(image: Path) -> None:
    for descriptor in _open_all(image):
        os.fdatasync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def _read_ahead(image: Path) -> None:
    for descriptor in _open_all(image):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)


async def _seal(settings: Settings, result: SuiteResult, kept: Kept) -> None:
    """A state is read and hashed once by each server; then a look at its files is enough."""
    directory = settings.scratch / "choices-seal"
    keep(kept.directory, directory / "one")
    seal = await States(directory).seal("one")
    state, known = State("one", True, 0, seal), States(directory)
    await known.verify(state)

    samplers = {
        "first": timed_async(lambda: States(directory).verify(state)),
        "known": timed_async(lambda: known.verify(state)),
    }
    times = await interleave(samplers, settings.count(20, 2), budget_s=60)
    once = result.measure("verification of what is kept, by a server's first look", times["first"])
    again = result.measure("verification of what is kept, known to this server", times["known"])
    result.compare("verification: known ÷ first", again, once)
    shutil.rmtree(directory)


async def _disks(settings: Settings, result: SuiteResult) -> None:
    directory = settings.scratch / "choices-disk"
    directory.mkdir()
    disk, copy = directory / "disk.img", directory / "copy"
    with disk.open("wb") as file:
        for _ in range(DISK_MIB):
            file.write(os.urandom(MIB))
        file.truncate(4096 * MIB)

    def again(action: Callable[[], object]) -> Sampler:
        async def sample() -> float:
            copy.unlink(missing_ok=True)
            return took(action)

        return sample

    samplers = {"copy": again(lambda: copy_sparse(disk, copy)), "link": again(lambda: copy.hardlink_to(disk))}
    times = await interleave(samplers, settings.count(20, 2), budget_s=60)
    copied = result.measure(f"copy of a disk with {DISK_MIB} MiB written", times["copy"])
    linked = result.measure(f"second name for a disk with {DISK_MIB} MiB written", times["link"])
    result.compare("disk: second name (pause) ÷ copy (snapshot)", linked, copied)
    try:
        call(["cp", "--reflink=always", str(disk), str(directory / "shared")])
        shares = "yes: a copy is one"
    except BaselineFailed:
        shares = "no: this file system cannot, so a copy is of the written blocks"
    result.facts["copies of disks share their blocks (reflink)"] = shares
    shutil.rmtree(directory)

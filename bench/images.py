"""The start of a sandbox costs the same however large its image is: templates with more and more files beside base.

The images are kept in a directory of the benchmark's own, which borrows base's layers and is removed at the end.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from bench.api import RawApi
from bench.report import SuiteResult
from bench.rounds import Sampler, interleave
from bench.server import Server, pool_of, started
from bench.settings import Settings
from skerry import AsyncTemplate, Image
from skerry.config import Settings as ServerSettings
from skerry.host.images import Images

BASE = "base"
GIB = 1024
SIZES_MIB = {"100 MiB more": 100, "1 GiB more": 1 * GIB, "4 GiB more": 4 * GIB}
QUICK_SIZES_MIB = {"10 MiB more": 10}
FILES = 5000
"""Small files beside the large ones, in 100 directories."""
LARGE = 8
LIMIT = 1.25
ROOM = 3
"""The disk must have that many times the largest image free: a build writes it twice."""
SETTLE_S = 5.0


class NoRoom(Exception):
    """The disk is too small for the largest image."""


async def run(settings: Settings) -> SuiteResult:
    result = SuiteResult("images", "Start and size of the image")
    sizes = QUICK_SIZES_MIB if settings.quick else SIZES_MIB
    directory, data = settings.scratch / "images", settings.scratch / "images-data"
    free_mib = shutil.disk_usage(settings.scratch).free // 2**20
    if free_mib < ROOM * max(sizes.values()):
        raise NoRoom(f"cannot build an image of {max(sizes.values())} MiB: {settings.scratch} has {free_mib} MiB free")
    _borrow(ServerSettings().images_dir, BASE, directory)
    own = {"SKERRY_IMAGES_DIR": str(directory)}
    names = {BASE: BASE, **{label: f"bench-{size}" for label, size in sizes.items()}}
    # Cold is from the image, whatever may be ready of it.
    with started({**own, **pool_of(0), "SKERRY_WARM_RESTORE": "false"}, data) as server:
        for label, size_mib in sizes.items():
            await _build(result, server, names[label], label, size_mib)
        await _cold(settings, result, server, names)
    with started({**own, **pool_of(1)}, data) as server:
        await _claims(settings, result, server, names)
    return result


def _borrow(store: Path, template: str, directory: Path) -> None:
    """An images directory that has one template of another one, without copying its files."""
    source = Images(store)
    image = source.template(template).image
    Images(directory)
    for relative in (f"templates/{template}.json", f"images/{image.removeprefix('sha256:')}.json"):
        shutil.copy(store / relative, directory / relative)
    for tree in source.trees(image):
        (directory / "layers" / tree.name).symlink_to(tree)


async def _build(result: SuiteResult, server: Server, name: str, label: str, size_mib: int) -> None:
    small = (
        f"for d in $(seq {FILES // 100}); do mkdir -p /srv/small/$d; "
        "for f in $(seq 100); do echo $d $f > /srv/small/$d/$f; done; done"
    )
    each = size_mib * 2**20 // LARGE
    large = f"mkdir -p /srv/large; for f in $(seq {LARGE}); do head -c {each} /dev/urandom > /srv/large/$f; done"
    base = await AsyncTemplate.get(BASE, **server.sdk_options)
    limits = base.limits
    start = time.perf_counter()
    built = await AsyncTemplate.build(
        Image.from_template(BASE).run(small, user="root").run(large, user="root"), name, cpu=limits.cpu,
        memory=limits.memory_mib, disk=limits.disk_mib, pids=limits.pids, **server.sdk_options,
    )  # fmt: skip
    result.facts[f"{label}: the image"] = (
        f"{built.size_mib:.0f} MiB (base {base.size_mib:.0f}), built in {time.perf_counter() - start:.0f} s"
    )


async def _cold(settings: Settings, result: SuiteResult, server: Server, names: Mapping[str, str]) -> None:
    strangers = 0
    with server.api() as api:

        def cold(template: str) -> Sampler:
            async def sample() -> float:
                nonlocal strangers
                start = time.perf_counter()
                created = api.create(template=template)
                api.run(created["id"], ["true"])
                taken = time.perf_counter() - start
                api.destroy(created["id"])
                strangers += created["origin"] != "cold"
                return taken

            return sample

        async def settle() -> None:
            await server.settle(timeout_s=SETTLE_S)
            api.connect()

        samplers = {label: cold(name) for label, name in names.items()}
        times = await interleave(
            samplers, settings.count(30, 3), before_each=settle, budget_s=settings.seconds(240, 40)
        )
    _compare(result, "cold create → first exec", times)
    if strangers:
        result.failures.append(f"{strangers} creates were not cold though the pool is off")


async def _claims(settings: Settings, result: SuiteResult, server: Server, names: Mapping[str, str]) -> None:
    missed = 0
    with server.api() as api:

        def claim(template: str) -> Sampler:
            async def sample() -> float | None:
                nonlocal missed
                start = time.perf_counter()
                created = api.create(template=template)
                taken = time.perf_counter() - start
                api.destroy(created["id"])
                missed += created["origin"] != "pool"
                return taken if created["origin"] == "pool" else None

            return sample

        async def settle() -> None:
            await server.settle(len(names), SETTLE_S)
            api.connect()

        for name in names.values():
            _use(api, name)  # from the first use on, its pool is kept filled
        await server.settle(len(names), 120.0)
        samplers = {label: claim(name) for label, name in names.items()}
        times = await interleave(
            samplers, settings.count(40, 3), before_each=settle, budget_s=settings.seconds(240, 40)
        )
    _compare(result, "claim of a warm sandbox", times)
    result.facts["claims that found the pool empty (not counted)"] = str(missed)


def _use(api: RawApi, template: str) -> None:
    api.destroy(api.create(template=template)["id"])


def _compare(result: SuiteResult, what: str, times: Mapping[str, list[float]]) -> None:
    base = result.measure(f"{what}, {BASE}", times[BASE], note="HTTP")
    for label, samples in times.items():
        if label != BASE:
            measured = result.measure(f"{what}, {label}", samples, note="HTTP")
            result.compare(f"{what}: {label} ÷ base", measured, base, LIMIT)

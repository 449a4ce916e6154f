"""What is asked of builds. How they are carried out is in test_making."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from skerry.core import Core, builds
from skerry.errors import InvalidRequest, LimitExceeded, NotFound, TemplateNotFound
from skerry.models import Build, BuildState, Limits, Recipe

from .test_making import Bench, carried_out
from .test_recipes import step
from .test_sandboxes import Engine, core_on

pytestmark = pytest.mark.anyio
LIMITS = Limits(cpu=1, memory_mib=512, disk_mib=100, pids=64)
BASE = Recipe(from_template="base")


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine()
    engine.benches = lambda image, limits: Bench([])
    yield engine
    engine.close()


@pytest.fixture
async def core(tmp_path: Path, engine: Engine) -> AsyncIterator[Core]:
    async with core_on(tmp_path, engine) as core:
        yield core


class Stuck(Bench):
    """A workbench on which no step ends."""

    def __init__(self) -> None:
        super().__init__([])
        self.begun = anyio.Event()

    async def commit(self) -> str:
        self.begun.set()
        await anyio.sleep_forever()
        return ""


async def test_a_log_is_followed_to_its_end(core: Core) -> None:
    steps = [step("run", "one"), step("run", "fail")]
    build = await core.builds.build("t", "app", [], LIMITS, Recipe(from_template="base", steps=steps))
    for _ in range(2):  # while it grows, and afterwards
        followed = [event async for event in core.builds.follow("t", build.template_id, build.id)]
        last = followed[-1]
        assert isinstance(last, Build)
        assert last.state is BuildState.FAILED
        assert followed[:-1] == last.log


async def test_a_build_that_its_server_did_not_finish_has_failed(tmp_path: Path, engine: Engine) -> None:
    async with core_on(tmp_path, engine) as core:
        build, _ = await core.builds.request("t", "app", [], LIMITS)
    async with core_on(tmp_path, engine) as core:
        found = await core.builds.get("t", build.template_id, build.id)
        assert (found.state, found.step) == (BuildState.FAILED, "base")
        with pytest.raises(NotFound):
            await core.builds.begin("t", build.template_id, build.id, BASE)


async def test_old_builds_that_no_tag_means_are_forgotten(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await carried_out(core, BASE)
    second = await carried_out(core, BASE)
    failed = await carried_out(core, Recipe(from_template="nosuch"))
    await core.builds.tidy()  # they are young
    assert (await core.builds.get("t", first.template_id, first.id)).state is BuildState.READY
    monkeypatch.setattr(builds, "UNNAMED_KEPT_S", 0.0)
    await core.builds.tidy()
    for gone in (first, failed):
        with pytest.raises(NotFound):
            await core.builds.get("t", gone.template_id, gone.id)
    assert (await core.templates.get("t", "app")).build_id == second.id
    assert list(core.builds._images.kept) == [second.id]  # type: ignore[attr-defined]


async def test_what_cannot_begin_leaves_nothing(core: Core) -> None:
    build, tags = await core.builds.request("t", "app:v2", ["x"], LIMITS)
    assert tags == ["v2", "x"]
    with pytest.raises(InvalidRequest, match="only one of them"):
        await core.builds.begin("t", build.template_id, build.id, Recipe())
    with pytest.raises(InvalidRequest, match="only one of them"):
        await core.builds.build("t", "other", [], LIMITS, Recipe())
    with pytest.raises(TemplateNotFound):
        await core.templates.record("t", "other")
    with pytest.raises(TemplateNotFound):
        await core.builds.begin("other", build.template_id, build.id, BASE)


async def test_a_template_that_is_removed_ends_its_builds(core: Core, engine: Engine) -> None:
    bench = Stuck()
    engine.benches = lambda image, limits: bench
    recipe = Recipe(from_template="base", steps=[step("run", "x")])
    build = await core.builds.build("t", "app", [], LIMITS, recipe)
    with anyio.fail_after(5):
        await bench.begun.wait()
        async with anyio.create_task_group() as group:
            told = anyio.Event()

            async def follow() -> None:
                events = core.builds.follow("t", build.template_id, build.id)
                await anext(events)
                told.set()
                with pytest.raises(TemplateNotFound):
                    async for _ in events:
                        pass

            group.start_soon(follow)
            await told.wait()
            await core.builds.remove("t", "app")
    assert core.builds._images.kept == {}  # type: ignore[attr-defined]


async def test_only_a_build_that_takes_too_long_is_late(
    core: Core, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(Bench):
        async def commit(self) -> str:
            raise TimeoutError("a connection's")

    recipe = Recipe(from_template="base", steps=[step("run", "x")])
    engine.benches = lambda image, limits: Broken([])
    build = await carried_out(core, recipe)
    assert (build.state, build.step) == (BuildState.FAILED, "1")
    assert "fault of the server" in (build.message or "")
    engine.benches = lambda image, limits: Stuck()
    monkeypatch.setattr(builds, "BUILD_TIMEOUT_S", 0.2)
    build = await carried_out(core, recipe)
    assert (build.state, build.step) == (BuildState.FAILED, "1")
    assert "took more than" in (build.message or "")


async def test_builds_that_wait_are_bounded(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builds, "WAITING_MAX", 1)
    await core.builds.request("t", "app", [], LIMITS)
    with pytest.raises(LimitExceeded, match="wait to be begun"):
        await core.builds.request("t", "app", [], LIMITS)
    await core.builds.request("another", "app", [], LIMITS)
    await core.builds.remove("t", "app")
    await core.builds.request("t", "app", [], LIMITS)


async def test_bounds_hold_for_many_at_once(core: Core, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builds, "WAITING_MAX", 2)
    monkeypatch.setattr(builds, "BUILDING_MAX", 1)
    engine.benches = lambda image, limits: Stuck()
    recipe = Recipe(from_template="base", steps=[step("run", "x")])
    waiting: list[Build] = []
    refused: list[LimitExceeded] = []

    async def request(name: str) -> None:
        try:
            build, _ = await core.builds.request("t", name, [], LIMITS)
        except LimitExceeded as error:
            refused.append(error)
        else:
            waiting.append(build)

    async def begin(build: Build) -> None:
        try:
            await core.builds.begin("t", build.template_id, build.id, recipe)
        except LimitExceeded as error:
            refused.append(error)

    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(request, f"app{number}")
    assert (len(waiting), len(refused)) == (2, 3)
    async with anyio.create_task_group() as group:
        for build in waiting:
            group.start_soon(begin, build)
    assert len(refused) == 4


async def test_what_cannot_be_stored_does_not_count(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builds, "WAITING_MAX", 1)
    monkeypatch.setattr(builds, "BUILDING_MAX", 1)
    save = core.builds._store.save

    async def broken(build: Build) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(core.builds._store, "save", broken)
    with pytest.raises(OSError, match="disk full"):
        await core.builds.request("t", "app", [], LIMITS)
    monkeypatch.setattr(core.builds._store, "save", save)
    build, _ = await core.builds.request("t", "app", [], LIMITS)
    monkeypatch.setattr(core.builds._store, "save", broken)
    with pytest.raises(OSError, match="disk full"):
        await core.builds.begin("t", build.template_id, build.id, BASE)
    monkeypatch.setattr(core.builds._store, "save", save)
    assert (await carried_out(core, BASE)).state is BuildState.READY

"""Sandboxes from their request to their end, on an engine that only says it provides them."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from skerry.core import Core
from skerry.core.builds import Builds
from skerry.core.making import Workshop
from skerry.core.quota import Storage
from skerry.core.templates import Templates
from skerry.core.uploads import Uploads
from skerry.core.volumes import Volumes
from skerry.errors import (
    HostFull,
    ImageUnreachable,
    SandboxLost,
    SandboxNotFound,
    SnapshotDamaged,
    TemplateNotFound,
    Unauthenticated,
)
from skerry.models import (
    End,
    EndCode,
    Image,
    KeySpec,
    Limits,
    OnTimeout,
    Process,
    Registry,
    SandboxSpec,
    SandboxState,
    SandboxStats,
    SandboxUpdate,
    Template,
)
from skerry.ports import Death, Placement, Provided, State, Wanted
from skerry.store.builds import SqlBuilds
from skerry.store.snapshots import SqlSnapshots
from skerry.store.sql import SqlStore
from skerry.store.volumes import SqlVolumes

from .memory_disks import MemoryDisks

pytestmark = pytest.mark.anyio


class Quiet:
    """The agent of a sandbox in which nothing runs."""

    async def processes(self) -> list[Process]:
        return []


@dataclass
class Standing:
    """A sandbox that stands still."""

    engine: Engine
    sandbox_id: str

    async def save(self, state_id: str, *, memory: bool, last: bool = False) -> State:
        await anyio.sleep(self.engine.delay_s)
        if self.engine.cannot_save:
            raise self.engine.cannot_save
        self.engine.states[state_id] = self.sandbox_id
        return State(state_id, memory, 2**20)


class Engine:
    """Provides names, and remembers what it was asked."""

    def __init__(self) -> None:
        self.running: dict[str, Placement | None] = {}
        self.internet: dict[str, bool] = {}
        self.fails: Exception | None = None
        self.delay_s = 0.0
        self.survivors: list[str] = []
        self.frozen: set[str] = set()
        self.held: set[str] = set()
        self.states: dict[str, str] = {}
        """State → the sandbox whose it was."""
        self.cannot_save: Exception | None = None
        self.available = 10_000
        self.prepared: list[Template] = []
        self.benches: Callable[[str, Limits], Any] = lambda image, limits: None
        self._send, self._receive = anyio.create_memory_object_stream[Death](100)

    async def provide(self, placement: Placement) -> Provided:
        await anyio.sleep(self.delay_s)
        if self.fails:
            raise self.fails
        if placement.state is not None:
            await self.verify(placement.state)
        self.running[placement.sandbox_id] = placement
        return Provided(placement.sandbox_id, None, "pool", {})  # type: ignore[arg-type]

    async def adopt(self, wanted: Mapping[str, Wanted], states: Collection[str]) -> Sequence[Provided]:
        found = [name for name in wanted if name in self.survivors]
        self.running = dict.fromkeys(found)
        self.frozen = {name for name in found if wanted[name].frozen}
        self.states = {state: self.states.get(state, "") for state in states}
        return [Provided(name, None, "pool", {}) for name in found]  # type: ignore[arg-type]

    def _require(self, sandbox_id: str) -> None:
        if sandbox_id not in self.running:
            raise SandboxLost(f"{sandbox_id} does not live")

    async def freeze(self, sandbox_id: str) -> None:
        self._require(sandbox_id)
        self.frozen.add(sandbox_id)

    async def thaw(self, sandbox_id: str) -> None:
        self._require(sandbox_id)
        self.frozen.discard(sandbox_id)

    @asynccontextmanager
    async def hold(self, sandbox_id: str) -> AsyncIterator[Standing]:
        self._require(sandbox_id)
        assert sandbox_id not in self.frozen
        self.held.add(sandbox_id)
        try:
            yield Standing(self, sandbox_id)
        finally:
            self.held.discard(sandbox_id)

    async def seal(self, state: State) -> State:
        if state.id not in self.states:
            raise SnapshotDamaged("it is gone")
        return replace(state, seal=f"seal of {self.states[state.id]}")

    async def verify(self, state: State) -> None:
        if state.id not in self.states or state.seal not in (None, f"seal of {self.states[state.id]}"):
            raise SnapshotDamaged("it is another")

    async def copy_state(self, state: State, copy_id: str) -> State:
        await self.verify(replace(state, seal=None))
        self.states[copy_id] = self.states[state.id]
        return replace(state, id=copy_id)

    async def remove_state(self, state_id: str) -> None:
        self.states.pop(state_id, None)

    def available_mib(self) -> int:
        return self.available

    def agent(self, sandbox_id: str) -> Any:
        return Quiet()

    async def set_internet(self, sandbox_id: str, allowed: bool) -> None:
        self.internet[sandbox_id] = allowed

    async def stats(self, sandbox_id: str) -> SandboxStats:
        return SandboxStats(cpu_used_s=0, memory_used_mib=0, disk_used_mib=0, pids=0, oom_kills=0)

    @asynccontextmanager
    async def workbench(self, image: str, limits: Limits) -> AsyncIterator[Any]:
        bench = self.benches(image, limits)
        yield bench

    async def prepare(self, template: Template) -> None:
        self.prepared.append(template)

    async def destroy(self, sandbox_id: str) -> None:
        self.running.pop(sandbox_id, None)
        self.frozen.discard(sandbox_id)

    async def deaths(self) -> AsyncIterator[Death]:
        async for death in self._receive:
            yield death

    async def die(self, sandbox_id: str, code: EndCode, files: str | None = None) -> None:
        """`files`: the state that its files are kept as."""
        state = None
        if files is not None:
            self.states[files] = sandbox_id
            state = State(files, False, 2**20)
        await self._send.send(Death(sandbox_id, End(code=code, message="it died", at=datetime.now(UTC)), state))

    def close(self) -> None:
        self._send.close()
        self._receive.close()


class Shipped:
    """`ports.Templates`: one template."""

    def templates(self) -> list[Template]:
        return [self.template("base")]

    def template(self, name: str) -> Template:
        if name != "base":
            raise TemplateNotFound(f"no template {name}")
        limits = Limits(cpu=1, memory_mib=512, disk_mib=100, pids=64)
        return Template(
            name=name, image="sha256:x", limits=limits, languages=["python"], size_mib=1, built_at=datetime.now(UTC)
        )

    async def build(self, name: str) -> AsyncIterator[str]:
        yield "built"


class BuildImages:
    """`ports.Images` in memory."""

    def __init__(self) -> None:
        self.known: dict[str, Image] = {"sha256:x": Image(layers=["base layer"])}
        self.steps: dict[str, str] = {}
        self.kept: dict[str, str] = {}

    def image(self, digest: str) -> Image:
        return self.known[digest]

    def add(self, image: Image) -> str:
        digest = f"sha256:{hashlib.sha256(image.model_dump_json().encode()).hexdigest()}"
        self.known[digest] = image
        return digest

    def size_mib(self, image: Image) -> float:
        return float(len(image.layers))

    def keep(self, build_id: str, digest: str) -> None:
        self.kept[build_id] = digest

    def let_go(self, build_id: str) -> None:
        self.kept.pop(build_id, None)

    def known_layer(self, key: str) -> str | None:
        return self.steps.get(key)

    def remember_layer(self, key: str, layer: str) -> None:
        self.steps[key] = layer


class NoRegistry:
    """`ports.Puller` of a machine without a way out."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def pull(self, reference: str, credentials: Registry | None, log: Callable[[str], None]) -> Image:
        raise ImageUnreachable(f"cannot pull {reference}: no way out")


@asynccontextmanager
async def core_on(
    path: Path, engine: Engine, frozen_s: float = 60.0, quota_mib: int | None = None
) -> AsyncIterator[Core]:
    store = SqlStore(path / "db")
    build_store = SqlBuilds(store)
    templates = Templates(Shipped(), build_store)
    uploads, images = Uploads(path / "files"), BuildImages()
    workshop = Workshop(
        engine, templates, images, NoRegistry(), uploads,
        aliases={"e2bdev/base": "template:base", "far.example": "near.example:5000"}, stand_ins={"ubuntu": "base"},
    )  # fmt: skip
    builds = Builds(build_store, templates, images, workshop)
    disks = MemoryDisks()
    volumes = Volumes(disks, SqlVolumes(store), store, Storage(quota_mib), size_max_mib=10_000)
    core = Core(engine, store, templates, builds, uploads, SqlSnapshots(store), volumes, disks.files, frozen_s=frozen_s)
    async with anyio.create_task_group() as group:
        await core.start(group)
        yield core
        group.cancel_scope.cancel()
    await store.aclose()


async def until(look) -> Any:
    with anyio.fail_after(5):
        while not (answer := await look()):
            await anyio.sleep(0.01)
    return answer


async def test_limits_come_from_the_request_then_from_the_template(core: Core, engine: Engine) -> None:
    sandbox = await core.create("t", SandboxSpec(cpu=2.5, env={"A": "b"}))
    assert sandbox.limits == Limits(cpu=2.5, memory_mib=512, disk_mib=100, pids=64)
    assert engine.running[sandbox.id].env == {"A": "b"}
    with pytest.raises(TemplateNotFound):
        await core.create("t", SandboxSpec(template="other"))


async def test_a_tenants_sandboxes_are_its_own(core: Core) -> None:
    sandbox = await core.create("t", SandboxSpec())
    for call in (
        lambda: core.sandboxes.get("other", sandbox.id),
        lambda: core.sandboxes.destroy("other", sandbox.id),
        lambda: core.sandboxes.stats("other", sandbox.id),
        lambda: core.sandboxes.update("other", sandbox.id, SandboxUpdate(metadata={})),
        lambda: core.files.stat("other", sandbox.id, "/", user="user"),
    ):
        with pytest.raises(SandboxNotFound):
            await call()
    assert (await core.sandboxes.page("other")).items == []
    assert (await core.sandboxes.get("t", sandbox.id)).state is SandboxState.RUNNING


async def test_what_could_not_start_is_kept_with_its_reason(core: Core, engine: Engine) -> None:
    engine.fails = HostFull("no room")
    with pytest.raises(HostFull):
        await core.create("t", SandboxSpec(), "key")
    [failed] = (await core.sandboxes.page("t", states=[SandboxState.FAILED])).items
    assert failed.end is not None
    assert "no room" in failed.end.message
    engine.fails = None
    assert (await core.create("t", SandboxSpec(), "key")).state is SandboxState.RUNNING, "the key is free again"


async def test_one_key_at_once_makes_one_sandbox(core: Core, engine: Engine) -> None:
    engine.delay_s = 0.05
    made: list[str] = []

    async def create() -> None:
        made.append((await core.create("t", SandboxSpec(), "same")).id)

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(create)
    assert len(set(made)) == 1
    assert len(engine.running) == 1


async def test_a_caller_who_leaves_while_it_is_made_leaves_nothing(core: Core, engine: Engine) -> None:
    engine.delay_s = 60
    with anyio.move_on_after(0.05):
        await core.create("t", SandboxSpec())
    assert engine.running == {}
    [failed] = (await core.sandboxes.page("t", states=[SandboxState.FAILED])).items
    assert failed.end is not None


async def test_changes(core: Core, engine: Engine) -> None:
    sandbox = await core.create("t", SandboxSpec(timeout_s=100))
    changed = await core.sandboxes.update("t", sandbox.id, SandboxUpdate(internet=False, metadata={"a": "b"}))
    assert (changed.internet, changed.metadata, changed.expires_at) == (False, {"a": "b"}, sandbox.expires_at)
    assert engine.internet == {sandbox.id: False}
    assert (await core.sandboxes.update("t", sandbox.id, SandboxUpdate(timeout_s=None))).expires_at is None
    changed = await core.sandboxes.update("t", sandbox.id, SandboxUpdate(on_timeout=OnTimeout.PAUSE))
    assert changed.on_timeout is OnTimeout.PAUSE


async def test_destroying_twice_is_once(core: Core) -> None:
    sandbox = await core.create("t", SandboxSpec())
    await core.sandboxes.destroy("t", sandbox.id)
    await core.sandboxes.destroy("t", sandbox.id)
    assert len(await core.events.list("t", sandbox.id)) == 2
    with pytest.raises(SandboxNotFound):
        await core.sandboxes.destroy("t", "sbnone")


async def test_a_restart_takes_over_what_lives_and_tells_of_the_rest(tmp_path: Path, engine: Engine) -> None:
    async with core_on(tmp_path, engine) as core:
        kept = await core.create("t", SandboxSpec(timeout_s=None))
        lost = await core.create("t", SandboxSpec())
        over = await core.create("t", SandboxSpec(timeout_s=0.2))
    engine.survivors = [kept.id, over.id]
    await anyio.sleep(0.3)
    async with core_on(tmp_path, engine) as core:
        assert (await core.sandboxes.get("t", kept.id)).state is SandboxState.RUNNING
        assert (await core.sandboxes.get("t", lost.id)).end.code is EndCode.NODE_LOST

        async def end_of_it() -> End | None:
            return (await core.sandboxes.get("t", over.id)).end

        end = await until(end_of_it)
        assert end.code is EndCode.TIMEOUT, "its time went on"


async def test_keys(core: Core) -> None:
    key = await core.keys.create("t", KeySpec(name="n"))
    assert await core.keys.authenticate(key.secret) == "t"
    assert key.secret.startswith(key.prefix)
    await core.keys.revoke("t", key.id)
    for secret in (key.secret, "sk_wrong", "", None):
        with pytest.raises(Unauthenticated):
            await core.keys.authenticate(secret)


async def test_followers_hear_what_happens(core: Core) -> None:
    past = await core.create("t", SandboxSpec())
    async with core.events.follow("t") as events:
        assert (await anext(events)).sandbox_id == past.id
        await core.create("other", SandboxSpec())
        new = await core.create("t", SandboxSpec())
        with anyio.fail_after(5):
            assert (await anext(events)).sandbox_id == new.id

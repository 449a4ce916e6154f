"""Paused sandboxes go to the disk: after some time, when memory is short, when the server stops."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from skerry.errors import CannotSnapshot
from skerry.models import (
    EndCode,
    OnTimeout,
    PauseGrade,
    PauseSpec,
    Restart,
    RestartWhen,
    ResumeSpec,
    SandboxSpec,
    SandboxState,
)
from tests.core.test_sandboxes import Engine, core_on, until

pytestmark = pytest.mark.anyio


async def test_what_waits_long_in_memory_goes_to_the_disk(tmp_path: Path) -> None:
    engine = Engine()
    async with core_on(tmp_path, engine, frozen_s=0.1) as core:
        stubborn = await core.create("t", SandboxSpec(timeout_s=None))
        engine.cannot_save = CannotSnapshot("a deleted file")
        await core.lifecycle.pause("t", stubborn.id, PauseSpec())
        await anyio.sleep(0.4)
        assert engine.frozen == {stubborn.id}, "it stays where it is, and paused"
        engine.cannot_save = None
        sandbox = await core.create("t", SandboxSpec(timeout_s=None))
        await core.lifecycle.pause("t", sandbox.id, PauseSpec())

        async def on_disk() -> bool:
            rest = (await core.sandboxes.get("t", sandbox.id)).rest
            return rest is not None and rest.grade is PauseGrade.DISK

        await until(on_disk)
        assert engine.frozen == {stubborn.id}, "and it is not tried again at once"
    engine.close()


async def test_short_memory_sends_the_longest_paused_to_the_disk(tmp_path: Path) -> None:
    engine = Engine()
    async with core_on(tmp_path, engine, frozen_s=3600) as core:
        first, second = [await core.create("t", SandboxSpec(timeout_s=None)) for _ in range(2)]
        for sandbox in (first, second):
            await core.lifecycle.pause("t", sandbox.id, PauseSpec())
        engine.available = 10

        async def moved() -> bool:
            return first.id not in engine.frozen

        await until(moved)
        engine.available = 10_000
        assert (await core.sandboxes.get("t", first.id)).state is SandboxState.PAUSED
    engine.close()


async def test_what_a_stopping_server_lets_rest(tmp_path: Path) -> None:
    engine = Engine()
    async with core_on(tmp_path, engine) as core:
        pausing = await core.create("t", SandboxSpec(timeout_s=None, on_timeout=OnTimeout.PAUSE))
        always = await core.create("t", SandboxSpec(timeout_s=None, restart=Restart(when=RestartWhen.ALWAYS)))
        frozen = await core.create("t", SandboxSpec(timeout_s=None))
        await core.lifecycle.pause("t", frozen.id, PauseSpec())
        plain = await core.create("t", SandboxSpec(timeout_s=None))
        await core.stop()
        assert engine.running == {}
    async with core_on(tmp_path, engine) as core:
        for sandbox in (pausing, frozen):
            assert (await core.lifecycle.resume("t", sandbox.id, ResumeSpec())).state is SandboxState.RUNNING
        ended = await core.sandboxes.get("t", plain.id)
        assert ended.end is not None
        assert ended.end.code is EndCode.SERVER_STOPPED

        async def started() -> bool:
            return (await core.sandboxes.get("t", always.id)).state is SandboxState.RUNNING

        await until(started)
    engine.close()

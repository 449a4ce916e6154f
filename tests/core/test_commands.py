"""A sandbox's own command, and what its policy does when that ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from skerry.core.commands import STEADY_S, after
from skerry.errors import CannotStartProcess
from skerry.models import (
    EndCode,
    Exit,
    ExitReason,
    Process,
    Restart,
    RestartWhen,
    Sandbox,
    SandboxSpec,
    SandboxState,
    Started,
)
from tests.core.test_sandboxes import Engine, Shipped, core_on, until

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def sandbox(restarts: int = 0, started: datetime = NOW, **restart: Any) -> Sandbox:
    return Sandbox(
        id="sb", template="base", isolation="gvisor", state="running", limits=Shipped().template("base").limits,
        internet=True, metadata={}, created_at=NOW, expires_at=None, idle_timeout_s=None, started_at=started,
        restarts=restarts, restart=Restart(**restart),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("when", "code", "again"),
    [("no", 0, False), ("no", 1, False), ("on-failure", 0, False), ("on-failure", 1, True), ("always", 0, True)],
)
def test_a_policy_says_whether_it_starts_again(when: str, code: int, again: bool) -> None:
    change = after(sandbox(when=when), code, NOW)
    assert (change["restart_at"] is not None) == again
    assert change["last_exit"].exit_code == code


def test_the_back_off_doubles_up_to_five_minutes_and_retries_end() -> None:
    delays = [
        (after(sandbox(restarts, when="always", backoff_s=1), 1, NOW)["restart_at"] - NOW).total_seconds()
        for restarts in (0, 1, 2, 5, 9, 10_000)
    ]
    assert delays == [1, 2, 4, 32, 300, 300]
    assert after(sandbox(2, when="always", retries=3), 1, NOW)["restarts"] == 3
    assert after(sandbox(3, when="always", retries=3), 1, NOW)["restart_at"] is None


def test_a_long_run_begins_the_row_anew() -> None:
    long_ago = NOW - timedelta(seconds=STEADY_S)
    change = after(sandbox(3, long_ago, when="always", retries=3, backoff_s=1), 1, NOW)
    assert change["restarts"] == 1
    assert change["restart_at"] == NOW + timedelta(seconds=1)


class Program:
    """The agent of a sandbox whose command ends when it is told to."""

    def __init__(self) -> None:
        self.started: list[Sequence[str]] = []
        self.missing = False
        self.code: int | None = None
        self.told = anyio.Event()

    async def processes(self) -> list[Process]:
        return []

    @asynccontextmanager
    async def run(self, command: Sequence[str], **how: Any) -> AsyncIterator[AsyncIterator[Started]]:
        if self.missing:
            raise CannotStartProcess("there is no such program")
        self.started.append(command)

        async def events() -> AsyncIterator[Started]:
            yield Started(
                process=Process(pid=7, command=list(command), cwd="/", user="user", started_at=datetime.now(UTC))
            )

        yield events()

    @asynccontextmanager
    async def attach(self, pid: int, **_: Any) -> AsyncIterator[AsyncIterator[Exit]]:
        async def events() -> AsyncIterator[Exit]:
            while self.code is None:
                await self.told.wait()
            code, self.code, self.told = self.code, None, anyio.Event()
            yield Exit(exit_code=code, reason=ExitReason.EXITED, duration_s=1)

        yield events()

    def end(self, code: int) -> None:
        self.code = code
        self.told.set()


@pytest.fixture
def program(engine: Engine) -> Program:
    program = Program()
    engine.agent = lambda sandbox_id: program  # type: ignore[method-assign]
    return program


async def test_its_end_stops_the_sandbox(tmp_path: Path, engine: Engine, program: Program) -> None:
    async with core_on(tmp_path, engine) as core:
        made = await core.create("t", SandboxSpec(timeout_s=None, command="serve"))
        await until(_said(lambda: program.started))
        assert program.started == [["/bin/bash", "-l", "-c", "serve"]]
        program.end(3)

        async def stopped() -> Sandbox | None:
            found = await core.sandboxes.get("t", made.id)
            return found if found.state is SandboxState.STOPPED else None

        found = await until(stopped)
        assert (found.last_exit.exit_code, found.restart_at) == (3, None)


async def test_a_command_that_cannot_be_started_has_a_shells_exit_code(
    tmp_path: Path, engine: Engine, program: Program
) -> None:
    program.missing = True
    async with core_on(tmp_path, engine) as core:
        made = await core.create("t", SandboxSpec(timeout_s=None, command=["/no/such"]))

        async def code() -> int | None:
            last = (await core.sandboxes.get("t", made.id)).last_exit
            return None if last is None else last.exit_code

        assert await until(code) == 127


async def test_a_restart_that_is_due_is_made_also_by_a_later_server(
    tmp_path: Path, engine: Engine, program: Program
) -> None:
    restart = Restart(when=RestartWhen.ALWAYS, backoff_s=0.3)
    async with core_on(tmp_path, engine) as core:
        made = await core.create("t", SandboxSpec(timeout_s=None, command=["serve"], restart=restart))
        await until(_said(lambda: program.started))
        program.end(0)

        async def waits() -> bool:
            return (await core.sandboxes.get("t", made.id)).restart_at is not None

        await until(waits)
    async with core_on(tmp_path, engine) as core:

        async def runs() -> Sandbox | None:
            found = await core.sandboxes.get("t", made.id)
            return found if found.state is SandboxState.RUNNING else None

        found = await until(runs)
        assert (found.restarts, found.restart_at) == (1, None)
        await until(_said(lambda: len(program.started) == 2))


async def test_a_death_is_answered_with_the_files_that_were_left(
    tmp_path: Path, engine: Engine, program: Program
) -> None:
    restart = Restart(when=RestartWhen.ON_FAILURE, backoff_s=0.1)
    async with core_on(tmp_path, engine) as core:
        made = await core.create("t", SandboxSpec(timeout_s=None, restart=restart))
        placement = engine.running[made.id]
        assert placement is not None
        assert placement.is_durable
        await engine.die(made.id, EndCode.OUT_OF_MEMORY, files="st1")

        async def again() -> bool:
            found = await core.sandboxes.get("t", made.id)
            return found.state is SandboxState.RUNNING and found.restarts == 1

        await until(again)
        placement = engine.running[made.id]
        assert placement is not None
        assert placement.state is not None
        assert placement.state.id == "st1"
        await engine.die(made.id, EndCode.AGENT_VIOLATION, files="st2")

        async def ended() -> bool:
            failed = (await core.sandboxes.get("t", made.id)).state is SandboxState.FAILED
            return failed and engine.states == {}

        assert await until(ended), "a hostile one is not started again, and nothing of it is kept"


def _said(look: Callable[[], Any]) -> Callable[[], Any]:
    async def ask() -> Any:
        return look()

    return ask

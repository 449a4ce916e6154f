"""Code in contexts: the real agent as a process of this machine, the real interpreter, and one that misbehaves."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from skerry.agentlink import Link, Listener
from skerry.core import Core, contexts, runs
from skerry.errors import (
    ContextBusy,
    ContextNotFound,
    Error,
    LanguageNotFound,
    ProcessNotFound,
    SandboxLost,
    SandboxStartFailed,
)
from skerry.host.runtime import agent_binary
from skerry.models import CodeReply, CodeSpec, ContextSpec, Done, SandboxSpec, Stdout

from .test_sandboxes import Engine, core_on

pytestmark = pytest.mark.anyio
MAIN = Path(contexts.__file__).parents[1] / "interpreter" / "main.py"

# Does what the code says, word by word.
SCRIPTED = """
import json, os, signal, sys, time

def say(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)

say("ready")
for line in sys.stdin:
    request = json.loads(line)
    if request["op"] != "run":
        continue
    number, code = request["id"], request["code"]
    try:
        if code == "garbage":
            print("no event", flush=True)
        elif code == "wrong":
            say("stdout", id=number, text=5)
        elif code == "die":
            print("last words", file=sys.stderr, flush=True)
            os._exit(3)
        elif code == "deaf":
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        elif code == "others":
            say("stdout", id="other", text="not yours")
        if code in ("sleep", "deaf", "garbage", "wrong"):
            time.sleep(60)
    except KeyboardInterrupt:
        say("error", id=number, name="KeyboardInterrupt", value="", traceback="")
    say("stdout", id=number, text=code)
    say("done", id=number, execution_count=7)
"""


@pytest.fixture
async def listener(tmp_path: Path) -> AsyncIterator[Listener]:
    listener = Listener(tmp_path, "t" * 64, on_lost=lambda _: None)
    await listener.start()
    process = subprocess.Popen(
        [agent_binary(), "-link", tmp_path, "-run", tmp_path / "run"], stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        with anyio.fail_after(10):
            await listener.connected()
        yield listener
    finally:
        with suppress(Error):
            for left in await listener.link.processes():
                with suppress(ProcessNotFound):  # those that have ended are told of for a while
                    await listener.link.signal(left.pid, 9)
        process.kill()
        process.wait()
        await listener.aclose()


@pytest.fixture
async def core(tmp_path: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Core]:
    script = tmp_path / "scripted.py"
    script.write_text(SCRIPTED)
    commands = {
        "python": (sys.executable, "-u", str(MAIN)),
        "scripted": (sys.executable, "-u", str(script)),
        "brief": (sys.executable, "-c", 'import time; print(\'{"event": "ready"}\', flush=True); time.sleep(0.2)'),
        "broken": (sys.executable, "-c", "raise SystemExit(4)"),
    }
    monkeypatch.setattr(contexts, "interpreter_command", lambda language: commands.get(language, ("nonesuch",)))
    engine = Engine()
    monkeypatch.setattr(engine, "agent", lambda _: listener.link)
    async with core_on(tmp_path, engine) as core:
        yield core
    engine.close()


@pytest.fixture
async def sandbox(core: Core) -> str:
    return (await core.create("t", SandboxSpec())).id


class Box:
    """One context."""

    def __init__(self, core: Core, sandbox: str, context: str) -> None:
        self.core, self.sandbox, self.id = core, sandbox, context

    async def run(self, code: str, **options: Any) -> CodeReply:
        with anyio.fail_after(20):
            return await self.core.contexts.gather(
                "t", self.sandbox, CodeSpec(code=code, context_id=self.id, **options)
            )


async def make(core: Core, sandbox: str, language: str = "scripted", **options: Any) -> Box:
    spec = ContextSpec(language=language, user="root", **options)
    return Box(core, sandbox, (await core.contexts.create("t", sandbox, spec)).id)


async def test_the_real_interpreter_keeps_its_state(core: Core, sandbox: str, tmp_path: Path) -> None:
    box = await make(core, sandbox, "python", cwd=str(tmp_path), env={"GIVEN": "of the context"})
    assert (await box.run("x = 20")).error is None
    reply = await box.run(
        "import os\nprint(os.getcwd(), os.environ['GIVEN'], os.environ['RUN'])\nx + 1", env={"RUN": "r"}
    )
    assert reply.stdout == f"{tmp_path} of the context r\n"
    assert [result.data["text/plain"] for result in reply.results] == ["21"]
    failed = await box.run("x / 0")
    assert failed.error is not None
    assert failed.error.name == "ZeroDivisionError"
    interrupted = await box.run("while True: pass", timeout_s=0.3)
    assert interrupted.error is not None
    assert interrupted.error.name == "TimeoutError"
    assert not interrupted.context_restarted
    assert (await box.run("x")).results[0].data["text/plain"] == "20"
    await core.contexts.restart("t", sandbox, box.id)
    assert (await box.run("x")).error.name == "NameError"  # type: ignore[union-attr]


async def test_runs_wait_for_each_other(core: Core, sandbox: str) -> None:
    box = await make(core, sandbox)
    replies: list[str] = []

    async def run(code: str) -> None:
        replies.append((await box.run(code)).stdout)

    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(run, str(number))
    assert sorted(replies) == ["0", "1", "2", "3", "4"]
    assert (await core.contexts.list("t", sandbox))[-1].executions == 5


async def test_too_many_wait(core: Core, sandbox: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts, "WAITING_MAX", 0)
    box = await make(core, sandbox)
    with pytest.raises(ContextBusy):
        await box.run("x")


async def test_what_ignores_an_interrupt_is_killed(core: Core, sandbox: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "GRACE_S", 0.2)
    box = await make(core, sandbox)
    reply = await box.run("deaf", timeout_s=0.2)
    assert reply.context_restarted
    assert reply.error is not None
    assert reply.error.name == "TimeoutError"
    assert "killed" in reply.error.value
    assert (await box.run("again")).stdout == "again"


@pytest.mark.parametrize(
    ("code", "how"), [("die", "exited with status 3"), ("garbage", "no event"), ("wrong", "wrong stdout event")]
)
async def test_a_dead_interpreter_is_told_and_replaced(core: Core, sandbox: str, code: str, how: str) -> None:
    box = await make(core, sandbox)
    reply = await box.run(code)
    assert reply.context_restarted
    assert reply.error is not None
    assert (reply.error.name, how in reply.error.value) == ("InterpreterDied", True), reply.error
    assert (code != "die") or "last words" in reply.error.traceback
    assert (await box.run("again")).stdout == "again"


async def test_events_of_others_are_not_shown(core: Core, sandbox: str) -> None:
    assert (await (await make(core, sandbox)).run("others")).stdout == "others"


async def test_what_cannot_start(core: Core, sandbox: str) -> None:
    with pytest.raises(SandboxStartFailed, match="status 4"):
        await make(core, sandbox, "broken")
    with pytest.raises(LanguageNotFound):
        await make(core, sandbox, "cobol")
    assert [context.id for context in await core.contexts.list("t", sandbox)] == ["default-python"]


async def test_an_interpreter_that_ends_while_it_is_noted_is_told_as_that(
    core: Core, sandbox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow_save(_: object) -> None:
        await anyio.sleep(1)

    monkeypatch.setattr(core.contexts, "_save", slow_save)
    with pytest.raises(SandboxStartFailed, match="status 0"):
        await make(core, sandbox, "brief")


async def test_who_leaves_interrupts(core: Core, sandbox: str) -> None:
    box = await make(core, sandbox)
    with anyio.move_on_after(0.2):
        await box.run("sleep", timeout_s=None)
    with anyio.fail_after(5):
        assert (await box.run("next")).stdout == "next"


async def test_an_interrupt_by_somebody_else(core: Core, sandbox: str) -> None:
    box = await make(core, sandbox)

    async def interrupt() -> None:
        await anyio.sleep(0.2)
        await core.contexts.interrupt("t", sandbox, box.id)

    async with anyio.create_task_group() as group:
        group.start_soon(interrupt)
        reply = await box.run("sleep")
    assert reply.error is not None
    assert reply.error.name == "KeyboardInterrupt"
    await core.contexts.interrupt("t", sandbox, box.id)


async def test_removed_contexts_are_gone(core: Core, sandbox: str, listener: Listener) -> None:
    box = await make(core, sandbox)
    await core.contexts.remove("t", sandbox, box.id)
    for call in (box.run("x"), core.contexts.interrupt("t", sandbox, box.id)):
        with pytest.raises(ContextNotFound):
            await call


async def cut(link: Link) -> None:
    """The connection breaks; the agent dials again."""
    connection = link._connection
    assert connection is not None
    connection.close()


async def test_code_goes_on_over_a_lost_connection(core: Core, sandbox: str, listener: Listener) -> None:
    box = await make(core, sandbox, "python")
    spec = CodeSpec(
        code="import time\nfor i in range(8):\n    print(i, flush=True)\n    time.sleep(0.1)", context_id=box.id
    )
    heard = ""
    with anyio.fail_after(20):
        async with core.contexts.run("t", sandbox, spec) as events:
            async for event in events:
                if isinstance(event, Stdout):
                    if not heard:
                        await cut(listener.link)
                    heard += event.text
                elif isinstance(event, Done):
                    assert not event.context_restarted
    assert heard == "".join(f"{number}\n" for number in range(8)), "nothing is missing, nothing comes twice"


async def test_an_idle_context_outlives_a_lost_connection(core: Core, sandbox: str, listener: Listener) -> None:
    box = await make(core, sandbox, "python")
    await box.run("x = 5")
    for _ in range(5):
        await cut(listener.link)
        with anyio.fail_after(10):
            await listener.connected()
            while True:
                try:
                    await listener.link.ping()
                except SandboxLost:
                    continue
                break
    assert (await box.run("x")).results[0].data["text/plain"] == "5"


async def test_time_runs_out_although_there_is_always_an_event_to_read() -> None:
    signals: list[int] = []

    async def signaller(number: int, group: bool) -> None:
        signals.append(number)

    run = runs.Run("c", 0.05, signaller)
    events = aiter(run)
    for _ in range(10):
        await run.put(Stdout(text="y"))
    await anext(events)
    assert signals == []
    await anyio.sleep(0.06)
    await anext(events)
    assert signals == [2]

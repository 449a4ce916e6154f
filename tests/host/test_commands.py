from __future__ import annotations

import os
from pathlib import Path

import anyio
import pytest

from skerry.host.commands import ISOLATED, CommandFailed, follow

pytestmark = pytest.mark.anyio
ENV = {"PATH": os.environ["PATH"]}


async def collect(*command: str, env: dict[str, str] = ENV) -> list[str]:
    return [line async for line in follow(command, env)]


async def test_both_streams_line_by_line() -> None:
    assert await collect("sh", "-c", "echo a; echo b >&2; printf c") == ["a", "b", "c"]


async def test_a_line_without_end_is_cut() -> None:
    lines = await collect("sh", "-c", "head -c 100000 /dev/zero | tr '\\0' x")
    assert len(lines) > 1
    assert "".join(lines) == "x" * 100_000


async def test_only_the_environment_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "1")
    assert await collect("sh", "-c", "echo ${SECRET-none} $GIVEN", env={**ENV, "GIVEN": "2"}) == ["none 2"]


async def test_failures() -> None:
    with pytest.raises(CommandFailed, match="code 3"):
        await collect("sh", "-c", "exit 3")
    with pytest.raises(CommandFailed, match="cannot start nonesuch"):
        await collect("nonesuch")


async def test_an_abandoned_command_ends_with_its_mounts(tmp_path: Path) -> None:
    script = 'mount -t tmpfs none "$1"; echo $$ mounted; touch "$1/x"; sleep 600 & sleep 600'
    with anyio.move_on_after(5):
        async for line in follow((*ISOLATED, "sh", "-c", script, "sh", str(tmp_path)), ENV):
            assert line.endswith("mounted")
            break
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
    assert not (tmp_path / "x").exists()
    with anyio.fail_after(5):
        while _running(str(tmp_path)):
            await anyio.sleep(0.02)


def _running(argument: str) -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if argument.encode() in path.read_bytes():
                return True
        except OSError:
            continue
    return False

"""Recipes carried out on a workbench that only notes what is done on it; the real ones are in tests/clients."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from skerry.core import Core
from skerry.errors import FileMissing, UserNotFound
from skerry.models import (
    Build,
    BuildState,
    Exit,
    ExitReason,
    FileInfo,
    Limits,
    Output,
    Recipe,
    Stage,
    Step,
)

from .test_recipes import DIGEST, step
from .test_sandboxes import Engine, core_on

pytestmark = pytest.mark.anyio
LIMITS = Limits(cpu=1, memory_mib=512, disk_mib=100, pids=64)


class Bench:
    """A workbench, and the agent on it."""

    def __init__(self, log: list[Any]) -> None:
        self.log = log
        self.agent = self

    @asynccontextmanager
    async def run(self, command: list[str], **where: Any) -> AsyncIterator[AsyncIterator[Output | Exit]]:
        self.log.append(("run", command[-1], where["user"], where["cwd"], where["env"]))
        if where["user"] == "nobody-here":
            raise UserNotFound("no such user")

        async def events() -> AsyncIterator[Output | Exit]:
            yield Output.model_construct(type="stdout", offset=0, data=b"one\ntw", dropped=0)
            yield Output.model_construct(type="stdout", offset=6, data=b"o\n", dropped=0)
            yield Exit(exit_code=int("fail" in command[-1]), signal=None, reason=ExitReason.EXITED, duration_s=0.1)

        yield events()

    async def stat(self, path: str, *, user: str) -> FileInfo:
        raise FileMissing(f"no {path}") if user == "0" else UserNotFound(user)

    async def make_directory(self, path: str, *, user: str) -> None:
        self.log.append(("mkdir", path))

    async def set_attributes(self, path: str, *, user: str, owner: str) -> None:
        self.log.append(("owner", path, owner))

    async def unpack(self, path: str, chunks: AsyncIterator[bytes], **how: Any) -> int:
        self.log.append(("unpack", path, b"".join([chunk async for chunk in chunks]), how["source"], how["owner"]))
        return 1

    @asynccontextmanager
    async def pack(self, path: str, *, user: str) -> AsyncIterator[AsyncIterator[bytes]]:
        self.log.append(("pack", path))

        async def chunks() -> AsyncIterator[bytes]:
            yield b"tar of "
            yield path.encode()

        yield chunks()

    async def write_file(self, path: str, content: bytes, *, user: str, mode: int) -> None:
        self.log.append(("write", path, content))

    async def commit(self) -> str:
        self.log.append("commit")
        return f"layer {len(self.log)}"


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[tuple[Core, Engine, list[Any]]]:
    engine, log = Engine(), []
    engine.benches = lambda image, limits: Bench(log)
    async with core_on(tmp_path, engine) as core:
        yield core, engine, log
    engine.close()


async def carried_out(core: Core, recipe: Recipe, name: str = "app") -> Build:
    build, _ = await core.builds.request("t", name, [], LIMITS)
    await core.builds.begin("t", build.template_id, build.id, recipe)
    with anyio.fail_after(5):
        while build.state not in (BuildState.READY, BuildState.FAILED):
            await anyio.sleep(0.01)
            build = await core.builds.get("t", build.template_id, build.id)
    return build


async def test_every_kind_of_step(made: tuple[Core, Engine, list[Any]]) -> None:
    core, engine, log = made

    async def content() -> AsyncIterator[bytes]:
        yield b"archive"

    await core.uploads.keep("t", DIGEST, content())
    recipe = Recipe(
        from_template="base",
        steps=[
            step("env", "A", "1", "B", "2"), step("workdir", "app"), step("user", "worker"), step("run", "make", "root"),
            step("copy", "src/*", "lib", "", "", files=DIGEST), step("run", "make"),
        ],
        start_command="serve", ready_command="check",
    )  # fmt: skip
    build = await carried_out(core, recipe)
    assert build.state is BuildState.READY, build
    env = {"A": "1", "B": "2"}
    assert [entry for entry in log if entry != "commit"] == [
        ("mkdir", "/home/user/app"), ("owner", "/home/user/app", "user"),
        ("run", "useradd --create-home --shell /bin/bash worker", "0", None, {}),
        ("run", "make", "root", "/home/user/app", env),
        ("unpack", "/home/user/app/lib", b"archive", "src/*", "worker"),
        ("run", "make", "worker", "/home/user/app", env),
    ]  # fmt: skip
    [prepared] = engine.prepared
    assert prepared == build.template
    assert (prepared.user, prepared.workdir, prepared.env) == ("worker", "/home/user/app", env)
    assert (prepared.start_command, prepared.ready_command) == ("serve", "check")
    assert [line.text for line in build.log if line.step == "6"] == ["[6/6] RUN make", "one", "two"]
    assert (await core.templates.get("t", "app")).build_id == build.id


async def test_known_results_are_used_until_one_is_forced(made: tuple[Core, Engine, list[Any]]) -> None:
    core, _, log = made
    steps = [step("run", "one"), step("run", "two"), step("run", "three")]
    await carried_out(core, Recipe(from_template="base", steps=steps))
    assert log.count("commit") == 3
    await carried_out(core, Recipe(from_template="base", steps=steps))
    assert log.count("commit") == 3
    steps[1] = step("run", "two", force=True)
    await carried_out(core, Recipe(from_template="base", steps=steps))
    assert log.count("commit") == 5
    await carried_out(core, Recipe(from_template="base", steps=steps[:1], force=True))
    assert log.count("commit") == 6


@pytest.mark.parametrize(
    ("steps", "stage", "message"),
    [
        ([step("run", "well"), step("run", "fail")], "2", "failed to run command 'fail': exit status 1"),
        ([step("run", "whoami", "nobody-here")], "1", "invalid username: 'nobody-here'"),
        ([step("copy", "a", "b", files=DIGEST)], "1", "not uploaded"),
        ([step("env", "A", "${", expand=True)], "1", "cannot understand"),
        ([step("env", "M", "rwx"), step("copy", "a", "b", "", "$M", files=DIGEST, expand=True)], "2", "is no mode"),
    ],
)
async def test_a_failing_step_is_named(
    made: tuple[Core, Engine, list[Any]], steps: list[Step], stage: str, message: str
) -> None:
    build = await carried_out(made[0], Recipe(from_template="base", steps=steps))
    assert (build.state, build.step) == (BuildState.FAILED, stage)
    assert message in (build.message or "")
    assert build.log[-1].level == "error"


async def test_stages_are_made_once_and_only_when_they_are_asked_for(
    made: tuple[Core, Engine, list[Any]],
) -> None:
    core, _, log = made
    stages = {
        "tools": Stage(from_template="base", steps=[step("run", "make tools")]),
        "unused": Stage(from_template="base", steps=[step("run", "fail")]),
        "built": Stage(from_stage="tools", steps=[step("run", "make")]),
    }
    copies = [
        step("copy", "/out/a", "/a", "", "0755", from_stage="built"), step("copy", "/t", "/t/", "root", from_stage="tools")
    ]  # fmt: skip
    build = await carried_out(core, Recipe(from_template="base", steps=copies, stages=stages))
    assert build.state is BuildState.READY, build
    assert [entry[0:2] for entry in log if entry != "commit"] == [
        ("run", "make tools"), ("run", "make"), ("pack", "/out/a"), ("unpack", "/a"), ("pack", "/t"), ("unpack", "/t/"),
    ]  # fmt: skip
    assert ("unpack", "/a", b"tar of /out/a", "/out/a", "user") in log
    assert "[built 1/1] RUN make" in [line.text for line in build.log]


async def test_words_are_expanded_where_that_is_wanted(made: tuple[Core, Engine, list[Any]]) -> None:
    core, _, log = made
    steps = [
        step("env", "A", "'1'", "B", "${A:-none}$X", expand=True, variables={"X": "x", "A": "argument"}),
        step("workdir", "/srv/$A", expand=True, variables={"A": "argument"}),
        step("env", "C", "$A"),
        step("run", "echo $A", shell=["/bin/sh", "-c"], variables={"A": "argument", "Y": "y"}, expand=True),
    ]
    build = await carried_out(core, Recipe(from_template="base", steps=steps))
    assert build.template is not None, build
    assert build.template.env == {"A": "1", "B": "argumentx", "C": "$A"}
    assert ("mkdir", "/srv/1") in log
    assert ("run", "echo $A", "user", "/srv/1", {"A": "1", "B": "argumentx", "C": "$A", "Y": "y"}) in log


async def test_login_shells_are_told_of_the_path(made: tuple[Core, Engine, list[Any]]) -> None:
    core, _, log = made
    build = await carried_out(core, Recipe(from_template="base", steps=[step("env", "PATH", "/opt/a b:/bin")]))
    assert build.state is BuildState.READY, build
    assert log == [("write", "/etc/profile.d/image-path.sh", b"PATH='/opt/a b:/bin'\n"), "commit"]


async def test_an_image_says_who_programs_run_as(made: tuple[Core, Engine, list[Any]]) -> None:
    core = made[0]
    for wanted, user, workdir in (
        (Recipe(from_template="base"), "user", None), (Recipe(from_template="base", as_image=True), "user", None),
        (Recipe(from_image="ubuntu:1", as_image=True), "root", "/"), (Recipe(from_image="ubuntu:1"), "user", None),
    ):  # fmt: skip
        template = (await carried_out(core, wanted)).template
        assert template is not None
        assert (template.user, template.workdir) == (user, workdir), wanted


async def test_images_have_aliases_and_stand_ins(made: tuple[Core, Engine, list[Any]]) -> None:
    core = made[0]
    assert (await carried_out(core, Recipe(from_image="e2bdev/base:latest"))).state is BuildState.READY
    stood_in = await carried_out(core, Recipe(from_image="ubuntu:22.04"))
    assert stood_in.state is BuildState.READY
    assert any(line.level == "warn" and "stands in" in line.text for line in stood_in.log)
    mirrored = await carried_out(core, Recipe(from_image="far.example/app:1"))
    assert (mirrored.state, mirrored.step) == (BuildState.FAILED, "base")
    assert "near.example:5000/app:1" in (mirrored.message or "")
    another = await carried_out(core, Recipe(from_image="far.example:6000/app:1"))  # another registry on that machine
    assert "far.example:6000/app:1" in (another.message or "")


async def test_a_stage_hands_on_what_its_template_has(made: tuple[Core, Engine, list[Any]]) -> None:
    core = made[0]
    stages = {"a": Stage(from_template="base", as_image=True), "b": Stage(from_stage="a")}
    direct = (await carried_out(core, Recipe(from_template="base", as_image=True))).template
    staged = (await carried_out(core, Recipe(from_stage="b", stages=stages))).template
    assert direct is not None
    assert staged is not None
    assert (staged.languages, staged.start_command) == (direct.languages, direct.start_command)
    assert staged.languages


async def test_an_environment_is_bounded(made: tuple[Core, Engine, list[Any]]) -> None:
    core = made[0]
    doubling = [step("env", "A", "x" * 1000), *(step("env", "A", "$A$A", expand=True) for _ in range(40))]
    for steps, message in (
        (doubling, "longer than"), ([step("env", "A", "x" * 200_000)], "exceeds the limit"),
        ([step("env", "A=B", "x")], "must not contain"),
    ):  # fmt: skip
        build = await carried_out(core, Recipe(from_template="base", steps=steps))
        assert build.state is BuildState.FAILED
        assert message in (build.message or ""), build.message


@pytest.mark.parametrize(
    ("wanted", "made_of_it"),
    [
        ({}, ("serve", "check")),
        ({"ready_command": "look"}, ("serve", "look")),
        ({"start_command": "other"}, ("other", None)),
        ({"start_command": "other", "ready_command": "look"}, ("other", "look")),
    ],
)
async def test_what_a_template_starts_is_handed_on(
    made: tuple[Core, Engine, list[Any]], wanted: dict[str, str], made_of_it: tuple[str, str | None]
) -> None:
    core = made[0]
    await carried_out(core, Recipe(from_template="base", start_command="serve", ready_command="check"), "parent")
    template = (await carried_out(core, Recipe(from_template="parent", **wanted))).template
    assert template is not None
    assert (template.start_command, template.ready_command) == made_of_it

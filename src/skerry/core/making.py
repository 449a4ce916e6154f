"""A recipe made into a template: step by step, each in a sandbox on the image that the steps before made.

A step's result, one layer, is remembered under a key made of all that it depends on: the layers below, the step, who it
runs as and where, and the files it copies. The same step on the same image is not carried out again.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import anyio
from anyio.to_thread import run_sync as to_thread

from skerry.core.recipes import absolute, environment, expanded, untagged
from skerry.core.templates import Templates
from skerry.core.uploads import Uploads
from skerry.errors import Error, ImageUnreachable, TemplateBuildFailed, UserNotFound
from skerry.models import (
    Build,
    BuildLine,
    Exit,
    Image,
    Output,
    Recipe,
    Stage,
    Step,
    StepKind,
    Template,
)
from skerry.ports import Agent, Engine, Held, Images, Puller

LOG_MAX = 10_000
"""Lines of a build's log; what comes after is dropped."""
LOG_CHARACTERS_MAX = 4 * 1024 * 1024
BASE, FINALIZE = "base", "finalize"
_STEP_DISK_MIB = 20_480
_PATH_FILE = "/etc/profile.d/image-path.sh"
_SHELL = ["/bin/bash", "-l", "-c"]
_PROVISION = """
set -e
if ! grep -q '^user:' /etc/passwd; then
    id=1000
    while grep -q "^[^:]*:[^:]*:$id:" /etc/passwd; do id=$((id + 1)); done
    echo "user:x:$id:$id::/home/user:/bin/bash" >> /etc/passwd
    echo "user:x:$id:" >> /etc/group
    mkdir -p /home/user
    if [ -d /etc/skel ]; then cp -r /etc/skel/. /home/user/; fi
    chown -R "$id:$id" /home/user
fi
grep -q '^sudo:.*user' /etc/group || { sed -i '/^sudo:/d' /etc/group; echo 'sudo:x:27:user' >> /etc/group; }
mkdir -p /usr/local/bin /usr/bin /opt/skerry
ln -sf /opt/skerry/agent /usr/local/bin/sudo
ln -sf /opt/skerry/agent /usr/bin/sudo
"""
"""What every sandbox has, in an image that comes from elsewhere."""


class Progress:
    """Where a build is, and what it has said so far."""

    def __init__(self) -> None:
        self.step = BASE
        self.log: list[BuildLine] = []
        self.news = anyio.Event()
        """Set, and replaced, with each line and at the end."""
        self._characters = 0

    def say(self, text: str, level: str = "info") -> None:
        self._characters += len(text)
        if len(self.log) < LOG_MAX and self._characters < LOG_CHARACTERS_MAX:
            self.log.append(BuildLine(at=datetime.now(UTC), level=level, text=text[:4000], step=self.step))
            self.tell()

    def tell(self) -> None:
        news, self.news = self.news, anyio.Event()
        news.set()


Standing = Callable[[str, str], AbstractAsyncContextManager[tuple[Template, Held]]]
"""Lets a tenant's sandbox stand still; see `Lifecycle.standing`."""


@dataclass
class Workshop:
    """What recipes are carried out with."""

    engine: Engine
    templates: Templates
    images: Images
    puller: Puller
    uploads: Uploads
    aliases: Mapping[str, str]
    """Names of images → what is taken instead: another image, or `template:NAME`."""
    stand_ins: Mapping[str, str]
    """Names of images without their tags → a template, taken when the registry cannot be reached."""
    standing: Standing | None = None
    """Set when there are sandboxes."""


@dataclass(frozen=True)
class _Made:
    """A stage: its image, and the template that it started from."""

    image: Image
    parent: Template | None = None


class Making:
    """One recipe on its way to a template.

    Args:
        build: what it is made for.
        recipe: one that `recipes.check_recipe` lets pass.
        progress: is told.
    """

    def __init__(self, workshop: Workshop, build: Build, tenant_id: str, recipe: Recipe, progress: Progress) -> None:
        self._workshop, self._engine, self._images = workshop, workshop.engine, workshop.images
        self._build, self._tenant_id, self._recipe, self._progress = build, tenant_id, recipe, progress
        self._say = progress.say
        self._limits = build.limits.model_copy(update={"disk_mib": max(build.limits.disk_mib, _STEP_DISK_MIB)})
        self._stages: dict[str, _Made] = {}

    async def template(self) -> Template:
        """Carry it out. Raises what `errors` has for the step that failed, which `progress` names."""
        recipe, build = self._recipe, self._build
        made = await self._made(recipe)
        self._progress.step = FINALIZE
        image, parent = await self._with_path(made.image), made.parent
        start, ready = recipe.start_command, recipe.ready_command
        if start is None and parent is not None:
            start, ready = parent.start_command, ready or parent.ready_command
        template = Template(
            name=build.name, image=await to_thread(self._images.add, image), limits=build.limits,
            built_at=datetime.now(UTC), languages=parent.languages if parent else [],
            size_mib=await to_thread(self._images.size_mib, image), env=image.env, user=image.user,
            workdir=image.workdir, build_id=build.id, start_command=start, ready_command=ready,
        )  # fmt: skip
        self._say("making it ready to be started")
        await self._engine.prepare(template)
        return template

    async def _made(self, stage: Stage, name: str | None = None) -> _Made:
        """A stage with all its steps. `name`: None for the recipe itself."""
        self._progress.step = BASE
        made = await self._base(stage)
        image, force = made.image, self._recipe.force
        prefix = f"{name} " if name is not None else ""
        for number, step in enumerate(stage.steps, 1):
            copied = (await self._stage(step.from_stage)).image if step.from_stage is not None else None
            self._progress.step = str(number)
            self._say(f"[{prefix}{number}/{len(stage.steps)}] {step.kind.upper()} {_shown(step)}")
            force |= step.force
            image = await self._step(image, step, copied, force)
        return _Made(image, made.parent)

    async def _stage(self, name: str) -> _Made:
        """Another stage of the recipe, made when it is first asked for."""
        if name not in self._stages:
            self._stages[name] = await self._made(self._recipe.stages[name], name)
        return self._stages[name]

    async def _with_layer(
        self, image: Image, what: Sequence[object], act: Callable[[Agent], Awaitable[object]], *,
        force: bool = False, told: bool = False,
    ) -> Image:  # fmt: skip
        """The image, and above it what `act` changes in a sandbox on it: done once for
        each `what` unless `force`, and `told` when it is not done again."""
        digest = await to_thread(self._images.add, image)
        key = _key(digest, what)
        layer = None if force else self._images.known_layer(key)
        if layer is None:
            async with self._engine.workbench(digest, self._limits) as bench:
                await act(bench.agent)
                layer = await bench.commit()
            await to_thread(self._images.remember_layer, key, layer)
        elif told:
            self._say("its result is known")
        return image.model_copy(update={"layers": [*image.layers, layer]})

    # --- the image to start from ------------------------------------------------------------------------------------

    async def _base(self, stage: Stage) -> _Made:
        if stage.from_stage is not None:
            return await self._stage(stage.from_stage)
        if stage.from_template is not None:
            return await self._of_template(stage, stage.from_template)
        if stage.from_sandbox is not None:
            return await self._of_sandbox(stage, stage.from_sandbox)
        if stage.from_files is not None:
            image = await self._loaded(stage.from_files)
        else:
            assert stage.from_image is not None
            wanted = self._aliased(stage.from_image)
            if wanted.startswith("template:"):
                return await self._of_template(stage, wanted.removeprefix("template:"))
            self._say(f"pulling {wanted}")
            try:
                image = await self._workshop.puller.pull(wanted, stage.registry, self._say)
            except ImageUnreachable as error:
                stand_in = self._workshop.stand_ins.get(untagged(wanted))
                if stand_in is None:
                    raise
                self._say(f"{error.message}; template {stand_in} stands in for it", "warn")
                return await self._of_template(stage, stand_in)
        how = {"workdir": image.workdir or "/"} if stage.as_image else {"user": "user", "workdir": None}
        return _Made(await self._provisioned(image.model_copy(update=how)))

    async def _loaded(self, digest: str) -> Image:
        path = await self._workshop.uploads.find(self._tenant_id, digest)
        if path is None:
            raise TemplateBuildFailed("cannot start from files: they were not uploaded", log=[])
        return await self._workshop.puller.load(path, self._say)

    async def _of_template(self, stage: Stage, reference: str) -> _Made:
        template = await self._workshop.templates.get(self._tenant_id, reference)
        self._say(f"starting from template {template.name}")
        how = {"env": dict(template.env), "user": "user", "workdir": None}
        if stage.as_image:
            # In place of an image, it has to behave as one.
            how |= (
                {"user": template.user, "workdir": template.workdir}
                if stage.from_template is not None
                else {"user": "root", "workdir": "/"}
            )
        return _Made(self._images.image(template.image).model_copy(update=how), template)

    async def _of_sandbox(self, stage: Stage, sandbox_id: str) -> _Made:
        assert self._workshop.standing is not None
        async with self._workshop.standing(self._tenant_id, sandbox_id) as (template, held):
            self._say(f"copying what sandbox {sandbox_id} has changed in template {template.name}")
            layer = await held.commit()
        below = self._images.image(template.image)
        how = {"user": template.user, "workdir": template.workdir} if stage.as_image else {"user": "user"}
        image = below.model_copy(update={"layers": [*below.layers, layer], "env": dict(template.env), **how})
        return _Made(image, template)

    def _aliased(self, reference: str) -> str:
        """What is taken for an image's name: an entry for the whole name, without its tag, or for its first part."""
        aliases = self._workshop.aliases
        for known in (reference, untagged(reference)):
            if known in aliases:
                return aliases[known]
        first, slash, rest = reference.partition("/")
        return f"{aliases[first]}/{rest}" if slash and first in aliases else reference

    async def _provisioned(self, image: Image) -> Image:
        async def act(agent: Agent) -> None:
            await self._run(agent, ["/bin/sh", "-c", _PROVISION], "provision", user="0")

        return await self._with_layer(image, ["provision", _PROVISION], act)

    async def _with_path(self, image: Image) -> Image:
        """Login shells, which run commands, set PATH anew: they are told of the image's."""
        path = image.env.get("PATH")
        if path is None:
            return image
        content = f"PATH={shlex.quote(path)}\n".encode()
        return await self._with_layer(
            image, ["path", path], lambda agent: agent.write_file(_PATH_FILE, content, user="0", mode=0o644)
        )

    # --- steps ------------------------------------------------------------------------------------------------------

    async def _step(self, image: Image, step: Step, copied: Image | None, force: bool) -> Image:
        """`copied`: the stage that it copies from."""
        step = expanded(step, image)
        if step.kind is StepKind.ENV:
            env = dict(zip(step.args[::2], step.args[1::2], strict=True))
            return image.model_copy(update={"env": environment({**image.env, **env})})
        how = step.model_dump(mode="json", include={"kind", "args", "files", "shell", "variables"})
        what = [self._tenant_id, how, copied.layers if copied is not None else None]
        changed = await self._with_layer(
            image, what, lambda agent: self._act(agent, image, step, copied), force=force, told=True
        )
        if step.kind is StepKind.USER:
            return changed.model_copy(update={"user": step.args[0]})
        if step.kind is StepKind.WORKDIR:
            return changed.model_copy(update={"workdir": absolute(image, step.args[0])})
        return changed

    async def _act(self, agent: Agent, image: Image, step: Step, copied: Image | None) -> None:
        first = step.args[0]
        if step.kind is StepKind.RUN:
            user = step.args[1] if len(step.args) > 1 and step.args[1] else image.user
            env = {**step.variables, **image.env}
            await self._run(agent, [*(step.shell or _SHELL), first], first, user=user, env=env, cwd=image.workdir)
        elif step.kind is StepKind.WORKDIR:
            path = absolute(image, first)
            with suppress(Error):
                await agent.stat(path, user="0")
                return
            await agent.make_directory(path, user="0")
            await agent.set_attributes(path, user="0", owner=image.user)
        elif step.kind is StepKind.USER:
            await self._make_user(agent, first)
        else:
            await self._copy(agent, image, step, copied)

    async def _make_user(self, agent: Agent, name: str) -> None:
        with suppress(UserNotFound):
            await agent.stat("/", user=name)
            return
        command = ["/bin/sh", "-c", f"useradd --create-home --shell /bin/bash {shlex.quote(name)}"]
        await self._run(agent, command, f"useradd {name}", user="0")

    async def _copy(self, agent: Agent, image: Image, step: Step, copied: Image | None) -> None:
        source, target, owner, mode = (*step.args, "", "", "")[:4]
        if copied is not None:
            source = f"/{posixpath.normpath('/' + source).lstrip('/')}"
        place = absolute(image, target) + ("/" if target.endswith("/") else "")
        async with self._archive(step, source, copied) as chunks:
            entries = await agent.unpack(
                place, chunks, source=source, owner=owner or image.user, mode=int(mode, 8) if mode else None, user="0"
            )
        if entries == 0:
            where = "the files that were uploaded" if copied is None else f"stage {step.from_stage}"
            raise TemplateBuildFailed(f"cannot copy {source}: {where} hold nothing of that name", log=[])

    @asynccontextmanager
    async def _archive(self, step: Step, source: str, copied: Image | None) -> AsyncIterator[AsyncIterator[bytes]]:
        """The archive that a step copies from."""
        if copied is not None:
            # A stage's files are read inside a sandbox, as everything in them is.
            digest = await to_thread(self._images.add, copied)
            async with (
                self._engine.workbench(digest, self._limits) as bench,
                bench.agent.pack(source, user="0") as tar,
            ):
                yield tar
            return
        assert step.files is not None
        path = await self._workshop.uploads.find(self._tenant_id, step.files)
        if path is None:
            raise TemplateBuildFailed(f"cannot copy {source}: its files were not uploaded", log=[])
        yield _chunks(path)

    async def _run(
        self, agent: Agent, command: Sequence[str], shown: str, *, user: str, env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> None:  # fmt: skip
        """Run a command and put its output into the log. Raises TemplateBuildFailed."""
        held = {"stdout": b"", "stderr": b""}
        try:
            async with agent.run(command, env=env or {}, cwd=cwd, user=user) as events:
                async for event in events:
                    if isinstance(event, Output):
                        *lines, held[event.type] = (held[event.type] + event.data).split(b"\n")
                        for line in lines:
                            self._say(line.decode(errors="replace").rstrip("\r"))
                        held[event.type] = held[event.type][-65_536:]
                    elif isinstance(event, Exit):
                        for rest in filter(None, held.values()):
                            self._say(rest.decode(errors="replace"))
                        if event.exit_code != 0:
                            raise TemplateBuildFailed(
                                f"failed to run command '{shown}': exit status {event.exit_code}", log=[]
                            )
        except UserNotFound as error:
            raise TemplateBuildFailed(
                f"failed to run command '{shown}': command failed: unauthenticated: invalid username: '{user}'", log=[]
            ) from error


def _key(digest: str, parts: Sequence[object]) -> str:
    """Of a step's result. The image's digest stands for its layers, environment, user and working directory."""
    return hashlib.sha256(json.dumps([digest, *parts]).encode()).hexdigest()


def _shown(step: Step) -> str:
    return " ".join(filter(None, step.args[:2]))[:200]


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    async with await anyio.open_file(path, "rb") as file:
        while chunk := await file.read(256 * 1024):
            yield chunk

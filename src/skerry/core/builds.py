"""Builds of templates: a recipe is carried out step by step, each in a sandbox on the image that the steps before made.

A step's result, one layer, is remembered under a key made of all that it depends on: the layers below, the step, who it
runs as and where, and the files it copies. The same step on the same image is not carried out again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shlex
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import anyio
import anyio.abc
from anyio.to_thread import run_sync as to_thread

from skerry.core.templates import Templates, parse
from skerry.errors import (
    Error,
    InvalidRequest,
    LimitExceeded,
    NotFound,
    RequestTooLarge,
    TemplateBuildFailed,
    UserNotFound,
)
from skerry.models import (
    Build,
    BuildLine,
    BuildState,
    Exit,
    Image,
    Limits,
    Output,
    Recipe,
    Step,
    StepKind,
    Template,
)
from skerry.ports import Agent, BuildStore, Engine, Images, Puller

logger = logging.getLogger(__name__)

BUILDING_MAX = 20
"""Builds under way, of one tenant."""
BUILD_TIMEOUT_S = 3600.0
LOG_MAX = 10_000
"""Lines of a build's log; what comes after is dropped."""
LOG_CHARACTERS_MAX = 4 * 1024 * 1024
UPLOAD_MAX = 4 << 30
"""Bytes of the files of one step."""
UPLOADS_KEPT_S = 7 * 24 * 3600.0
BASE, FINALIZE = "base", "finalize"
_STEP_DISK_MIB = 20_480
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


@dataclass(eq=False)
class _Work:
    """One build under way."""

    build: Build
    recipe: Recipe
    tenant_id: str
    tags: list[str]
    stage: str = BASE
    log: list[BuildLine] = field(default_factory=list)
    characters: int = 0

    def say(self, text: str, level: str = "info") -> None:
        self.characters += len(text)
        if len(self.log) < LOG_MAX and self.characters < LOG_CHARACTERS_MAX:
            self.log.append(BuildLine(at=datetime.now(UTC), level=level, text=text[:4000], step=self.stage))


class Builds:
    """All builds of this server.

    Args:
        files: where uploaded files are kept, below a directory for each tenant.
        aliases: names of images → what is taken instead: another image, or `template:NAME`.
        stand_ins: names of images without their tags → a template, taken when the registry cannot be reached.
    """

    def __init__(
        self, engine: Engine, store: BuildStore, templates: Templates, images: Images, puller: Puller, *,
        files: Path, aliases: Mapping[str, str], stand_ins: Mapping[str, str],
    ) -> None:  # fmt: skip
        self._engine, self._store, self._templates, self._images = engine, store, templates, images
        self._puller, self._files, self._aliases, self._stand_ins = puller, files, aliases, stand_ins
        self._waiting: dict[str, tuple[str, list[str]]] = {}  # build → tenant, tags
        self._works: dict[str, _Work] = {}
        self._group: anyio.abc.TaskGroup | None = None

    async def start(self, group: anyio.abc.TaskGroup) -> None:
        """Builds run in `group`. Those that an earlier server did not finish have failed."""
        self._group = group
        await to_thread(self._sweep)
        for build in await self._store.unfinished():
            lost = {"state": BuildState.FAILED, "message": "the server ended before the build did", "step": BASE}
            await self._store.save(build.model_copy(update=lost))

    # --- asking -----------------------------------------------------------------------------------------------------

    async def request(self, tenant_id: str, name: str, tags: Sequence[str], limits: Limits) -> tuple[Build, list[str]]:
        """A build of the template of that name (with a tag, if one is named) that has not begun, and its tags.

        Raises:
            InvalidRequest
        """
        bare, tag = parse(name)
        wanted = [tag] if ":" in name or not tags else []
        wanted += [parse(f"{bare}:{text}")[1] for text in tags]
        record = await self._templates.make(tenant_id, bare)
        build = Build(
            id=str(uuid.uuid4()), template_id=record.id, name=record.name, limits=limits, created_at=datetime.now(UTC)
        )
        await self._store.save(build)
        self._waiting[build.id] = tenant_id, wanted
        return build, wanted

    async def begin(self, tenant_id: str, template_id: str, build_id: str, recipe: Recipe) -> None:
        """Carry out the recipe, in the background.

        Raises:
            NotFound: no build of that id waits. LimitExceeded, InvalidRequest
        """
        build = await self.get(tenant_id, template_id, build_id)
        if build.id not in self._waiting:
            raise NotFound(f"cannot begin build {build_id}: it has begun already")
        if (recipe.from_image is None) == (recipe.from_template is None):
            raise InvalidRequest(
                "cannot build: the recipe must name an image or a template to start from, and not both"
            )
        if (busy := sum(work.tenant_id == tenant_id for work in self._works.values())) >= BUILDING_MAX:
            raise LimitExceeded(
                f"cannot begin another build: {BUILDING_MAX} are under way", limit=BUILDING_MAX, current=busy
            )
        _, tags = self._waiting.pop(build.id)
        work = self._works[build.id] = _Work(build, recipe, tenant_id, tags)
        work.build = build.model_copy(update={"state": BuildState.BUILDING})
        await self._store.save(work.build)
        assert self._group is not None
        self._group.start_soon(self._run, work, name=f"build {build.id}")

    async def get(self, tenant_id: str, template_id: str, build_id: str) -> Build:
        """A build as it is now, with its log. Raises NotFound, TemplateNotFound."""
        record = await self._templates.record(tenant_id, template_id)
        if (work := self._works.get(build_id)) is not None and work.build.template_id == record.id:
            return work.build.model_copy(update={"log": work.log})
        build = await self._store.build(build_id)
        if build is None or build.template_id != record.id:
            raise NotFound(f"cannot find build {build_id}: the template has none of that id")
        return build

    async def remove(self, tenant_id: str, reference: str) -> None:
        """A template with its builds and tags; sandboxes that run go on. Raises TemplateNotFound."""
        record = await self._templates.record(tenant_id, reference)
        for build_id in await self._store.remove(record.id):
            self._images.let_go(build_id)
        self._templates.forget()

    # --- files ------------------------------------------------------------------------------------------------------

    def has_files(self, tenant_id: str, digest: str) -> bool:
        """Whether files were uploaded under that hash. Raises InvalidRequest."""
        return self._archive(tenant_id, digest).exists()

    async def upload(self, tenant_id: str, digest: str, chunks: AsyncIterator[bytes]) -> None:
        """Keep an archive for the `copy` steps that name that hash, for UPLOADS_KEPT_S: wholly or not at all.

        Raises:
            InvalidRequest, RequestTooLarge
        """
        path = anyio.Path(self._archive(tenant_id, digest))
        await path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = path.with_suffix(f".{uuid.uuid4().hex}")
        try:
            async with await anyio.open_file(partial, "wb") as file:
                left = UPLOAD_MAX
                async for chunk in chunks:
                    left -= len(chunk)
                    if left < 0:
                        raise RequestTooLarge(
                            f"cannot take files of more than {UPLOAD_MAX} bytes for one step", limit=UPLOAD_MAX
                        )
                    await file.write(chunk)
            await partial.rename(path)
        finally:
            with anyio.CancelScope(shield=True):
                await partial.unlink(missing_ok=True)

    def _sweep(self) -> None:
        for path in self._files.glob("*/*"):
            if time.time() - path.stat().st_mtime > UPLOADS_KEPT_S:
                path.unlink(missing_ok=True)

    def _archive(self, tenant_id: str, digest: str) -> Path:
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise InvalidRequest(f"cannot use {digest[:80]!r} as the hash of files: 64 hexadecimal digits are one")
        return self._files / tenant_id / f"{digest}.tar"

    # --- carrying out -----------------------------------------------------------------------------------------------

    async def _run(self, work: _Work) -> None:
        message, made = None, work.build
        try:
            with anyio.fail_after(BUILD_TIMEOUT_S):
                template = await self._carry_out(work)
            work.say(f"build finished: {template.image}")
            made = work.build.model_copy(update={"state": BuildState.READY, "template": template})
        except TimeoutError:
            message = f"the build took more than {BUILD_TIMEOUT_S:.0f} s"
        except Error as error:
            message = error.message
        except anyio.get_cancelled_exc_class():
            message = "the server was stopped"
            raise
        except Exception:
            logger.exception("fault in build %s", work.build.id)
            message = "a fault of the server's; its log has the details"
        finally:
            with anyio.CancelScope(shield=True):
                await self._finish(work, made, message)

    async def _finish(self, work: _Work, build: Build, message: str | None) -> None:
        """Tell of its end only when its tags mean it."""
        if message is not None:
            work.say(message, "error")
            build = build.model_copy(update={"state": BuildState.FAILED, "message": message, "step": work.stage})
        try:
            if build.template is not None:
                await to_thread(self._images.keep, build.id, build.template.image)
            await self._store.save(build.model_copy(update={"log": work.log}))
            if message is None:
                for tag in work.tags:
                    await self._store.tag(work.build.template_id, tag, work.build.id)
                self._templates.forget()
        except Exception:
            logger.exception("cannot keep build %s", work.build.id)
        self._works.pop(work.build.id, None)

    async def _carry_out(self, work: _Work) -> Template:
        image, parent = await self._base(work)
        digest = await to_thread(self._images.add, image)
        force = work.recipe.force
        for number, step in enumerate(work.recipe.steps, 1):
            work.stage = str(number)
            work.say(f"[{number}/{len(work.recipe.steps)}] {step.kind.upper()} {_shown(step)}")
            force |= step.force
            image = await self._step(work, image, digest, step, force)
            digest = await to_thread(self._images.add, image)
        work.stage = FINALIZE
        inherited = work.recipe.start_command is None and parent is not None
        size_mib = await to_thread(self._images.size_mib, image)
        template = Template(
            name=work.build.name, image=digest, limits=work.build.limits, built_at=datetime.now(UTC),
            languages=parent.languages if parent else [], size_mib=size_mib, env=image.env,
            user=image.user, workdir=image.workdir, build_id=work.build.id,
            start_command=parent.start_command if inherited and parent else work.recipe.start_command,
            ready_command=parent.ready_command if inherited and parent else work.recipe.ready_command,
        )  # fmt: skip
        work.say("making it ready to be started")
        await self._engine.prepare(template)
        return template

    # --- the image to start from ------------------------------------------------------------------------------------

    async def _base(self, work: _Work) -> tuple[Image, Template | None]:
        recipe = work.recipe
        if recipe.from_template is not None:
            return await self._of_template(work, recipe.from_template)
        assert recipe.from_image is not None
        wanted = self._aliased(recipe.from_image)
        if wanted.startswith("template:"):
            return await self._of_template(work, wanted.removeprefix("template:"))
        work.say(f"pulling {wanted}")
        try:
            image = await self._puller.pull(wanted, recipe.registry, work.say)
        except Error as error:
            stand_in = self._stand_ins.get(wanted.partition(":")[0])
            if error.code != "image.unreachable" or stand_in is None:
                raise
            work.say(f"{error.message}; template {stand_in} stands in for it", "warn")
            return await self._of_template(work, stand_in)
        return await self._provisioned(work, image), None

    async def _of_template(self, work: _Work, reference: str) -> tuple[Image, Template]:
        template = await self._templates.get(work.tenant_id, reference)
        work.say(f"starting from template {template.name}")
        image = self._images.image(template.image)
        return image.model_copy(update={"env": dict(template.env), "user": "user", "workdir": None}), template

    def _aliased(self, reference: str) -> str:
        """What is taken for an image's name: an entry for the whole name, without its tag, or for its first part."""
        name = reference.partition(":")[0]
        for known in (reference, name):
            if known in self._aliases:
                return self._aliases[known]
        first, slash, rest = reference.partition("/")
        return f"{self._aliases[first]}/{rest}" if slash and first in self._aliases else reference

    async def _provisioned(self, work: _Work, image: Image) -> Image:
        digest = await to_thread(self._images.add, image)
        key = _key(digest, ["provision", _PROVISION])
        layer = self._images.known_layer(key)
        if layer is None:
            async with self._engine.workbench(digest, _limits(work)) as bench:
                await _run(work, bench.agent, ["/bin/sh", "-c", _PROVISION], "provision", user="0", image=None)
                layer = await bench.commit()
            await to_thread(self._images.remember_layer, key, layer)
        return image.model_copy(update={"layers": [*image.layers, layer]})

    # --- steps ------------------------------------------------------------------------------------------------------

    async def _step(self, work: _Work, image: Image, digest: str, step: Step, force: bool) -> Image:
        if step.kind is StepKind.ENV:
            if len(step.args) % 2:
                raise InvalidRequest("cannot set the environment: a name has no value")
            env = dict(zip(step.args[::2], step.args[1::2], strict=True))
            return image.model_copy(update={"env": {**image.env, **env}})
        key = _key(digest, [work.tenant_id, step.kind, step.args, step.files])
        layer = None if force else self._images.known_layer(key)
        if layer is not None:
            work.say("its result is known")
        else:
            async with self._engine.workbench(digest, _limits(work)) as bench:
                await self._act(work, bench.agent, image, step)
                layer = await bench.commit()
            await to_thread(self._images.remember_layer, key, layer)
        changed: dict[str, object] = {"layers": [*image.layers, layer]}
        if step.kind is StepKind.USER:
            changed["user"] = step.args[0]
        elif step.kind is StepKind.WORKDIR:
            changed["workdir"] = _absolute(image, step.args[0])
        return image.model_copy(update=changed)

    async def _act(self, work: _Work, agent: Agent, image: Image, step: Step) -> None:
        first = step.args[0]
        if step.kind is StepKind.RUN:
            user = step.args[1] if len(step.args) > 1 and step.args[1] else image.user
            await _run(work, agent, ["/bin/bash", "-l", "-c", first], first, user=user, image=image)
        elif step.kind is StepKind.WORKDIR:
            path = _absolute(image, first)
            with suppress(Error):
                await agent.stat(path, user="0")
                return
            await agent.make_directory(path, user="0")
            await agent.set_attributes(path, user="0", owner=image.user)
        elif step.kind is StepKind.USER:
            await self._make_user(work, agent, first)
        else:
            await self._copy(work, agent, image, step)

    async def _make_user(self, work: _Work, agent: Agent, name: str) -> None:
        with suppress(UserNotFound):
            await agent.stat("/", user=name)
            return
        command = ["/bin/sh", "-c", f"useradd --create-home --shell /bin/bash {shlex.quote(name)}"]
        await _run(work, agent, command, f"useradd {name}", user="0", image=None)

    async def _copy(self, work: _Work, agent: Agent, image: Image, step: Step) -> None:
        source, target, owner, mode = (*step.args, "", "", "")[:4]
        if step.files is None or not target:
            raise InvalidRequest("cannot copy: the step names no files or no target")
        path = self._archive(work.tenant_id, step.files)
        if not path.exists():
            raise TemplateBuildFailed(f"cannot copy {source}: its files were not uploaded", log=[])
        place = _absolute(image, target) + ("/" if target.endswith("/") else "")
        entries = await agent.unpack(
            place,
            _chunks(path),
            source=source,
            owner=owner or image.user,
            mode=int(mode, 8) if mode else None,
            user="0",
        )
        if entries == 0:
            raise TemplateBuildFailed(
                f"cannot copy {source}: the files that were uploaded hold nothing of that name", log=[]
            )


async def _run(
    work: _Work, agent: Agent, command: Sequence[str], shown: str, *, user: str, image: Image | None
) -> None:
    """Run a command and put its output into the log. Raises TemplateBuildFailed, UserNotFound."""
    env, cwd = (image.env, image.workdir) if image is not None else ({}, None)
    held = {"stdout": b"", "stderr": b""}
    try:
        async with agent.run(command, env=env, cwd=cwd, user=user) as events:
            async for event in events:
                if isinstance(event, Output):
                    *lines, held[event.type] = (held[event.type] + event.data).split(b"\n")
                    for line in lines:
                        work.say(line.decode(errors="replace").rstrip("\r"))
                    held[event.type] = held[event.type][-65_536:]
                elif isinstance(event, Exit):
                    for rest in filter(None, held.values()):
                        work.say(rest.decode(errors="replace"))
                    if event.exit_code != 0:
                        how = f"exit status {event.exit_code}" if event.exit_code is not None else "signal: killed"
                        raise TemplateBuildFailed(f"failed to run command '{shown}': {how}", log=[])
    except UserNotFound as error:
        raise TemplateBuildFailed(
            f"failed to run command '{shown}': command failed: unauthenticated: invalid username: '{user}'", log=[]
        ) from error


def _absolute(image: Image, path: str) -> str:
    """Where a path of a step lies: relative ones below the working directory."""
    path = path.rstrip("/") or "/"
    if path.startswith(("/", "~")):
        return path
    above = image.workdir or ("/root" if image.user in ("root", "0") else f"/home/{image.user}")
    return above if path == "." else f"{above.rstrip('/')}/{path.removeprefix('./')}"


def _limits(work: _Work) -> Limits:
    return work.build.limits.model_copy(update={"disk_mib": max(work.build.limits.disk_mib, _STEP_DISK_MIB)})


def _key(digest: str, parts: Sequence[object]) -> str:
    """Of a step's result. The image's digest stands for its layers, environment, user and working directory."""
    return hashlib.sha256(json.dumps([digest, *parts]).encode()).hexdigest()


def _shown(step: Step) -> str:
    return " ".join(filter(None, step.args[:2]))[:200]


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    async with await anyio.open_file(path, "rb") as file:
        while chunk := await file.read(256 * 1024):
            yield chunk

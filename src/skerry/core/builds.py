"""Builds of templates: a recipe is carried out step by step, each in a sandbox on the image that the steps before made.

A step's result, one layer, is remembered under a key made of all that it depends on: the layers below, the step, who it
runs as and where, and the files it copies. The same step on the same image is not carried out again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import posixpath
import re
import shlex
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence, Set
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import anyio.abc
from anyio.to_thread import run_sync as to_thread
from pydantic import TypeAdapter, ValidationError

from skerry.core.templates import Templates, parse
from skerry.errors import (
    Error,
    InvalidRequest,
    LimitExceeded,
    NotFound,
    RequestTooLarge,
    TemplateBuildFailed,
    TemplateNotFound,
    UserNotFound,
)
from skerry.expansion import expand
from skerry.models import (
    Build,
    BuildLine,
    BuildState,
    Environment,
    Exit,
    Image,
    Limits,
    Output,
    Recipe,
    Stage,
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
UNNAMED_KEPT_S = 24 * 3600.0
"""How long builds that no tag means are known."""
UPLOADS_MAX = 32 << 30
"""Bytes of all files of one tenant."""
WAITING_MAX = 1000
"""Builds that were requested and not begun, of one tenant."""
UPLOADS_KEPT_S = 7 * 24 * 3600.0
BASE, FINALIZE = "base", "finalize"
_STEP_DISK_MIB = 20_480
_ENVIRONMENT: TypeAdapter[dict[str, str]] = TypeAdapter(Environment)
_PATH_FILE = "/etc/profile.d/image-path.sh"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What docker takes for the PATH of an image that says nothing."""
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


@dataclass(eq=False)
class _Work:
    """One build under way."""

    build: Build
    recipe: Recipe
    tenant_id: str
    tags: list[str]
    stage: str = BASE
    parents: dict[str | None, Template] = field(default_factory=dict[str | None, Template])
    """The templates that stages start from, by their names; None: the recipe itself."""
    stages: dict[str, Image] = field(default_factory=dict[str, Image])
    """Those that are made."""
    log: list[BuildLine] = field(default_factory=list)
    characters: int = 0
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    """Cancelled when the template is removed."""
    news: anyio.Event = field(default_factory=anyio.Event)
    """Set, and replaced, with each line and at the end."""

    def say(self, text: str, level: str = "info") -> None:
        self.characters += len(text)
        if len(self.log) < LOG_MAX and self.characters < LOG_CHARACTERS_MAX:
            self.log.append(BuildLine(at=datetime.now(UTC), level=level, text=text[:4000], step=self.stage))
            self.tell()

    def tell(self) -> None:
        news, self.news = self.news, anyio.Event()
        news.set()


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
        for build in await self._store.unfinished():
            lost = {"state": BuildState.FAILED, "message": "the server ended before the build did", "step": BASE}
            await self._store.save(build.model_copy(update=lost))

    async def tidy(self) -> None:
        """To be called from time to time: forget builds that no tag means, and uploads, when they are old."""
        await to_thread(self._sweep)
        for build_id in await self._store.remove_unnamed(datetime.now(UTC) - timedelta(seconds=UNNAMED_KEPT_S)):
            self._images.let_go(build_id)
            self._waiting.pop(build_id, None)

    # --- asking -----------------------------------------------------------------------------------------------------

    async def request(self, tenant_id: str, name: str, tags: Sequence[str], limits: Limits) -> tuple[Build, list[str]]:
        """A build of the template of that name (with a tag, if one is named) that has not begun, and its tags.

        Raises:
            InvalidRequest
        """
        bare, tag = parse(name)
        wanted = [tag] if ":" in name or not tags else []
        wanted += [parse(f"{bare}:{text}")[1] for text in tags]
        if (waiting := sum(tenant == tenant_id for tenant, _ in self._waiting.values())) >= WAITING_MAX:
            raise LimitExceeded(
                f"cannot request another build: {WAITING_MAX} wait to be begun", limit=WAITING_MAX, current=waiting
            )
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
        self._admit(tenant_id, recipe)
        _, tags = self._waiting.pop(build.id)
        work = _Work(build, recipe, tenant_id, tags)
        work.build = build.model_copy(update={"state": BuildState.BUILDING})
        await self._store.save(work.build)
        self._works[build.id] = work
        assert self._group is not None
        self._group.start_soon(self._run, work, name=f"build {build.id}")

    async def build(self, tenant_id: str, name: str, tags: Sequence[str], limits: Limits, recipe: Recipe) -> Build:
        """`request` and `begin` in one. Raises LimitExceeded, InvalidRequest."""
        self._admit(tenant_id, recipe)
        build, _ = await self.request(tenant_id, name, tags, limits)
        await self.begin(tenant_id, build.template_id, build.id, recipe)
        return await self.get(tenant_id, build.template_id, build.id)

    def _admit(self, tenant_id: str, recipe: Recipe) -> None:
        check_recipe(recipe)
        if (busy := sum(work.tenant_id == tenant_id for work in self._works.values())) >= BUILDING_MAX:
            raise LimitExceeded(
                f"cannot begin another build: {BUILDING_MAX} are under way", limit=BUILDING_MAX, current=busy
            )

    async def get(self, tenant_id: str, template_id: str, build_id: str) -> Build:
        """A build as it is now, with its log. Raises NotFound, TemplateNotFound."""
        record = await self._templates.record(tenant_id, template_id)
        if (work := self._works.get(build_id)) is not None and work.build.template_id == record.id:
            return work.build.model_copy(update={"log": work.log})
        build = await self._store.build(build_id)
        if build is None or build.template_id != record.id:
            raise NotFound(f"cannot find build {build_id}: the template has none of that id")
        return build

    async def follow(self, tenant_id: str, template_id: str, build_id: str) -> AsyncIterator[BuildLine | Build]:
        """The log of a build as it grows; last the build, when it has ended. Raises NotFound, TemplateNotFound."""
        build = await self.get(tenant_id, template_id, build_id)
        work = self._works.get(build.id)
        told = 0
        while work is not None:
            news, ended = work.news, build.id not in self._works
            while told < len(work.log):
                yield work.log[told]
                told += 1
            if ended:
                break
            if news is work.news:
                await news.wait()
        build = await self.get(tenant_id, template_id, build_id)
        for line in build.log[told:]:
            yield line
        yield build

    async def remove(self, tenant_id: str, reference: str) -> None:
        """A template with its builds, also those under way, and tags; sandboxes that run go on.

        Raises:
            TemplateNotFound
        """
        record = await self._templates.record(tenant_id, reference)
        for work in self._works.values():
            if work.build.template_id == record.id:
                work.scope.cancel()
        for build_id in await self._store.remove(record.id):
            self._images.let_go(build_id)
        self._templates.forget()

    # --- files ------------------------------------------------------------------------------------------------------

    def has_files(self, tenant_id: str, digest: str) -> bool:
        """Whether files were uploaded under that hash; if so they are kept on. Raises InvalidRequest."""
        try:
            os.utime(self._archive(tenant_id, digest))
        except FileNotFoundError:
            return False
        return True

    async def upload(self, tenant_id: str, digest: str, chunks: AsyncIterator[bytes]) -> None:
        """Keep an archive for the `copy` steps that name that hash, for UPLOADS_KEPT_S: wholly or not at all.

        Raises:
            InvalidRequest, RequestTooLarge
        """
        path = anyio.Path(self._archive(tenant_id, digest))
        await path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = await to_thread(_size_bytes, Path(path.parent))
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
                    if held + UPLOAD_MAX - left > UPLOADS_MAX:
                        raise LimitExceeded(
                            f"cannot take more files: {held} bytes of yours are kept, each for a week; "
                            f"{UPLOADS_MAX} are possible", limit=UPLOADS_MAX, current=held,
                        )  # fmt: skip
                    await file.write(chunk)
            await partial.rename(path)
        finally:
            with anyio.CancelScope(shield=True):
                await partial.unlink(missing_ok=True)

    def _sweep(self) -> None:
        for path in self._files.glob("*/*"):
            with suppress(FileNotFoundError):  # an upload that has just been finished
                if time.time() - path.stat().st_mtime > UPLOADS_KEPT_S:
                    path.unlink()

    def _archive(self, tenant_id: str, digest: str) -> Path:
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise InvalidRequest(f"cannot use {digest[:80]!r} as the hash of files: 64 hexadecimal digits are one")
        return self._files / tenant_id / f"{digest}.tar"

    # --- carrying out -----------------------------------------------------------------------------------------------

    async def _run(self, work: _Work) -> None:
        message, made = None, work.build
        try:
            with work.scope, anyio.fail_after(BUILD_TIMEOUT_S):
                template = await self._carry_out(work)
            if work.scope.cancelled_caught:
                raise TemplateNotFound("the template was removed")
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
            self._images.let_go(build.id)
            if not work.scope.cancel_called:  # its template is there, and nobody must wait for it for ever
                logger.exception("cannot keep build %s", work.build.id)
                lost = {"state": BuildState.FAILED, "message": "its result could not be kept", "step": FINALIZE}
                with suppress(Exception):
                    await self._store.save(work.build.model_copy(update=lost))
        self._works.pop(work.build.id, None)
        work.tell()

    async def _carry_out(self, work: _Work) -> Template:
        recipe = work.recipe
        image = await self._made(work, recipe, None)
        work.stage = FINALIZE
        image = await self._with_path(work, image)
        parent = work.parents.get(None)
        started = recipe if recipe.start_command is not None or parent is None else parent
        template = Template(
            name=work.build.name, image=await to_thread(self._images.add, image), limits=work.build.limits,
            built_at=datetime.now(UTC), languages=parent.languages if parent else [],
            size_mib=await to_thread(self._images.size_mib, image), env=image.env, user=image.user,
            workdir=image.workdir, build_id=work.build.id, start_command=started.start_command,
            ready_command=started.ready_command,
        )  # fmt: skip
        work.say("making it ready to be started")
        await self._engine.prepare(template)
        return template

    async def _made(self, work: _Work, stage: Stage, name: str | None) -> Image:
        """The image of a stage, with all its steps. `name`: None for the recipe itself."""
        work.stage = BASE
        image = await self._base(work, stage, name)
        prefix = f"{name} " if name is not None else ""
        force = work.recipe.force
        for number, step in enumerate(stage.steps, 1):
            if step.from_stage is not None:
                await self._stage(work, step.from_stage)
            work.stage = str(number)
            work.say(f"[{prefix}{number}/{len(stage.steps)}] {step.kind.upper()} {_shown(step)}")
            force |= step.force
            image = await self._step(work, image, step, force)
        return image

    async def _stage(self, work: _Work, name: str) -> Image:
        """Another stage of the recipe, made when it is first asked for."""
        if name not in work.stages:
            work.stages[name] = await self._made(work, work.recipe.stages[name], name)
        return work.stages[name]

    # --- the image to start from ------------------------------------------------------------------------------------

    async def _base(self, work: _Work, stage: Stage, name: str | None) -> Image:
        if stage.from_stage is not None:
            image = await self._stage(work, stage.from_stage)
            if (parent := work.parents.get(stage.from_stage)) is not None:
                work.parents[name] = parent
            return image
        if stage.from_template is not None:
            return await self._of_template(work, stage, name, stage.from_template)
        if stage.from_files is not None:
            image = await self._loaded(work, stage.from_files)
        else:
            assert stage.from_image is not None
            wanted = self._aliased(stage.from_image)
            if wanted.startswith("template:"):
                return await self._of_template(work, stage, name, wanted.removeprefix("template:"))
            work.say(f"pulling {wanted}")
            try:
                image = await self._puller.pull(wanted, stage.registry, work.say)
            except Error as error:
                stand_in = self._stand_ins.get(wanted.partition(":")[0])
                if error.code != "image.unreachable" or stand_in is None:
                    raise
                work.say(f"{error.message}; template {stand_in} stands in for it", "warn")
                return await self._of_template(work, stage, name, stand_in)
        how = {"workdir": image.workdir or "/"} if stage.as_image else {"user": "user", "workdir": None}
        return await self._provisioned(work, image.model_copy(update=how))

    async def _loaded(self, work: _Work, digest: str) -> Image:
        path = self._archive(work.tenant_id, digest)
        if not await anyio.Path(path).exists():
            raise TemplateBuildFailed("cannot start from files: they were not uploaded", log=[])
        return await self._puller.load(path, work.say)

    async def _of_template(self, work: _Work, stage: Stage, name: str | None, reference: str) -> Image:
        template = await self._templates.get(work.tenant_id, reference)
        work.say(f"starting from template {template.name}")
        work.parents[name] = template
        how = {"env": dict(template.env), "user": "user", "workdir": None}
        if stage.as_image:
            # In place of an image, it has to behave as one.
            how |= (
                {"user": template.user, "workdir": template.workdir}
                if stage.from_template is not None
                else {"user": "root", "workdir": "/"}
            )
        return self._images.image(template.image).model_copy(update=how)

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

    async def _with_path(self, work: _Work, image: Image) -> Image:
        """Login shells, which run commands, set PATH anew: they are told of the image's."""
        path = image.env.get("PATH")
        if path is None:
            return image
        digest = await to_thread(self._images.add, image)
        key = _key(digest, ["path", path])
        layer = self._images.known_layer(key)
        if layer is None:
            async with self._engine.workbench(digest, _limits(work)) as bench:
                await bench.agent.write_file(_PATH_FILE, f"PATH={shlex.quote(path)}\n".encode(), user="0", mode=0o644)
                layer = await bench.commit()
            await to_thread(self._images.remember_layer, key, layer)
        return image.model_copy(update={"layers": [*image.layers, layer]})

    # --- steps ------------------------------------------------------------------------------------------------------

    async def _step(self, work: _Work, image: Image, step: Step, force: bool) -> Image:
        step = _expanded(step, image)
        if step.kind is StepKind.ENV:
            env = dict(zip(step.args[::2], step.args[1::2], strict=True))
            return image.model_copy(update={"env": _environment({**image.env, **env})})
        digest = await to_thread(self._images.add, image)
        copied = work.stages[step.from_stage] if step.from_stage is not None else None
        how = step.model_dump(mode="json", include={"kind", "args", "files", "shell", "variables"})
        key = _key(digest, [work.tenant_id, how, copied.layers if copied is not None else None])
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
            command = [*(step.shell or _SHELL), first]
            given = image.model_copy(update={"env": {**step.variables, **image.env}})
            await _run(work, agent, command, first, user=user, image=given)
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
        if step.from_stage is not None:
            source = f"/{posixpath.normpath('/' + source).lstrip('/')}"
        place = _absolute(image, target) + ("/" if target.endswith("/") else "")
        async with self._copied(work, step, source) as chunks:
            entries = await agent.unpack(
                place, chunks, source=source, owner=owner or image.user, mode=int(mode, 8) if mode else None, user="0"
            )
        if entries == 0:
            where = "the files that were uploaded" if step.files is not None else f"stage {step.from_stage}"
            raise TemplateBuildFailed(f"cannot copy {source}: {where} hold nothing of that name", log=[])

    @asynccontextmanager
    async def _copied(self, work: _Work, step: Step, source: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """The archive that a step copies from."""
        if step.from_stage is not None:
            # A stage's files are read inside a sandbox, as everything in them is.
            digest = await to_thread(self._images.add, work.stages[step.from_stage])
            async with (
                self._engine.workbench(digest, _limits(work)) as bench,
                bench.agent.pack(source, user="0") as tar,
            ):
                yield tar
            return
        assert step.files is not None
        path = self._archive(work.tenant_id, step.files)
        if not await anyio.Path(path).exists():
            raise TemplateBuildFailed(f"cannot copy {source}: its files were not uploaded", log=[])
        yield _chunks(path)


def _environment(env: dict[str, str]) -> dict[str, str]:
    """Raises InvalidRequest."""
    try:
        return _ENVIRONMENT.validate_python(env)
    except ValidationError as error:
        raise InvalidRequest(f"cannot set the environment: {error.errors()[0]['msg']}") from None


def _expanded(step: Step, image: Image) -> Step:
    """Raises InvalidRequest."""
    if not step.expand or step.kind is StepKind.RUN:
        return step
    variables = {"PATH": _PATH, **step.variables, **image.env}
    made = step.model_copy(
        update={"args": [expand(word, variables) for word in step.args], "variables": {}, "expand": False}
    )
    if problem := _problem(made):
        raise InvalidRequest(problem)
    return made


def check_recipe(recipe: Recipe) -> None:
    """Raises InvalidRequest, with what is wrong and where."""
    earlier: set[str] = set()
    for name, stage in recipe.stages.items():
        _check_stage(f"stage {name}", stage, earlier)
        earlier.add(name)
    _check_stage("the recipe", recipe, earlier)


def _check_stage(shown: str, stage: Stage, earlier: Set[str]) -> None:
    sources = [stage.from_image, stage.from_template, stage.from_stage, stage.from_files]
    if sum(source is not None for source in sources) != 1:
        raise InvalidRequest(
            f"cannot build: {shown} must name an image, a template, a stage or files to start from, and only one of "
            "them"
        )
    for number, name in enumerate([stage.from_stage, *(step.from_stage for step in stage.steps)]):
        if name is not None and name not in earlier:
            where = f"step {number} of {shown}" if number else shown
            raise InvalidRequest(f"cannot build: {where} takes from {name!r}, and no earlier stage has that name")
    for number, step in enumerate(stage.steps, 1):
        if problem := _problem(step):
            raise InvalidRequest(f"cannot build: step {number} of {shown}: {problem}")


def _problem(step: Step) -> str | None:
    if step.kind is StepKind.ENV:
        return "a name has no value" if len(step.args) % 2 else None
    if step.kind is not StepKind.COPY:
        return None
    _, target, _, mode = (*step.args, "", "", "", "")[:4]
    if not target or (step.files is None) == (step.from_stage is None):
        return "copy needs a source, a target, and either the hash of uploaded files or a stage"
    if mode and not step.expand and not re.fullmatch("(0o?)?[0-7]{3,4}", mode):
        return f"{mode!r} is no mode: it is octal, as in 0644"
    return None


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


def _size_bytes(directory: Path) -> int:
    total = 0
    for path in directory.iterdir():
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


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

"""Builds of templates, as they are asked for: requested, begun, followed, and forgotten when no tag means them.

How a recipe becomes a template: `making`.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import anyio
import anyio.abc
from anyio.to_thread import run_sync as to_thread

from skerry.core.making import BASE, FINALIZE, Making, Progress, Workshop
from skerry.core.recipes import check_recipe
from skerry.core.templates import Templates, parse
from skerry.errors import Error, LimitExceeded, NotFound
from skerry.models import Build, BuildLine, BuildState, Limits, Recipe, Template
from skerry.ports import BuildStore, Images

logger = logging.getLogger(__name__)

BUILDING_MAX = 20
"""Builds under way, of one tenant."""
WAITING_MAX = 1000
"""Builds that were requested and not begun, of one tenant."""
BUILD_TIMEOUT_S = 3600.0
UNNAMED_KEPT_S = 24 * 3600.0
"""How long builds that no tag means are known."""


@dataclass(eq=False)
class _Work:
    """One build under way."""

    build: Build
    tenant_id: str
    tags: list[str]
    progress: Progress = field(default_factory=Progress)
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    """Cancelled when the template is removed."""


class Builds:
    """All builds of this server.

    Args:
        images: keeps those that builds have made.
        workshop: what they are made with.
    """

    def __init__(self, store: BuildStore, templates: Templates, images: Images, workshop: Workshop) -> None:
        self._store, self._templates, self._images, self.workshop = store, templates, images, workshop
        self._waiting: dict[str, tuple[str, list[str]]] = {}  # build → tenant, tags
        self._works: dict[str, _Work] = {}
        self._group: anyio.abc.TaskGroup | None = None

    async def start(self, group: anyio.abc.TaskGroup) -> None:
        """Builds run in `group`. Those that an earlier server did not finish have failed."""
        self._group = group
        for build in await self._store.unfinished():
            await self._store.save(_failed(build, "the server ended before the build did", BASE))

    async def tidy(self) -> None:
        """To be called from time to time: forget builds that no tag means, when they are old."""
        for build_id in await self._store.remove_unnamed(datetime.now(UTC) - timedelta(seconds=UNNAMED_KEPT_S)):
            self._forget(build_id)

    def _forget(self, build_id: str) -> None:
        self._images.let_go(build_id)
        self._waiting.pop(build_id, None)

    # --- asking -----------------------------------------------------------------------------------------------------

    async def request(self, tenant_id: str, name: str, tags: Sequence[str], limits: Limits) -> tuple[Build, list[str]]:
        """A build of the template of that name (with a tag, if one is named) that has not begun, and its tags.

        Raises:
            InvalidRequest, LimitExceeded
        """
        bare, tag = parse(name)
        wanted = [tag] if ":" in name or not tags else []
        wanted += [parse(f"{bare}:{text}")[1] for text in tags]
        if (waiting := sum(tenant == tenant_id for tenant, _ in self._waiting.values())) >= WAITING_MAX:
            raise LimitExceeded(
                f"cannot request another build: {WAITING_MAX} wait to be begun", limit=WAITING_MAX, current=waiting
            )
        build_id = str(uuid.uuid4())
        self._waiting[build_id] = tenant_id, wanted  # before anything is awaited: many at once are counted, too
        try:
            record = await self._templates.make(tenant_id, bare)
            build = Build(
                id=build_id, template_id=record.id, name=record.name, limits=limits, created_at=datetime.now(UTC)
            )
            await self._store.save(build)
        except BaseException:
            self._waiting.pop(build_id, None)
            raise
        return build, wanted

    async def begin(self, tenant_id: str, template_id: str, build_id: str, recipe: Recipe) -> None:
        """Carry out the recipe, in the background.

        Raises:
            NotFound: no build of that id waits. TemplateNotFound, LimitExceeded, InvalidRequest
        """
        build = await self.get(tenant_id, template_id, build_id)
        if build.id not in self._waiting:
            raise NotFound(f"cannot begin build {build_id}: it has begun already")
        self._admit(tenant_id, recipe)
        _, tags = self._waiting.pop(build.id)
        work = _Work(build.model_copy(update={"state": BuildState.BUILDING}), tenant_id, tags)
        self._works[build.id] = work
        try:
            await self._store.save(work.build)
        except BaseException:
            self._end(work)
            raise
        assert self._group is not None
        self._group.start_soon(self._carry_out, work, recipe, name=f"build {build.id}")

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
            return work.build.model_copy(update={"log": work.progress.log})
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
            news, ended = work.progress.news, build.id not in self._works
            while told < len(work.progress.log):
                yield work.progress.log[told]
                told += 1
            if ended:
                break
            if news is work.progress.news:
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
            self._forget(build_id)
        self._templates.forget()

    # --- from its begin to its end ----------------------------------------------------------------------------------

    async def _carry_out(self, work: _Work, recipe: Recipe) -> None:
        template, message = None, "the server was stopped"
        try:
            with work.scope, anyio.move_on_after(BUILD_TIMEOUT_S) as limit:
                template = await Making(self.workshop, work.build, work.tenant_id, recipe, work.progress).template()
            late = f"the build took more than {BUILD_TIMEOUT_S:.0f} s"
            message = late if limit.cancelled_caught else "the template was removed"  # unless there is one
        except Error as error:
            message = error.message
        except Exception:
            logger.exception("fault in build %s", work.build.id)
            message = "a fault of the server's; its log has the details"
        finally:
            with anyio.CancelScope(shield=True):
                await self._finish(work, template, message)

    async def _finish(self, work: _Work, template: Template | None, message: str) -> None:
        """Tell of its end only when its tags mean it. `message`: why there is no template."""
        if template is not None:
            work.progress.say(f"build finished: {template.image}")
            build = work.build.model_copy(update={"state": BuildState.READY, "template": template})
        else:
            work.progress.say(message, "error")
            build = _failed(work.build, message, work.progress.step)
        try:
            if template is not None:
                await to_thread(self._images.keep, build.id, template.image)
            await self._store.save(build.model_copy(update={"log": work.progress.log}))
            if template is not None:
                for tag in work.tags:
                    await self._store.tag(build.template_id, tag, build.id)
                self._templates.forget()
        except Exception:
            self._images.let_go(build.id)
            if not work.scope.cancel_called:  # its template is there, and nobody must wait for it for ever
                logger.exception("cannot keep build %s", build.id)
                with suppress(Exception):
                    await self._store.save(_failed(work.build, "its result could not be kept", FINALIZE))
        self._end(work)

    def _end(self, work: _Work) -> None:
        self._works.pop(work.build.id)
        work.progress.tell()


def _failed(build: Build, message: str, step: str) -> Build:
    return build.model_copy(update={"state": BuildState.FAILED, "message": message, "step": step})

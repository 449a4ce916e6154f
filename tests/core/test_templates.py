"""Names of templates: what ships, what users build, and tags."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from skerry.core import Core
from skerry.core.templates import parse
from skerry.errors import InvalidRequest, TemplateNotFound
from skerry.models import Build, BuildState, Limits
from skerry.store.builds import SqlBuilds

from .test_sandboxes import Engine, core_on

pytestmark = pytest.mark.anyio
LIMITS = Limits(cpu=1, memory_mib=512, disk_mib=100, pids=64)


@pytest.mark.parametrize(
    ("reference", "meant"),
    [
        ("base", ("base", "default")),
        ("Base:V1.0", ("base", "v1.0")),
        ("team/base:v1", ("base", "v1")),
        (" my_app.x-1 ", ("my_app.x-1", "default")),
    ],
)
def test_references(reference: str, meant: tuple[str, str]) -> None:
    assert parse(reference) == meant


@pytest.mark.parametrize("reference", ["", ":tag", "base:", "ba se", "../x y", "base:a:b", "base:ä", "x" * 200])
def test_references_that_are_none(reference: str) -> None:
    with pytest.raises(InvalidRequest):
        parse(reference)


async def built(core: Core, store: SqlBuilds, name: str, *tags: str, tenant: str = "t") -> Build:
    build, given = await core.builds.request(tenant, name, tags, LIMITS)
    made = core.templates._shipped.template("base").model_copy(update={"name": name, "build_id": build.id})
    build = build.model_copy(update={"state": BuildState.READY, "template": made})
    await store.save(build)
    for tag in given:
        await store.tag(build.template_id, tag, build.id)
    core.templates.forget()  # as a build does at its end
    return build


async def test_a_tenants_own_goes_first_and_others_do_not_see_it(tmp_path: Path) -> None:
    engine = Engine()
    async with core_on(tmp_path, engine) as core:
        store = core.builds._store
        assert (await core.templates.get("t", "base")).build_id is None
        build = await built(core, store, "base")
        assert (await core.templates.get("t", "base")).build_id == build.id
        assert (await core.templates.get("t", build.template_id)).build_id == build.id
        assert (await core.templates.get("other", "base")).build_id is None
        assert [template.name for template in await core.templates.all("other")] == ["base"]
        with pytest.raises(TemplateNotFound):
            await core.templates.get("other", build.template_id)
        with pytest.raises(TemplateNotFound):
            await core.templates.tags("other", "base")
    engine.close()


async def test_tags_move_and_go(tmp_path: Path) -> None:
    engine = Engine()
    async with core_on(tmp_path, engine) as core:
        store = core.builds._store
        first = await built(core, store, "app:v1")
        second = await built(core, store, "app", "v2", "latest")
        assert (await core.templates.get("t", "app:v1")).build_id == first.id
        assert (await core.templates.get("t", "app:latest")).name == "app:latest"
        with pytest.raises(TemplateNotFound):
            await core.templates.get("t", "app")
        assert await core.templates.tag("t", "app:v1", ["app:latest", "stable"]) == (first.id, ["latest", "stable"])
        assert (await core.templates.get("t", "app:latest")).build_id == first.id
        for wrong in ("app:", ":x", "other:x", "a b"):
            with pytest.raises(InvalidRequest):
                await core.templates.tag("t", "app:v1", [wrong])
        with pytest.raises(TemplateNotFound):
            await core.templates.untag("t", "app", ["stable", "nosuch"])
        assert {tag.tag: tag.build_id for tag in await core.templates.tags("t", "app")} == {
            "v1": first.id, "v2": second.id, "latest": first.id,
        }  # fmt: skip
        await core.builds.remove("t", "app")
        with pytest.raises(TemplateNotFound):
            await core.templates.get("t", "app:v1")
        assert await store.build(first.id) is None
    engine.close()


async def test_a_build_that_is_not_ready_is_no_template(tmp_path: Path) -> None:
    engine = Engine()
    async with core_on(tmp_path, engine) as core:
        build, _ = await core.builds.request("t", "app", [], LIMITS)
        await core.builds._store.tag(build.template_id, "default", build.id)
        with pytest.raises(TemplateNotFound):
            await core.templates.get("t", "app")
        assert build.created_at <= datetime.now(UTC)
    engine.close()

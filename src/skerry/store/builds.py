"""`ports.BuildStore` in the same database."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa

from skerry.models import Build, BuildState, Tag
from skerry.ports import TemplateRecord
from skerry.store.sql import SqlStore
from skerry.store.tables import builds, tags, templates


class SqlBuilds:
    """Templates that users build, their builds and tags."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    async def template(self, tenant_id: str, reference: str, *, make: str | None = None) -> TemplateRecord | None:
        """See `ports.BuildStore.template`."""

        def work(connection: sa.Connection) -> TemplateRecord | None:
            mine = templates.c.tenant_id == tenant_id
            named = sa.or_(templates.c.name == reference, templates.c.id == reference)
            row = connection.execute(sa.select(templates).where(mine, named)).first()
            if row is not None:
                return TemplateRecord(row.id, row.name)
            if make is None:
                return None
            now = datetime.now(UTC).timestamp()
            values = {"id": make, "tenant_id": tenant_id, "name": reference, "created_at": now}
            connection.execute(sa.insert(templates).values(values))
            return TemplateRecord(make, reference)

        return await self._store.write(work)

    async def templates(self, tenant_id: str) -> list[TemplateRecord]:
        """See `ports.BuildStore.templates`."""
        query = sa.select(templates).where(templates.c.tenant_id == tenant_id).order_by(templates.c.name)
        return [TemplateRecord(row.id, row.name) for row in await self._store.write(lambda c: c.execute(query).all())]

    async def remove(self, template_id: str) -> list[str]:
        """See `ports.BuildStore.remove`."""

        def work(connection: sa.Connection) -> list[str]:
            found = (
                connection.execute(sa.select(builds.c.id).where(builds.c.template_id == template_id)).scalars().all()
            )
            connection.execute(sa.delete(templates).where(templates.c.id == template_id))
            return list(found)

        return await self._store.write(work)

    async def save(self, build: Build) -> None:
        """See `ports.BuildStore.save`."""
        values = {
            "id": build.id, "template_id": build.template_id, "document": build.model_dump(mode="json"),
            "created_at": build.created_at.timestamp(),
        }  # fmt: skip

        def work(connection: sa.Connection) -> None:
            changed = connection.execute(sa.update(builds).where(builds.c.id == build.id).values(values))
            if changed.rowcount == 0:
                connection.execute(sa.insert(builds).values(values))

        await self._store.write(work)

    async def build(self, build_id: str) -> Build | None:
        """See `ports.BuildStore.build`."""
        query = sa.select(builds.c.document).where(builds.c.id == build_id)
        found = await self._store.write(lambda c: c.execute(query).scalar())
        return None if found is None else Build.model_validate(found, strict=False)

    async def unfinished(self) -> list[Build]:
        """See `ports.BuildStore.unfinished`."""
        state = builds.c.document["state"].as_string()
        query = sa.select(builds.c.document).where(state.in_([BuildState.WAITING.value, BuildState.BUILDING.value]))
        rows = await self._store.write(lambda c: c.execute(query).scalars().all())
        return [Build.model_validate(document, strict=False) for document in rows]

    async def remove_unnamed(self, before: datetime) -> list[str]:
        """See `ports.BuildStore.remove_unnamed`."""
        named = sa.select(tags.c.build_id)
        unnamed = sa.and_(builds.c.created_at < before.timestamp(), builds.c.id.not_in(named))

        def work(connection: sa.Connection) -> list[str]:
            found = connection.execute(sa.select(builds.c.id).where(unnamed)).scalars().all()
            connection.execute(sa.delete(builds).where(unnamed))
            return list(found)

        return await self._store.write(work)

    async def tag(self, template_id: str, tag: str, build_id: str) -> None:
        """See `ports.BuildStore.tag`."""

        def work(connection: sa.Connection) -> None:
            same = sa.and_(tags.c.template_id == template_id, tags.c.tag == tag)
            connection.execute(sa.delete(tags).where(same))
            values = {"template_id": template_id, "tag": tag, "build_id": build_id}
            connection.execute(sa.insert(tags).values(created_at=datetime.now(UTC).timestamp(), **values))

        await self._store.write(work)

    async def untag(self, template_id: str, tag: str) -> bool:
        """See `ports.BuildStore.untag`."""
        same = sa.and_(tags.c.template_id == template_id, tags.c.tag == tag)
        return await self._store.write(lambda c: c.execute(sa.delete(tags).where(same)).rowcount > 0)

    async def tags(self, template_id: str) -> list[Tag]:
        """See `ports.BuildStore.tags`."""
        query = sa.select(tags).where(tags.c.template_id == template_id).order_by(tags.c.tag)
        rows = await self._store.write(lambda c: c.execute(query).all())
        return [
            Tag(tag=row.tag, build_id=row.build_id, created_at=datetime.fromtimestamp(row.created_at, UTC))
            for row in rows
        ]

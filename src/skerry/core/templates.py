"""Templates by name: those that ship, and those that users have built, with their tags.

A reference is `name`, `name:tag` or a template's id, in place of the name; the tag `default` is meant when none is
named. A tenant's own template goes before one that ships.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator, Sequence

from skerry.errors import InvalidRequest, TemplateNotFound
from skerry.models import Build, BuildState, Tag, Template
from skerry.ports import BuildStore, TemplateRecord
from skerry.ports import Templates as Shipped

DEFAULT_TAG = "default"
_KNOWN_MAX = 10_000
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")
_TAG = re.compile(r"[a-z0-9_][a-z0-9._-]{0,127}")


def parse(reference: str) -> tuple[str, str]:
    """Name and tag of a reference, in lower case. Raises InvalidRequest."""
    name, colon, tag = reference.strip().lower().rpartition("/")[2].partition(":")
    tag = tag if colon else DEFAULT_TAG
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"cannot use {reference!r} as a template's name: letters, digits, `.`, `_` and `-` make one"
        )
    if not _TAG.fullmatch(tag):
        raise InvalidRequest(f"cannot use {reference!r}: {tag!r} is no tag; letters, digits, `.`, `_` and `-` make one")
    return name, tag


class Templates:
    """All templates that tenants can use."""

    def __init__(self, shipped: Shipped, store: BuildStore) -> None:
        self._shipped, self._store = shipped, store
        # Every create asks; this server is the only one that writes to its store. None: the tenant has none of its own.
        self._known: dict[tuple[str, str, str], Template | None] = {}

    # --- what there is ----------------------------------------------------------------------------------------------

    async def all(self, tenant_id: str) -> list[Template]:
        """Those that are built, by name; a template of several tags once for each."""
        found = list(self._shipped.templates())
        for record in await self._store.templates(tenant_id):
            for tag in await self._store.tags(record.id):
                build = await self._store.build(tag.build_id)
                if build is not None and build.template is not None:
                    found.append(_named(build.template, record.name, tag.tag))
        return sorted(found, key=lambda template: template.name)

    async def get(self, tenant_id: str, reference: str) -> Template:
        """Raises TemplateNotFound: also for what no template can be named."""
        try:
            name, tag = parse(reference)
        except InvalidRequest as error:
            raise TemplateNotFound(error.message, template=reference) from None
        key = (tenant_id, name, tag)
        known = self._known
        if key in known:
            own = known[key]
        else:
            if len(known) >= _KNOWN_MAX:
                known.clear()
            # Into the dictionary of before the question: one that was forgotten meanwhile is nobody's any more.
            own = known[key] = await self._own(tenant_id, name, tag, reference)
        if own is None and tag != DEFAULT_TAG:
            raise _missing(reference)
        return own or self._shipped.template(name)

    async def _own(self, tenant_id: str, name: str, tag: str, reference: str) -> Template | None:
        """The tenant's own; None when it has none of that name. Raises TemplateNotFound: it has, but not so tagged."""
        record = await self._store.template(tenant_id, name)
        if record is None:
            return None
        build = await self._tagged(record, tag)
        if build is None or build.template is None:
            raise _missing(reference)
        return _named(build.template, record.name, tag)

    def forget(self) -> None:
        """To be called when a template, a build or a tag has changed."""
        self._known = {}

    def build(self, name: str) -> AsyncIterator[str]:
        """See `ports.Templates.build`."""
        return self._shipped.build(name)

    # --- those that users build -------------------------------------------------------------------------------------

    async def record(self, tenant_id: str, reference: str) -> TemplateRecord:
        """A template that the tenant builds, by its name or id. Raises TemplateNotFound, InvalidRequest."""
        record = await self._store.template(tenant_id, parse(reference)[0])
        if record is None:
            raise _missing(reference)
        return record

    async def make(self, tenant_id: str, name: str) -> TemplateRecord:
        """The template of that name, which is new if there was none. Raises InvalidRequest."""
        record = await self._store.template(tenant_id, parse(name)[0], make=secrets.token_hex(10))
        assert record is not None
        self.forget()
        return record

    async def tags(self, tenant_id: str, reference: str) -> list[Tag]:
        """Raises TemplateNotFound."""
        return await self._store.tags((await self.record(tenant_id, reference)).id)

    async def tag(self, tenant_id: str, reference: str, tags: Sequence[str]) -> tuple[str, list[str]]:
        """Give more tags to the build that a reference means; returns the build's id and the tags.

        Raises:
            TemplateNotFound, InvalidRequest
        """
        name, tag = parse(reference)
        wanted = [_tag_of(name, text) for text in tags]
        record = await self.record(tenant_id, name)
        build = await self._tagged(record, tag)
        if build is None:
            raise _missing(reference)
        for text in wanted:
            await self._store.tag(record.id, text, build.id)
        self.forget()
        return build.id, wanted

    async def untag(self, tenant_id: str, reference: str, tags: Sequence[str]) -> None:
        """Take tags away. Raises TemplateNotFound: also for a tag that is not there; the others are gone then."""
        record = await self.record(tenant_id, reference)
        missing = [tag for tag in tags if not await self._store.untag(record.id, _tag_of(record.name, tag))]
        self.forget()
        if missing:
            raise _missing(f"{record.name}:{missing[0]}")

    async def _tagged(self, record: TemplateRecord, tag: str) -> Build | None:
        for known in await self._store.tags(record.id):
            if known.tag == tag:
                build = await self._store.build(known.build_id)
                return build if build is not None and build.state is BuildState.READY else None
        return None


def _tag_of(name: str, text: str) -> str:
    """A tag, written alone or behind the template's name. Raises InvalidRequest."""
    if ":" not in text:
        return parse(f"{name}:{text}")[1]
    written, tag = parse(text)
    if written != name:
        raise InvalidRequest(f"cannot tag {name!r} with {text!r}: that is a tag of another template")
    return tag


def _named(template: Template, name: str, tag: str) -> Template:
    return template.model_copy(update={"name": name if tag == DEFAULT_TAG else f"{name}:{tag}"})


def _missing(reference: str) -> TemplateNotFound:
    return TemplateNotFound(f"cannot find template {reference!r}: none of that name or tag", template=reference)

"""E2B's snapshots. To its clients they are templates: their ids and names are what sandboxes are created from.

The id is `<id>:default`, of a named one `<namespace>/<name>:<tag>`. The tenant is the namespace, and `default` the tag
that is meant when none is named; the core knows a named one as `name` or `name:tag`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any

from fastapi import FastAPI, Query
from starlette.responses import JSONResponse, Response

from skerry.core.templates import DEFAULT_TAG, parse
from skerry.errors import InvalidRequest, SnapshotNotFound, TemplateNotFound
from skerry.facades.e2b.rest import Body, Caller, CallerOf, cut, record_of
from skerry.models import Snapshot, SnapshotSpec

_PAGE_MAX = 100


class TakeSnapshot(Body):
    name: str | None = None
    memory: bool | None = None


def add_routes(app: FastAPI) -> None:
    """Taking and listing; `templates` deletes."""
    app.post("/sandboxes/{sandbox_id}/snapshots", status_code=201)(take)
    app.get("/snapshots")(listing)


async def take(caller: CallerOf, sandbox_id: str, wanted: TakeSnapshot | None = None) -> Response:
    """`POST /sandboxes/{id}/snapshots`: one of the same name before, which nothing leads to any more, is removed."""
    wanted, record = wanted or TakeSnapshot(), await record_of(caller, sandbox_id)
    name = _new_name(caller, wanted.name) if wanted.name else None
    before = None if name is None else await find(caller, name)
    spec = SnapshotSpec(name=name, memory=wanted.memory is not False)
    snapshot = await caller.core.snapshots.take(caller.tenant_id, record.sandbox.id, spec)
    if before is not None and before.name == name:
        with suppress(SnapshotNotFound):
            await caller.core.snapshots.remove(caller.tenant_id, before.id)
    return JSONResponse(_shown(caller, snapshot), 201)


async def listing(
    caller: CallerOf, sandbox_id: Annotated[str | None, Query(alias="sandboxID")] = None, name: str | None = None,
    limit: Annotated[int, Query(ge=1, le=_PAGE_MAX)] = _PAGE_MAX,
    next_token: Annotated[str | None, Query(alias="nextToken", max_length=64)] = None,
) -> Response:  # fmt: skip
    """`GET /snapshots`: newest first, by pages; of a name the newest, of all its tags if none is named."""
    of = None if sandbox_id is None else cut(sandbox_id)
    if name is not None:
        found = await _named(caller, name)
        return JSONResponse([_shown(caller, one) for one in found[:1] if of in (None, one.sandbox_id)])
    page = await caller.core.snapshots.page(caller.tenant_id, sandbox_id=of, limit=limit, cursor=next_token or None)
    headers = {"X-Next-Token": page.next_cursor} if page.next_cursor else {}
    return JSONResponse([_shown(caller, one) for one in page.items], headers=headers)


async def meant(caller: Caller, reference: str) -> str | None:
    """Id of the snapshot that a sandbox shall be made of; None: a template is meant.

    A template goes before a snapshot of the same bare name.
    """
    if not is_qualified(reference):
        with suppress(TemplateNotFound):
            await caller.core.templates.get(caller.tenant_id, reference)
            return None
    found = await find(caller, reference)
    return None if found is None else found.id


def is_qualified(reference: str) -> bool:
    """Whether there is more to it than a bare name: then a snapshot goes before a template."""
    return "/" in reference or ":" in reference


async def remove(caller: Caller, reference: str) -> bool:
    """Whether there were snapshots that a reference meant: without a tag, those of all tags of a name.

    Raises:
        TemplateNotFound: there were none, and no template can be meant.
    """
    found = await _named(caller, reference)
    for one in found:
        with suppress(SnapshotNotFound):
            await caller.core.snapshots.remove(caller.tenant_id, one.id)
    if not found and "/" in reference:
        raise TemplateNotFound(f"cannot find {reference}: there is no such snapshot", template=reference)
    return bool(found)


async def find(caller: Caller, reference: str) -> Snapshot | None:
    """The one that a reference means: an id or a name, with or without namespace and tag."""
    name = _own(caller, reference)
    if name is None:
        return None
    name = name.removesuffix(f":{DEFAULT_TAG}")
    for wanted in dict.fromkeys((name, name.lower())):
        with suppress(SnapshotNotFound):
            return await caller.core.snapshots.get(caller.tenant_id, wanted)
    return None


async def _named(caller: Caller, reference: str) -> list[Snapshot]:
    """All that a reference means, newest first."""
    name = _own(caller, reference)
    if name is not None and ":" not in name:
        for wanted in dict.fromkeys((name, name.lower())):
            page = await caller.core.snapshots.page(caller.tenant_id, name=wanted, limit=_PAGE_MAX)
            if page.items:
                return page.items
    found = await find(caller, reference)
    return [] if found is None else [found]


def _own(caller: Caller, reference: str) -> str | None:
    """A reference without its namespace; None when that is another's."""
    namespace, slash, name = reference.strip().rpartition("/")
    return None if slash and namespace.lower() != caller.tenant_id.lower() else name


def _new_name(caller: Caller, reference: str) -> str:
    """Raises InvalidRequest."""
    if _own(caller, reference) is None:
        raise InvalidRequest(f"cannot name a snapshot {reference!r}: the namespace must be {caller.tenant_id!r}")
    name, tag = parse(reference)
    return name if tag == DEFAULT_TAG else f"{name}:{tag}"


def _shown(caller: Caller, snapshot: Snapshot) -> dict[str, Any]:
    """SnapshotInfo."""
    if snapshot.name is None:
        return {"snapshotID": f"{snapshot.id}:{DEFAULT_TAG}", "names": []}
    alias, _, tag = snapshot.name.partition(":")
    name = f"{caller.tenant_id}/{alias}"
    return {"snapshotID": f"{name}:{tag or DEFAULT_TAG}", "names": [name]}

"""API keys."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from skerry.facades.native.access import CallerOf
from skerry.facades.requests import Route
from skerry.models import Key, KeySpec, NewKey, Reply

router = APIRouter(route_class=Route, strict_content_type=False, prefix="/v1/keys", tags=["keys"])


class KeyList(Reply):
    items: list[Key]


@router.post("", status_code=201)
async def create(caller: CallerOf, spec: KeySpec) -> NewKey:
    """A new key; its secret is shown this once."""
    return await caller.core.keys.create(caller.tenant_id, spec)


@router.get("")
async def listing(caller: CallerOf) -> KeyList:
    """All keys, without their secrets."""
    return KeyList(items=await caller.core.keys.list(caller.tenant_id))


@router.delete("/{key_id}", status_code=204, response_class=Response)
async def revoke(caller: CallerOf, key_id: str) -> None:
    """The key opens nothing any more."""
    await caller.core.keys.revoke(caller.tenant_id, key_id)

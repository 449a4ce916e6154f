"""Who asks, and of which core: what every route begins with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends
from starlette.requests import HTTPConnection

from skerry.core import Core


@dataclass(frozen=True, slots=True)
class Caller:
    """The core, and the tenant that the caller's key speaks for."""

    core: Core
    tenant_id: str


async def authenticated(connection: HTTPConnection) -> Caller:
    """Raises Unauthenticated."""
    core = cast("Core", connection.app.state.core)
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    secret = token.strip() if scheme.lower() == "bearer" else connection.headers.get("x-api-key")
    return Caller(core, await core.keys.authenticate(secret))


CallerOf = Annotated[Caller, Depends(authenticated)]

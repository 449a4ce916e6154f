"""What the parts of E2B's control plane share: who asks, bodies, moments."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Header, Request
from pydantic import BaseModel, ConfigDict

from skerry.core import Core
from skerry.core.tokens import Tokens

ENVD_VERSION = "0.6.13"
"""Of the envd whose behaviour this is: SDKs ask before they use what is new."""


class Body(BaseModel):
    """What a client sends. Fields that we do not know are those of other versions: they are left alone."""

    model_config = ConfigDict(extra="ignore")


class Caller:
    """Who asks."""

    def __init__(self, core: Core, tokens: Tokens, domain: str | None, tenant_id: str) -> None:
        self.core, self.tokens, self.domain, self.tenant_id = core, tokens, domain, tenant_id


async def _authenticated(
    request: Request, x_api_key: Annotated[str | None, Header()] = None,
    authorization: Annotated[str | None, Header()] = None,
) -> Caller:  # fmt: skip
    """Raises Unauthenticated."""
    state = request.app.state
    secret = x_api_key or (authorization or "").partition(" ")[2].strip()
    return Caller(state.core, state.tokens, state.domain, await state.core.keys.authenticate(secret))


CallerOf = Annotated[Caller, Depends(_authenticated)]


def moment(at: datetime) -> str:
    """A time as E2B writes it."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")

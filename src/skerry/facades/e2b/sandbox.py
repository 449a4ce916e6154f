"""One sandbox as its own clients see it: found by its address, opened by its token."""

from __future__ import annotations

import binascii
from base64 import b64decode
from dataclasses import dataclass
from typing import Any, cast

from starlette.requests import HTTPConnection

from skerry.core import Core
from skerry.core.tokens import Tokens
from skerry.facades.e2b.errors import ConnectError

ENVD = "e2b-envd"
TRAFFIC = "e2b-traffic"
"""What tokens are for; see `core.tokens`."""
FACTS = "e2b"
"""Key of `SandboxRecord.internal` under which this façade keeps what only it knows."""
DEFAULT_USER = "user"


@dataclass(frozen=True, slots=True)
class SandboxCall:
    """A request to a running sandbox."""

    core: Core
    tokens: Tokens
    tenant_id: str
    id: str
    facts: dict[str, Any]

    @property
    def secure(self) -> bool:
        """Whether envd asks for its token."""
        return bool(self.facts.get("secure", True))

    @property
    def public(self) -> bool:
        """Whether programs in it are reached without a token."""
        return bool(self.facts.get("public", True))

    @property
    def mask_host(self) -> str | None:
        """The name that programs in it see as their own; `${PORT}` stands for the port."""
        return self.facts.get("mask_host")

    @property
    def where(self) -> tuple[str, str]:
        """What every call of the core begins with."""
        return self.tenant_id, self.id

    def check_token(self, token: str | None) -> None:
        """Raises ConnectError when the sandbox is secured and this is not its token."""
        if not self.secure:
            return
        if not token:
            raise ConnectError("unauthenticated", "no access token: send it as X-Access-Token")
        if not self.tokens.fits(token, self.id, ENVD):
            raise ConnectError("unauthenticated", "the access token is not this sandbox's")


def sandbox_of(connection: HTTPConnection) -> SandboxCall:
    """Put there by the front."""
    return cast("SandboxCall", connection.scope["skerry.sandbox"])


def user_of(connection: HTTPConnection) -> str:
    """Who is named by `Authorization: Basic <user>:`; the default user when nobody is.

    Raises:
        ConnectError: the header cannot be read.
    """
    scheme, _, value = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return DEFAULT_USER
    try:
        name = b64decode(value, validate=True).decode().partition(":")[0]
    except (binascii.Error, UnicodeDecodeError):
        raise ConnectError("unauthenticated", "the user in the Authorization header cannot be read") from None
    return name or DEFAULT_USER

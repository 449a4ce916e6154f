"""One sandbox as its own clients see it: found by its address, opened by its token."""

from __future__ import annotations

import binascii
from base64 import b64decode
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from starlette.requests import HTTPConnection
from starlette.responses import Response

from skerry.core import Core
from skerry.core.tokens import Tokens
from skerry.facades.e2b.errors import NOT_FOUND, ConnectError, unavailable
from skerry.models import UsageSample
from skerry.ports import SandboxRecord

ENVD = "e2b-envd"
TRAFFIC = "e2b-traffic"
"""What tokens are for; see `core.tokens`."""
FACTS = "facade.e2b"
"""Key of `SandboxRecord.internal` under which this façade keeps what only it knows."""
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Facts:
    """What only this façade knows of a sandbox. The defaults are for one that was not made through it."""

    secure: bool = True
    """Whether envd asks for its token."""
    public: bool = False
    """Whether programs in it are reached without a token."""
    mask_host: str | None = None
    """The name that programs in it see as their own; `${PORT}` stands for the port."""


def facts_of(record: SandboxRecord) -> Facts:
    return Facts(**record.internal.get(FACTS, {}))


@dataclass(frozen=True, slots=True)
class SandboxCall:
    """A request to a running sandbox."""

    core: Core
    tokens: Tokens
    tenant_id: str
    id: str
    facts: Facts
    user: str = "user"
    """Who is meant when nobody is named."""

    @property
    def where(self) -> tuple[str, str]:
        """What every call of the core begins with."""
        return self.tenant_id, self.id

    def check_token(self, token: str | None) -> None:
        """Raises ConnectError when the sandbox is secured and this is not its token."""
        if not self.facts.secure:
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
        return sandbox_of(connection).user
    try:
        name = b64decode(value, validate=True).decode().partition(":")[0]
    except (binascii.Error, UnicodeDecodeError):
        raise ConnectError("unauthenticated", "the user in the Authorization header cannot be read") from None
    return name or sandbox_of(connection).user


def named_user(connection: HTTPConnection) -> str:
    """The same, for messages about a request that may be wrong in just this."""
    try:
        return user_of(connection)
    except ConnectError:
        return sandbox_of(connection).user


@dataclass(frozen=True, slots=True)
class Use:
    """What a sandbox used at a moment, in E2B's units: bytes, whole cores, and per cent of all its cores."""

    at: datetime
    cpu_count: int
    cpu_used_pct: float
    """On average since the moment before, of the first since it was created."""
    mem_used: int
    mem_total: int
    disk_used: int
    disk_total: int


async def measured(core: Core, tenant_id: str, sandbox_id: str) -> list[Use]:
    """What it used over its life, the oldest first and last the present.

    Raises:
        SandboxNotFound, SandboxNotRunning
    """
    sandbox, stats = await core.sandboxes.get(tenant_id, sandbox_id), await core.sandboxes.stats(tenant_id, sandbox_id)
    present = UsageSample(
        at=datetime.now(UTC), cpu_used_s=stats.cpu_used_s, memory_used_mib=stats.memory_used_mib,
        disk_used_mib=stats.disk_used_mib,
    )  # fmt: skip
    limits, uses, since, before = sandbox.limits, list[Use](), sandbox.created_at, 0.0
    for sample in [*await core.sandboxes.history(tenant_id, sandbox_id), present]:
        core_seconds = max((sample.at - since).total_seconds(), 0.1) * limits.cpu
        used_pct = min(100.0, max(0.0, 100 * (sample.cpu_used_s - before) / core_seconds))
        uses.append(
            Use(
                sample.at, whole_cores(limits.cpu), round(used_pct, 2), int(sample.memory_used_mib * _MIB),
                limits.memory_mib * _MIB, int(sample.disk_used_mib * _MIB), limits.disk_mib * _MIB,
            )
        )  # fmt: skip
        since, before = sample.at, sample.cpu_used_s
    return uses


def whole_cores(cpu: float) -> int:
    """Clients expect a whole number."""
    return max(1, round(cpu))


async def gone(connection: HTTPConnection, error: Exception) -> Response:
    """The answer of a sandbox that has ended meanwhile: the same as when it had ended before."""
    return unavailable(connection, sandbox_of(connection).id, NOT_FOUND, close=True)

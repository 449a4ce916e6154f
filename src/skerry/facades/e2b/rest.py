"""What the parts of E2B's control plane share: who asks, bodies, moments, and sandboxes as it shows them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from pydantic import BaseModel, ConfigDict

from skerry.core import Core
from skerry.core.tokens import Tokens
from skerry.errors import SandboxNotFound
from skerry.facades.e2b.sandbox import ENVD, TRAFFIC, Facts, whole_cores
from skerry.models import OnTimeout, Sandbox, SandboxState
from skerry.ports import SandboxRecord

ENVD_VERSION = "0.6.13"
"""Of the envd whose behaviour this is: SDKs ask before they use what is new."""
_CLIENT_ID = "skerry"
_NEVER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
RESTING = (SandboxState.PAUSED, SandboxState.STOPPED)
"""What E2B calls paused: one that is stopped is one without memory."""


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


# --- sandboxes ------------------------------------------------------------------------------------------------------


def cut(sandbox_id: str) -> str:
    """Older clients write `id-clientID`."""
    return sandbox_id.partition("-")[0]


async def record_of(caller: Caller, sandbox_id: str) -> SandboxRecord:
    """Of one that has not ended. Raises SandboxNotFound."""
    record = await caller.core.sandboxes.record(caller.tenant_id, cut(sandbox_id))
    if record.sandbox.state is not SandboxState.RUNNING and record.sandbox.state not in RESTING:
        raise SandboxNotFound(f"cannot find sandbox {sandbox_id}: it has ended", sandbox_id=sandbox_id)
    return record


def opened(caller: Caller, sandbox: Sandbox, facts: Facts) -> dict[str, Any]:
    """Sandbox: what a client needs to use it."""
    shown: dict[str, Any] = {**_named(sandbox), "domain": caller.domain}
    if facts.secure:
        shown["envdAccessToken"] = caller.tokens.of(sandbox.id, ENVD)
        shown["trafficAccessToken"] = caller.tokens.of(sandbox.id, TRAFFIC)
    return shown


def listed(sandbox: Sandbox) -> dict[str, Any]:
    """ListedSandbox."""
    resting = sandbox.state in RESTING
    shown = {
        **_named(sandbox), "startedAt": moment(sandbox.created_at), "state": "paused" if resting else "running",
        "endAt": moment(_ends(sandbox)), "cpuCount": whole_cores(sandbox.limits.cpu), "metadata": sandbox.metadata,
        "memoryMB": sandbox.limits.memory_mib, "diskSizeMB": sandbox.limits.disk_mib,
        "volumeMounts": [{"name": volume.name, "path": volume.path} for volume in sandbox.volumes],
        "lifecycle": {
            "autoResume": sandbox.auto_resume,
            "onTimeout": "pause" if sandbox.on_timeout is OnTimeout.PAUSE else "kill",
        },
    }  # fmt: skip
    if resting:
        shown["pauseMode"] = "full" if keeps_memory(sandbox) else "filesystem"
    return shown


def keeps_memory(sandbox: Sandbox) -> bool:
    """Of one that rests: whether its processes go on when it is resumed."""
    return sandbox.rest is not None and sandbox.rest.memory


def _named(sandbox: Sandbox) -> dict[str, Any]:
    """One that was started from a snapshot has that as its template, and no alias."""
    shown = {"sandboxID": sandbox.id, "clientID": _CLIENT_ID, "envdVersion": ENVD_VERSION}
    if sandbox.snapshot is not None:
        return {**shown, "templateID": sandbox.snapshot}
    return {**shown, "templateID": sandbox.template, "alias": sandbox.template}


def _ends(sandbox: Sandbox) -> datetime:
    """Of one that is paused: when it was."""
    return sandbox.expires_at or (_NEVER if sandbox.rest is None else sandbox.rest.since)

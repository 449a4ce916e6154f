"""What the record of a sandbox says, beside what the API shows of it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from skerry.models import Limits, PauseGrade, Rest, Sandbox, SandboxSpec, SandboxState, Template
from skerry.ports import SandboxRecord, State, Wanted

FACADE = "facade."
"""How the names begin, in `SandboxRecord.internal`, of what façades want to know."""
KEPT, TEMPLATE, INCARNATION, CONTEXTS, COMMAND = "kept", "template", "incarnation", "contexts", "command_pid"
"""Of `SandboxRecord.internal`: the state of one that rests; the template as it was when the sandbox was made; how often
it was started; its interpreters; the pid of its command."""
_MIB = 1024 * 1024


def new_sandbox_id() -> str:
    return "sb" + secrets.token_hex(10)


def new_state_id() -> str:
    return "st" + secrets.token_hex(10)


def expiry(timeout_s: float | None) -> datetime | None:
    return None if timeout_s is None else datetime.now(UTC) + timedelta(seconds=timeout_s)


def new_sandbox(spec: SandboxSpec, template: str, limits: Limits, **more: Any) -> Sandbox:
    """What was asked for, on its way.

    Args:
        template: its name.
        limits: where the spec does not say.
        more: further fields.
    """
    asked = {name: getattr(spec, name) for name in ("cpu", "memory_mib", "disk_mib", "pids")}
    return Sandbox(
        id=new_sandbox_id(), template=template, isolation=spec.isolation, state=SandboxState.CREATING,
        limits=limits.model_copy(update={name: value for name, value in asked.items() if value is not None}),
        internet=spec.internet, metadata=dict(spec.metadata), created_at=datetime.now(UTC),
        expires_at=expiry(spec.timeout_s), timeout_s=spec.timeout_s, idle_timeout_s=spec.idle_timeout_s,
        on_timeout=spec.on_timeout, keep_memory=spec.keep_memory, auto_resume=spec.auto_resume, command=spec.command,
        restart=spec.restart, **more,
    )  # fmt: skip


def known(template: Template) -> dict[str, Any]:
    """What a record keeps of a template."""
    return {TEMPLATE: template.model_dump(mode="json")}


def template_of(record: SandboxRecord) -> Template:
    """As it was when the sandbox was made. Records of servers that knew no snapshots say less."""
    if TEMPLATE in record.internal:
        return Template.model_validate(record.internal[TEMPLATE])
    sandbox, internal = record.sandbox, record.internal
    return Template(
        name=sandbox.template, image="", limits=sandbox.limits, languages=internal.get("languages", []), size_mib=0,
        built_at=sandbox.created_at, user=internal.get("user", "user"), workdir=internal.get("workdir"),
    )  # fmt: skip


def kept_of(record: SandboxRecord) -> State | None:
    """What is kept of a sandbox that rests; None: nothing, or in memory only."""
    kept = record.internal.get(KEPT)
    return None if kept is None else State(**kept)


def without(internal: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in internal.items() if name not in names}


def without_memory(internal: Mapping[str, Any]) -> dict[str, Any]:
    """Of a sandbox whose processes are gone."""
    return without(internal, CONTEXTS, COMMAND)


def at_rest(state: State) -> Rest:
    """How a sandbox rests of which that is kept, from now on."""
    size_mib = round(state.size_bytes / _MIB, 1)
    return Rest(grade=PauseGrade.DISK, memory=state.memory, size_mib=size_mib, since=datetime.now(UTC))


def incarnation_of(record: SandboxRecord) -> int:
    return int(record.internal.get(INCARNATION, 0))


def wanted(record: SandboxRecord) -> Wanted:
    """How a server expects to find it alive."""
    return Wanted(incarnation_of(record), record.sandbox.state is SandboxState.PAUSED)


def is_in_memory(sandbox: Sandbox) -> bool:
    frozen = sandbox.rest is not None and sandbox.rest.grade is PauseGrade.FROZEN
    return sandbox.state is SandboxState.RUNNING or (sandbox.state is SandboxState.PAUSED and frozen)


def wakes(sandbox: Sandbox) -> bool:
    """Whether using it resumes it."""
    return sandbox.state is SandboxState.PAUSED and sandbox.auto_resume

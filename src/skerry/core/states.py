"""The sandbox's states, and the only transitions there are."""

from __future__ import annotations

from datetime import UTC, datetime

from skerry.errors import Error, InternalError, SandboxNotRunning
from skerry.models import End, EndCode, Sandbox, SandboxState

S = SandboxState
TRANSITIONS: dict[SandboxState, frozenset[SandboxState]] = {
    S.CREATING: frozenset({S.RUNNING, S.FAILED, S.DESTROYED}),
    S.RUNNING: frozenset({S.PAUSED, S.STOPPED, S.FAILED, S.DESTROYED}),
    S.PAUSED: frozenset({S.RUNNING, S.STOPPED, S.FAILED, S.DESTROYED}),
    S.STOPPED: frozenset({S.RUNNING, S.PAUSED, S.FAILED, S.DESTROYED}),
    S.FAILED: frozenset(),
    S.DESTROYED: frozenset(),
}
"""From → to. What has ended stays as it ended, so that whoever asks later learns why."""

LIVE = (S.CREATING, S.RUNNING, S.PAUSED, S.STOPPED)
"""Those that have not ended."""
RESTING = (S.PAUSED, S.STOPPED)
ENDED = frozenset({S.DESTROYED, S.FAILED})
ASKED_FOR = frozenset({EndCode.KILLED, EndCode.TIMEOUT, EndCode.IDLE_TIMEOUT, EndCode.SERVER_STOPPED})
"""Ends that somebody wanted: the sandbox is destroyed. Every other end means that it failed."""


def transition(sandbox: Sandbox, to: SandboxState, end: End | None = None) -> Sandbox:
    """The sandbox in its new state.

    Raises:
        SandboxNotRunning: there is no such transition.
    """
    if to not in TRANSITIONS[sandbox.state]:
        raise SandboxNotRunning(f"cannot make sandbox {sandbox.id} {to}: it is {sandbox.state}", **about(sandbox))
    return sandbox.model_copy(update={"state": to, "end": end})


def ended(sandbox: Sandbox, code: EndCode, message: str) -> Sandbox:
    """The sandbox after its end. Raises as `transition`."""
    to = S.DESTROYED if code in ASKED_FOR else S.FAILED
    return transition(sandbox, to, End(code=code, message=message, at=datetime.now(UTC)))


def about(sandbox: Sandbox) -> dict[str, object]:
    """Details of an error about a sandbox that does not run."""
    end = None if sandbox.end is None else sandbox.end.model_dump(mode="json")
    return {"sandbox_id": sandbox.id, "state": sandbox.state.value, "end": end}


def not_running(sandbox: Sandbox) -> Error:
    """Why a sandbox cannot be used, and what to do."""
    if sandbox.state is S.RUNNING:
        return InternalError(f"sandbox {sandbox.id} should run but is not known to")
    why = f": {sandbox.end.message}" if sandbox.end else ""
    if sandbox.state in RESTING:
        why = "; resume it first" if sandbox.state is S.PAUSED else "; start it first"
    return SandboxNotRunning(f"cannot use sandbox {sandbox.id}: it is {sandbox.state}{why}", **about(sandbox))

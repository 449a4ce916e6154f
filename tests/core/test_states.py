"""The transitions that there are, and no others."""

from datetime import UTC, datetime

import pytest

from skerry.core.states import ENDED, TRANSITIONS, ended, transition
from skerry.errors import SandboxNotRunning
from skerry.models import EndCode, Isolation, Limits, Sandbox, SandboxState


def sandbox(state: SandboxState) -> Sandbox:
    return Sandbox(
        id="sb1", template="base", isolation=Isolation.GVISOR, state=state,
        limits=Limits(cpu=1, memory_mib=1, disk_mib=1, pids=1), internet=True, metadata={},
        created_at=datetime.now(UTC), expires_at=None, idle_timeout_s=None,
    )  # fmt: skip


@pytest.mark.parametrize("before", SandboxState)
@pytest.mark.parametrize("after", SandboxState)
def test_every_pair(before: SandboxState, after: SandboxState) -> None:
    if after in TRANSITIONS[before]:
        assert transition(sandbox(before), after).state is after
    else:
        with pytest.raises(SandboxNotRunning) as caught:
            transition(sandbox(before), after)
        assert caught.value.details["state"] == before


@pytest.mark.parametrize("state", [state for state in SandboxState if state not in ENDED])
def test_from_every_state_there_is_an_end(state: SandboxState) -> None:
    assert ended(sandbox(state), EndCode.KILLED, "m").state is SandboxState.DESTROYED
    crashed = ended(sandbox(state), EndCode.CRASHED, "why")
    assert crashed.state is SandboxState.FAILED
    assert crashed.end is not None
    assert (crashed.end.code, crashed.end.message) == (EndCode.CRASHED, "why")

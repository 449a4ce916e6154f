"""What commands print."""

from datetime import UTC, datetime

import pytest

from skerry.cli.output import each, kept, print_table, timeout_of, working
from skerry.errors import HostFull, InvalidRequest
from skerry.models import Isolation, Limits, PauseGrade, Rest, Sandbox, SandboxState
from skerry.sdk.wire import UNSET

RUNNING = Sandbox(
    id="sb1", template="base", isolation=Isolation.GVISOR, state=SandboxState.RUNNING,
    limits=Limits(cpu=1, memory_mib=1, disk_mib=1, pids=1), internet=True, metadata={}, created_at=datetime.now(UTC),
    expires_at=None, idle_timeout_s=None,
)  # fmt: skip


def resting(grade: PauseGrade, memory: bool) -> Sandbox:
    rest = Rest(grade=grade, memory=memory, size_mib=12.34, since=datetime.now(UTC))
    return RUNNING.model_copy(update={"state": SandboxState.PAUSED, "rest": rest})


def test_what_is_kept_is_said_with_its_place_and_size() -> None:
    assert kept(RUNNING) == ""
    assert kept(resting(PauseGrade.FROZEN, True)) == "in memory"
    assert kept(resting(PauseGrade.DISK, True)) == "all on disk, 12.3 MiB"
    assert kept(resting(PauseGrade.DISK, False)) == "files on disk, 12.3 MiB"


def test_a_timeout_is_left_out_none_or_seconds() -> None:
    assert (timeout_of(None), timeout_of("none"), timeout_of("2.5")) == (UNSET, None, 2.5)
    with pytest.raises(InvalidRequest, match="a number of seconds, or none"):
        timeout_of("soon")


def test_ids_are_never_cut_off(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("ID", "WHY"), [("sb" + "0" * 100, "because " * 40)])
    assert "sb" + "0" * 100 in capsys.readouterr().out


def test_what_was_done_before_an_error_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    def change(name: str) -> Sandbox:
        if name == "bad":
            raise HostFull("no room")
        return RUNNING.model_copy(update={"id": name})

    with pytest.raises(HostFull):
        each(["good", "bad", "never"], "changing", change, lambda sandbox: sandbox.id, json=False)
    assert capsys.readouterr().out == "good\n"
    each(["a", "b"], "changing", change, lambda sandbox: sandbox.id, json=True)
    assert capsys.readouterr().out.count('"id"') == 2


def test_progress_is_for_terminals(capsys: pytest.CaptureFixture[str]) -> None:
    with working("something"):
        print("printed")
    out, err = capsys.readouterr()
    assert out == "printed\n"
    assert err.strip() == ""

import subprocess
from pathlib import Path

import pytest
from bench.identity import MARKERS, PROBE, SIGNALS, Identities, Reused, parse_identity


def identity(number: int, **same: str) -> dict[str, str]:
    return {name: f"{name}-{number}" for name in SIGNALS} | same


def test_a_marker_is_a_hard_failure() -> None:
    with pytest.raises(Reused, match=MARKERS[0]):
        Identities().check(identity(1, marker=MARKERS[0]))


def test_repeated_signals_are_counted_per_sandbox() -> None:
    identities = Identities()
    identities.check(identity(1))
    identities.check(identity(2))
    assert identities.most_repeated == 0
    identities.check(identity(3, ns_pid="ns_pid-1", pid1="pid1-2"))
    assert identities.most_repeated == 2


def test_a_signal_that_cannot_be_read_counts_nothing() -> None:
    identities = Identities()
    for number in range(2):
        identities.check(identity(number, boot_id=""))
    assert identities.most_repeated == 0


def test_the_probe_reports_every_signal_and_then_leaves_its_markers(tmp_path: Path) -> None:
    script = PROBE
    for number, marker in sorted(enumerate(MARKERS), reverse=True):  # one path holds the other
        script = script.replace(marker, str(tmp_path / str(number)))
    command = ["sh", "-c", script, "sh", "token"]
    first, second = (
        parse_identity(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(2)
    )
    assert set(SIGNALS) | {"uptime"} <= first.keys()
    assert "marker" not in first
    assert second["marker"].startswith(str(tmp_path))
    assert (tmp_path / "0").read_text() == (tmp_path / "1").read_text() == "token"

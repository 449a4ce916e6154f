import json
from pathlib import Path

import pytest
from bench.byhand import keep, only_state


def make(data: Path, name: str) -> Path:
    state = data / "states" / name
    (state / "checkpoint").mkdir(parents=True)
    (state / "checkpoint/pages.img").write_text("memory")
    (state / "disk.img").write_text("disk")
    (state / "state.json").write_text(json.dumps({"runtime": "abc", "disk_mib": 64}))
    return state


def test_a_copy_of_what_is_kept_shares_its_files_and_knows_its_programs(tmp_path: Path) -> None:
    state = make(tmp_path / "data", "st1")
    kept = keep(state, tmp_path / "kept")
    assert kept.runtime == tmp_path / "data/runtime/abc"
    assert kept.disk.stat().st_ino == (state / "disk.img").stat().st_ino
    assert (kept.checkpoint / "pages.img").read_text() == "memory"
    assert kept.meta()["disk_mib"] == 64


def test_the_state_of_a_server_is_found_only_when_it_is_the_only_one(tmp_path: Path) -> None:
    state = make(tmp_path, "st1")
    (tmp_path / "states/.gone-st0").mkdir()
    assert only_state(tmp_path) == state
    make(tmp_path, "st2")
    with pytest.raises(ValueError, match="too many"):
        only_state(tmp_path)

"""Records survive, are read back whole, and recognise a process for certain."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from skerry.models import Isolation, Limits
from skerry.node.records import Record, Records, lives, new_name, start_time

LIMITS = Limits(cpu=1, memory_mib=512, disk_mib=1024, pids=128)


def _record(name: str = "abc") -> Record:
    return Record(
        name, Isolation.GVISOR, "base", "sha256:1", LIMITS, "sbx_1", False, 7, 4242, 99, {"python": 12}, "pool"
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    records = Records(tmp_path / "run")
    records.write(_record())
    assert records.read("abc") == _record()
    assert list(records.all()) == [_record()]
    assert records.link_directory("abc").stat().st_mode & 0o777 == 0o700


def test_remove_takes_everything_and_twice_is_fine(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.write(_record())
    (records.link_directory("abc") / "token").write_text("x")
    records.remove("abc")
    records.remove("abc")
    assert records.names() == []


def test_a_damaged_record_is_none_but_its_directory_is_listed(tmp_path: Path) -> None:
    records = Records(tmp_path)
    for name, content in (("cut", '{"name": "c'), ("list", "[]"), ("other", '{"isolation": "moat"}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "record.json").write_text(content)
        assert records.read(name) is None
    assert sorted(records.names()) == ["cut", "list", "other"]
    assert list(records.all()) == []


def test_a_process_is_recognised_by_its_start_time() -> None:
    record = _record()
    record.pid, record.started = os.getpid(), start_time(os.getpid())
    assert lives(record)
    record.started = (record.started or 0) + 1
    assert not lives(record)


def test_a_zombie_does_not_live() -> None:
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert start_time(process.pid) is None
    process.wait()
    assert start_time(process.pid) is None


def test_names_are_short_and_differ() -> None:
    names = {new_name() for _ in range(1000)}
    assert len(names) == 1000
    assert {len(name) for name in names} == {12}

"""Data directories of this version, older ones, newer ones, and broken ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from skerry.errors import Conflict
from skerry.host import datadir


def test_a_new_directory_gets_the_present_version(tmp_path: Path) -> None:
    datadir.prepare(tmp_path)
    assert json.loads((tmp_path / "version.json").read_text()) == {"version": datadir.VERSION}
    assert (tmp_path / "states").is_dir()
    datadir.prepare(tmp_path)


def test_steps_are_made_once_each_and_go_on_where_they_broke_off(tmp_path: Path) -> None:
    made: list[int] = []

    def step(number: int):
        def act(directory: Path) -> None:
            made.append(number)
            if number == 3 and made.count(3) == 1:
                raise OSError("the disk is full")

        return act

    datadir.prepare(tmp_path, [step(1)])
    with pytest.raises(OSError, match="full"):
        datadir.prepare(tmp_path, [step(1), step(2), step(3)])
    datadir.prepare(tmp_path, [step(1), step(2), step(3)])
    assert made == [1, 2, 3, 3]


def test_a_newer_directory_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "version.json").write_text('{"version": 999}')
    with pytest.raises(Conflict, match="version 999"):
        datadir.prepare(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["version.json"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"version": "1"}', '{"version": -1}', '{"version": true}'])
def test_a_version_that_cannot_be_read_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "version.json").write_text(content)
    with pytest.raises(Conflict):
        datadir.prepare(tmp_path)

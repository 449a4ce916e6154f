"""What an interpreter says, cut and checked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.core import interpreters
from skerry.core.interpreters import Lines, Nonsense, parse, run_event
from skerry.models import ExecutionError, Result, Stdout


@given(st.lists(st.binary(max_size=20).filter(lambda line: b"\n" not in line), max_size=8), st.lists(st.integers(1, 9)))
def test_lines_survive_any_cut(lines: list[bytes], cuts: list[int]) -> None:
    stream, cutter, found = b"".join(line + b"\n" for line in lines), Lines(), []
    while stream:
        size = cuts.pop() if cuts else len(stream)
        found += cutter.feed(stream[:size])
        stream = stream[size:]
    assert found == lines


def test_after_a_gap_the_rest_of_the_line_is_skipped() -> None:
    lines = Lines()
    assert lines.feed(b"begin") == []
    lines.skip_to_next()
    assert lines.feed(b"ning of something\nwhole\n") == [b"whole"]


def test_a_line_without_end_is_nonsense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreters, "LINE_MAX", 100)
    with pytest.raises(Nonsense):
        Lines().feed(b"x" * 101)


@pytest.mark.parametrize("line", [b"", b"x", b"[]", b'{"event": 1}', b"{}", b"[" * 100_000])
def test_what_is_no_event_is_nonsense(line: bytes) -> None:
    with pytest.raises(Nonsense):
        parse(line)


def test_events_of_a_run() -> None:
    assert run_event({"event": "stdout", "text": "t"}) == Stdout(text="t")
    assert run_event({"event": "result", "data": {"text/plain": "1"}, "main": True}) == Result(
        data={"text/plain": "1"}, main=True
    )
    assert isinstance(run_event({"event": "error", "name": "n", "value": "v", "traceback": "t"}), ExecutionError)
    assert run_event({"event": "something new"}) is None


@pytest.mark.parametrize(
    "event",
    [
        {"event": "stdout"},
        {"event": "stdout", "text": 5},
        {"event": "result", "data": [], "main": True},
        {"event": "error", "name": "n"},
    ],
)
def test_wrong_fields_are_nonsense(event: dict) -> None:
    with pytest.raises(Nonsense):
        run_event(event)

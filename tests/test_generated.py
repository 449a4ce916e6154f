"""What is generated is current."""

import subprocess
import sys
from pathlib import Path

import pytest
from tools import e2b_counts, e2b_features

ROOT = Path(__file__).parents[1]


def test_the_blocking_half_of_the_sdk() -> None:
    done = subprocess.run(
        [sys.executable, "tools/async_to_sync.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_the_counts_of_e2bs_scenarios() -> None:
    assert e2b_counts.main(["--check"]) == 0


def test_a_table_of_other_counts_is_stale(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(e2b_counts, "scenarios_in", lambda _: 1000)
    assert e2b_counts.main(["--check"]) == 1
    assert "run `make e2b-counts`" in capsys.readouterr().err


def test_scenarios_are_counted_with_their_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "test_it.py").write_text(
        "NAMES = {'a': 1, 'b': 2}\n"
        "@pytest.mark.parametrize('name', NAMES)\n@pytest.mark.parametrize('number', [1, 2, 3])\n"
        "def test_one(name, number): ...\n"
        "@pytest.mark.skip\nasync def test_two(): ...\ndef other(): ...\n"
    )
    (tmp_path / "some" / "it.test.mjs").write_text("test('one', async () => {})\n  test('inner', () => {})\n")
    monkeypatch.setattr(e2b_counts, "SCENARIOS", tmp_path)
    assert e2b_counts.scenarios_in("some") == 2 * 3 + 1 + 1


def test_what_failed_or_was_skipped_has_not_passed() -> None:
    report = """<testsuites><testsuite>
        <testcase name="good"/><testcase name="bad"><failure>why</failure></testcase>
        <testcase name="broken"><error/></testcase><testcase name="left out"><skipped/></testcase>
    </testsuite><testcase name="of Node"/></testsuites>"""
    assert e2b_counts.counted(report) == (e2b_counts.Count(2, 5), ["bad", "broken", "left out"])


@pytest.mark.parametrize(
    ("feature", "problem"),
    [
        (e2b_features.Feature("a", "works"), "no scenario shows that"),
        (e2b_features.Feature("a", "no"), "not why"),
        (e2b_features.Feature("a", "perhaps", "b"), "is none of"),
        (e2b_features.Feature("a", "works", "", ("e2b/test_files.py::test_nothing",)), "there is no scenario e2b/test_files.py::test_n"),
        (e2b_features.Feature("a", "works", "", ("e2b/test_nothing.py",)), "there is no scenario"),
    ],
)  # fmt: skip
def test_a_feature_is_not_said_to_work_for_nothing(feature: e2b_features.Feature, problem: str) -> None:
    assert problem in (feature.problem() or "")


def test_a_feature_whose_scenario_fails_says_so() -> None:
    one = e2b_features.Feature(
        "a", "works", "", ("e2b/test_files.py::test_watching", "e2b-js/scenarios.test.mjs::files")
    )
    assert one.problem() is None
    assert (
        one.line({"e2b": ["test_mistakes_are_told"]})
        == "| a | works | | `e2b/test_files.py`, `e2b-js/scenarios.test.mjs` |"
    )
    assert "**fails**: `e2b/test_files.py::test_watching`" in one.line({"e2b": ["test_watching[x]"]})
    assert "**fails**: `e2b-js/scenarios.test.mjs::files`" in one.line({"e2b-js": ["files"]})

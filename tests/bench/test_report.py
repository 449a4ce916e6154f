import json

import pytest
from bench.report import Check, Measurement, SuiteResult, as_json, markdown, replace_between, shown


def result_with_ratio() -> SuiteResult:
    result = SuiteResult("start", "Start")
    claim = result.measure("claim", [0.005, 0.006, 0.007], note="HTTP")
    result.compare("claim ÷ bare", claim, result.measure("bare", [0.1, 0.1]), 0.06)
    return result


def test_a_ratio_is_of_medians_and_knows_whether_it_keeps_its_promise() -> None:
    [ratio] = result_with_ratio().ratios
    assert ratio.value == pytest.approx(0.06)
    assert ratio.met


def test_a_ratio_can_be_a_floor() -> None:
    result = SuiteResult("work", "Work")
    fast, slow = result.measure("fast", [300.0], "MiB/s"), result.measure("slow", [100.0], "MiB/s")
    result.compare("fast ÷ slow", fast, slow, 2, at_least=True)
    result.compare("slow ÷ fast", slow, fast, 2, at_least=True)
    result.compare("no promise", slow, fast)
    assert [ratio.met for ratio in result.ratios] == [True, False, None]


def test_what_has_no_samples_is_a_failure_and_is_not_compared() -> None:
    result = SuiteResult("start", "Start")
    result.compare("claim ÷ bare", result.measure("claim", []), Measurement("bare", [1.0]))
    assert result.failures == ["no samples of: claim"]
    assert result.ratios == []


def test_markdown_shows_promises_measurements_facts_and_failures() -> None:
    result = result_with_ratio()
    result.checks.append(Check("success", "99 %", "100 %", met=False))
    result.facts["origin"] = "3 pool"
    result.failures.append("one was lost")
    lines = markdown(result).splitlines()
    assert lines[0] == "### Start"
    assert "| claim ÷ bare | 0.060 | ≤ 0.06 | yes |" in lines
    assert "| success | 99 % | 100 % | **no** |" in lines
    assert "| claim (HTTP) | 3 | 6.00 ms | 7.00 ms | 7.00 ms |" in lines
    assert "| origin | 3 pool |" in lines
    assert "- **failed:** one was lost" in lines


def test_json_holds_every_sample() -> None:
    decoded = json.loads(json.dumps(as_json(result_with_ratio())))
    assert decoded["measurements"][0]["samples"] == [0.005, 0.006, 0.007]
    assert decoded["ratios"][0]["met"] is True
    assert decoded["ratios"][0]["baseline"] == "bare"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(0.1234, "s", "123 ms"), (0.01234, "s", "12.3 ms"), (0.001234, "s", "1.23 ms"), (812.3, "MiB/s", "812 MiB/s")],
)
def test_numbers_have_three_digits_and_seconds_are_shown_as_milliseconds(value: float, unit: str, text: str) -> None:
    assert shown(value, unit) == text


def test_tables_are_placed_between_their_markers_again_and_again() -> None:
    page = "before\n<!-- bench:start -->\nold\n<!-- /bench:start -->\nafter\n"
    once = replace_between(page, "start", "new\n")
    assert once == "before\n<!-- bench:start -->\n\nnew\n\n<!-- /bench:start -->\nafter\n"
    assert replace_between(once, "start", "new") == once
    with pytest.raises(ValueError, match="no pair of markers"):
        replace_between(page, "work", "new")

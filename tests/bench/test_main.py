import pytest
from bench.__main__ import DOCS, SUITES, arguments, measure
from bench.settings import Settings

from bench import report


def test_all_suites_run_unless_some_are_named() -> None:
    assert arguments([]).suites == []
    assert arguments(["start", "churn", "--quick"]).suites == ["start", "churn"]
    with pytest.raises(SystemExit):
        arguments(["no-such-suite"])


def test_every_suite_has_its_place_in_the_performance_page() -> None:
    page = DOCS.read_text()
    for name in SUITES:
        report.replace_between(page, name, "tables")


@pytest.mark.anyio
async def test_a_suite_that_breaks_off_is_a_failure_not_the_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    async def broken(_: Settings) -> report.SuiteResult:
        raise RuntimeError("no such image")

    monkeypatch.setitem(SUITES, "start", broken)
    scratch = tmp_path_factory.mktemp("scratch")
    result = await measure("start", Settings(quick=True, rootfs=scratch, scratch=scratch))
    assert result.failures == ["RuntimeError: no such image"]

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import stats

samples = st.lists(st.floats(min_value=0, max_value=1e6), min_size=1, max_size=200)


def test_percentiles_are_nearest_ranks() -> None:
    ordered = [float(n) for n in range(1, 101)]
    assert stats.percentile(ordered, 95) == 95
    assert stats.percentile(ordered, 99) == 99
    assert stats.percentile(ordered, 100) == 100
    assert stats.percentile(ordered, 0) == 1
    assert stats.percentile([7.0], 99) == 7


def test_the_median_of_an_even_number_is_the_mean_of_the_middle_two() -> None:
    assert stats.summarize([4, 1, 3, 2]).median == 2.5
    assert stats.summarize([5, 1, 3]).median == 3


def test_nothing_cannot_be_summarized() -> None:
    with pytest.raises(ValueError, match="no samples"):
        stats.summarize([])


@given(samples)
def test_the_order_of_samples_does_not_matter_and_statistics_are_ordered(values: list[float]) -> None:
    summary = stats.summarize(values)
    assert summary == stats.summarize(sorted(values, reverse=True))
    assert summary.minimum <= summary.median <= summary.p95 <= summary.p99 <= summary.maximum


def test_trimming_takes_a_twentieth_off_each_end() -> None:
    hundred = [float(n) for n in range(100, 0, -1)]
    assert stats.trimmed(hundred) == [float(n) for n in range(6, 96)]


@given(samples)
def test_trimming_never_takes_everything(values: list[float]) -> None:
    kept = stats.trimmed(values)
    assert len(kept) == len(values) - 2 * (len(values) // 20)
    assert kept


def test_trimming_leaves_few_samples_alone() -> None:
    assert stats.trimmed([3, 1, 2]) == [1, 2, 3]


def test_the_score_is_linear_up_to_ten_seconds_and_multiplied_by_success() -> None:
    assert stats.composite_score([0.0] * 10, 1.0) == pytest.approx(100)
    assert stats.composite_score([2.0] * 10, 1.0) == pytest.approx(80)
    assert stats.composite_score([2.0] * 10, 0.5) == pytest.approx(40)
    assert stats.composite_score([11.0] * 10, 1.0) == 0
    assert stats.composite_score([], 0.0) == 0

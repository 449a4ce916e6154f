from pathlib import Path

import pytest

from bench import baselines


def test_the_specification_by_hand_adds_nothing_of_ours() -> None:
    made = baselines.specification(Path("/image"), ["true"])
    assert made["root"] == {"path": "/image", "readonly": True}
    process = made["process"]
    assert isinstance(process, dict)
    assert process["args"] == ["true"]
    assert "capabilities" not in process


def test_a_baseline_that_fails_is_an_error_not_a_fast_result() -> None:
    baselines.call(["true"])
    with pytest.raises(baselines.BaselineFailed, match="ended with 1"):
        baselines.call(["false"])

import threading
import time
from typing import Any

from bench.report import SuiteResult
from bench.state import TICKER, _show


def test_the_ticker_sees_how_long_nothing_ran() -> None:
    inside: dict[str, Any] = {"stop": threading.Event()}
    exec(TICKER.replace("while True", "while not stop.is_set()"), inside)
    deadline = time.monotonic() + 10
    while inside["worst"][0] == 0.0:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    inside["stop"].set()


def test_each_claim_stands_beside_its_baseline() -> None:
    result = SuiteResult("state", "State")
    samples = {
        "restore": [0.2], "grouped": [0.21], "checkpoint": [0.1], "cp": [0.05], "pause": [0.12], "resume": [0.22],
        "resume and code": [0.23], "frozen": [0.01],
    }  # fmt: skip
    resume, restore = _show(result, 64, samples)
    assert resume is not None
    assert restore is not None
    assert (resume.samples, restore.samples) == ([0.22], [0.2])
    assert {round(ratio.value, 3): ratio.limit for ratio in result.ratios} == {
        0.05: 0.15, 1.2: 1.3, 2.4: None, 1.1: 1.3, 1.15: None, 1.048: None,
    }  # fmt: skip
    assert all(ratio.met in (True, None) for ratio in result.ratios)

from bench.server import pool_idle

METRICS = """# HELP skerry_pool_idle Sandboxes ready to be claimed
# TYPE skerry_pool_idle gauge
skerry_pool_idle{template="base"} 3.0
skerry_pool_idle{template="other"} 1.0
"""


def test_ready_sandboxes_are_summed_over_templates() -> None:
    assert pool_idle(METRICS) == 4
    assert pool_idle("skerry_pool_idle 2\n") == 2


def test_a_missing_metric_is_not_an_empty_pool() -> None:
    assert pool_idle("process_open_fds 9.0\n") is None

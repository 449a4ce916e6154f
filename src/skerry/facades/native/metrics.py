"""Prometheus metrics. Labels come from small closed sets: no id, no path."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from skerry.core import Core

_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300)


class Metrics:
    """What the server counts.

    Args:
        pool_idle: how many sandboxes of each template are ready to be claimed.
    """

    def __init__(self, pool_idle: Callable[[], dict[str, int]]) -> None:
        self._registry = CollectorRegistry()
        self._pool_idle = pool_idle
        self._running = Gauge("skerry_sandboxes", "Live sandboxes", ["template"], registry=self._registry)
        self._idle = Gauge("skerry_pool_idle", "Sandboxes ready to be claimed", ["template"], registry=self._registry)
        self.create = Histogram(
            "skerry_create_seconds", "Time to a running sandbox", ["origin"], buckets=_BUCKETS, registry=self._registry
        )
        self.run_code = Histogram(
            "skerry_run_code_seconds", "Duration of code runs", buckets=_BUCKETS, registry=self._registry
        )
        self.process = Histogram(
            "skerry_process_run_seconds", "Duration of gathered process runs", buckets=_BUCKETS, registry=self._registry
        )

    def render(self, core: Core) -> tuple[bytes, str]:
        """The text and its media type."""
        self._running.clear()
        self._idle.clear()
        for template, count in Counter(live.sandbox.template for live in core.sandboxes.live()).items():
            self._running.labels(template).set(count)
        for template, count in self._pool_idle().items():
            self._idle.labels(template).set(count)
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

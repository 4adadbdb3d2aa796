"""Numbers of one worker, and of its node, for Prometheus.

Counting a request is a few additions, because it happens on the hot path; prometheus-client only writes them down. Every worker counts for
itself and says so with the label ``worker`` (its process id): with several workers a scrape shows one of them.
"""

import os
from bisect import bisect_left
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_COUNTER = "_total"
_KNOWN_METHODS = frozenset({"GET", "PUT", "DELETE", "HEAD", "OPTIONS", "POST"})


class Requests:
    """Counts of answered requests, and how long those took that did not wait on purpose."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, int], int] = {}
        self._buckets = [0] * (len(BUCKETS_SECONDS) + 1)
        self._seconds = 0.0

    def count(self, method: str, status: int, seconds: float, *, waited: bool = False) -> None:
        """Note one answer.

        :param waited: it was a blocking query; its time says nothing about the server.
        """
        key = (method if method in _KNOWN_METHODS else "other", status)
        self.counts[key] = self.counts.get(key, 0) + 1
        if not waited:
            self._buckets[bisect_left(BUCKETS_SECONDS, seconds)] += 1
            self._seconds += seconds

    def collect(self, worker: str) -> Iterator[Metric]:
        """The counts as metrics."""
        answered = CounterMetricFamily("kvorum_http_requests", "Answered requests.", labels=("worker", "method", "status"))
        for (method, status), number in sorted(self.counts.items()):
            answered.add_metric((worker, method, str(status)), number)
        yield answered
        duration = HistogramMetricFamily("kvorum_http_request_seconds", "Time to answer, without blocking queries.", labels=("worker",))
        total, steps = 0, []
        for bound, number in zip((*BUCKETS_SECONDS, "+Inf"), self._buckets, strict=True):
            total += number
            steps.append((str(bound), float(total)))
        duration.add_metric((worker,), steps, self._seconds)
        yield duration


def exposition(requests: Requests, gauges: Mapping[str, float], agent: Mapping[str, float]) -> bytes:
    """The text of ``/metrics``.

    :param gauges: of this worker.
    :param agent: of the node, the same whichever worker answers.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(requests, gauges, agent))
    return generate_latest(registry)


class _Collector:
    def __init__(self, requests: Requests, gauges: Mapping[str, float], agent: Mapping[str, float]) -> None:
        self._requests = requests
        self._gauges = gauges
        self._agent = agent

    def collect(self) -> Iterator[Metric]:
        worker = str(os.getpid())
        yield from self._requests.collect(worker)
        for name, value in self._gauges.items():
            gauge = GaugeMetricFamily(f"kvorum_worker_{name}", "Of one web worker.", labels=("worker",))
            gauge.add_metric((worker,), value)
            yield gauge
        for name, value in self._agent.items():
            family = CounterMetricFamily if name.endswith(_COUNTER) else GaugeMetricFamily
            yield family(f"kvorum_agent_{name}", "Of the node.", value=value)

"""What /metrics tells: requests, answers by release, tokens, times, the queue, connections that were closed, alarms.

Labels have few values: an endpoint's name, a status, a version; never what a client wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pipeline.serving.asked import Engine, Release

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Counted:
    """The counters of one server."""

    def __init__(self, engine: Engine, closed: Callable[[], Mapping[str, int]] = dict) -> None:
        self._registry = CollectorRegistry()
        made: dict[str, Any] = {"registry": self._registry}
        self._requests = Counter("tuneline_http_requests", "Requests by endpoint and status.", ["endpoint", "status"], **made)
        self._seconds = Histogram(
            "tuneline_http_request_seconds",
            "From the head of a request to the end of its answer.",
            ["endpoint"],
            buckets=_SECONDS,
            **made,
        )
        self._first = Histogram(
            "tuneline_first_piece_seconds", "From the head of a request to the first of its answer.", buckets=_SECONDS, **made
        )
        self._answers = Counter("tuneline_answers", "Answers by the release that made them.", ["version", "role"], **made)
        self._tokens = Counter("tuneline_tokens", "Tokens by release and kind.", ["version", "kind"], **made)
        self._under_way = Gauge("tuneline_http_requests_under_way", "Requests that are being answered.", **made)
        self._registry.register(_Standing(engine, closed))

    def begun(self) -> None:
        self._under_way.inc()

    def ended(self, endpoint: str, status: int, seconds: float) -> None:
        self._under_way.dec()
        self._requests.labels(endpoint, str(status)).inc()
        self._seconds.labels(endpoint).observe(seconds)

    def first_piece(self, seconds: float) -> None:
        self._first.observe(seconds)

    def answered(self, release: Release, answers: int, prompt_tokens: int, answer_tokens: int) -> None:
        self._answers.labels(release.version, release.role).inc(answers)
        self._tokens.labels(release.version, "prompt").inc(prompt_tokens)
        self._tokens.labels(release.version, "answer").inc(answer_tokens)

    def page(self) -> bytes:
        return generate_latest(self._registry)


class _Standing(Collector):
    """What the engine and the guard say of themselves, asked when the page is."""

    def __init__(self, engine: Engine, closed: Callable[[], Mapping[str, int]]) -> None:
        self._engine = engine
        self._closed = closed

    def collect(self) -> Iterator[Metric]:
        health = self._engine.health()
        for name, said, value in (
            ("tuneline_ready", "1 when a release answers requests that pin none.", float(health.ready)),
            ("tuneline_queue_waiting", "Answers that wait.", health.waiting),
            ("tuneline_queue_running", "Answers under way.", health.running),
            ("tuneline_alarms", "Alarms that stand; GET /v1/releases names them.", len(health.alarms)),
        ):
            yield GaugeMetricFamily(name, said, value=value)
        serving = GaugeMetricFamily(
            "tuneline_release_info", "1 for each release that can answer.", labels=["version", "digest", "role"]
        )
        for release in health.releases:
            serving.add_metric([release.version, release.digest[:12], release.role], 1)
        yield serving
        totals = CounterMetricFamily("tuneline_engine", "Totals of the engine, by what.", labels=["what"])
        for what, count in sorted(health.counts.items()):
            totals.add_metric([what], count)
        yield totals
        closed = CounterMetricFamily(
            "tuneline_connections_closed", "Connections that were closed on clients, by why.", labels=["why"]
        )
        for why, count in sorted(self._closed().items()):
            closed.add_metric([why], count)
        yield closed
        if swap := health.last_swap:
            yield GaugeMetricFamily(
                "tuneline_last_swap_seconds", "How long the last change of who answers took.", value=swap.seconds
            )

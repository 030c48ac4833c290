"""Rows and answers without files: what metrics are asked about in tests."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.evaluation.metrics import METRICS, Metric
from pipeline.evaluation.rows import Said, SplitRows
from pipeline.evaluation.statistics import Statistic, point


def asked(expected: Sequence[str], inputs: Sequence[str] = ()) -> SplitRows:
    """Rows of these expected answers, each a group of its own."""
    ids = [str(at) for at in range(len(expected))]
    return SplitRows(ids, list(ids), list(inputs) or [""] * len(ids), list(expected), ["{}"] * len(ids), ["file"] * len(ids))


def statistic_of(
    metric: str | Metric, expected: Sequence[str], answers: Sequence[str], confidences: Sequence[float] | None = None
) -> Statistic:
    found = METRICS[metric] if isinstance(metric, str) else metric
    statistic = found.statistic(asked(expected), Said(list(answers), confidences))
    assert statistic is not None
    return statistic


def value_of(
    metric: str | Metric, expected: Sequence[str], answers: Sequence[str], confidences: Sequence[float] | None = None
) -> float:
    return point(statistic_of(metric, expected, answers, confidences))

"""Rows and answers without files: what metrics are asked about in tests."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.evaluation.metrics import METRICS
from pipeline.evaluation.rows import Said, SplitRows
from pipeline.evaluation.statistics import Statistic, point


def asked(expected: Sequence[str], inputs: Sequence[str] = ()) -> SplitRows:
    """Rows of these expected answers, each a group of its own."""
    ids = [str(at) for at in range(len(expected))]
    return SplitRows(ids, list(ids), list(inputs) or [""] * len(ids), list(expected), ["{}"] * len(ids), ["file"] * len(ids))


def statistic_of(name: str, expected: Sequence[str], answers: Sequence[str]) -> Statistic:
    found = METRICS[name].statistic(asked(expected), Said(list(answers)))
    assert found is not None
    return found


def value_of(name: str, expected: Sequence[str], answers: Sequence[str]) -> float:
    return point(statistic_of(name, expected, answers))

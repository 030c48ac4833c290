"""What a metric is: a name, the rows that it counts, and how it scores them. Metrics themselves stand in the modules beside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.domain.data import ExampleKind
from pipeline.errors import Broken
from pipeline.evaluation.rows import Said, SplitRows
from pipeline.evaluation.statistics import Numbers, Statistic, mean

Scores = Callable[[SplitRows, Said], Numbers | None]
"""A score a row; None where a subject gave no ground for any."""
Whole = Callable[[SplitRows, Said], Statistic | None]
"""All rows together, as something that can be resampled; None as above."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One entry of METRICS: between 0 and 1, more is better.

    kinds: of the rows that it counts. row: scores each row; None where the metric takes all rows together, which is then what
    `whole` does. by_slice: the metric with per-row scores that slices are measured by instead, where `row` is None.
    """

    name: str
    title: str
    definition: str
    kinds: frozenset[ExampleKind]
    row: Scores | None
    whole: Whole | None = None
    by_slice: str | None = None

    def scores(self, rows: SplitRows, said: Said) -> Numbers | None:
        """Per-row scores, shape (rows,); None where the metric has none, or this subject cannot be measured by it."""
        _check_lengths(rows, said)
        return None if self.row is None else self.row(rows, said)

    def statistic(self, rows: SplitRows, said: Said) -> Statistic | None:
        """The metric as something that can be resampled; None where this subject cannot be measured by it."""
        _check_lengths(rows, said)
        if self.whole is not None:
            return self.whole(rows, said)
        scores = self.scores(rows, said)
        return None if scores is None else mean(scores)


def each(score: Callable[[str, str], float]) -> Scores:
    """Scores of rows by what is expected of each and what was answered."""

    def scores(rows: SplitRows, said: Said) -> Numbers:
        return np.array([score(e, a) for e, a in zip(rows.expected, said.texts, strict=True)], dtype=np.float64)

    return scores


def _check_lengths(rows: SplitRows, said: Said) -> None:
    if len(rows) != len(said):
        raise Broken(f"{len(said)} answers were given to {len(rows)} rows")

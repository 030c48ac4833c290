"""Subjects side by side: the same rows, the same resamples, one set of numbers. Answers in, record parts out; no model enters.

What is made here goes into the EvaluationReport; the gate reads nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.domain.gating import DIFFERS_FROM_BASE
from pipeline.domain.model import Comparison, MetricValue, SliceValue
from pipeline.errors import Broken
from pipeline.evaluation.metrics import METRICS, Metric, metric
from pipeline.evaluation.rows import SplitRows
from pipeline.evaluation.statistics import Bootstrap, Interval, Numbers, Statistic, mean, paired_bootstrap

SLICE_VALUES = 30
"""Of a field, at most this many values are reported: those with the most rows."""


@dataclass(frozen=True, slots=True)
class Measured:
    """values: subject → metrics, in the order asked for. scores: per-row scores of (subject, metric), where it has them."""

    values: dict[str, tuple[MetricValue, ...]]
    comparisons: tuple[Comparison, ...]
    slices: tuple[SliceValue, ...]
    scores: dict[tuple[str, str], Numbers]


def measure(
    rows: SplitRows,
    answers: Mapping[str, Sequence[str]],
    metrics: Sequence[str],
    *,
    slices: Sequence[str] = (),
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 7,
) -> Measured:
    """Measure all subjects of `answers` (candidate, champion, base; an answer a row) with `metrics`, the first being primary.

    The candidate is compared with each of the others on every metric, paired by row and resampled by group. Besides the
    metrics, the candidate gets DIFFERS_FROM_BASE when the base is there. Raises Broken when a subject did not answer every row.
    """
    for subject, given in answers.items():
        if len(given) != len(rows):
            raise Broken(f"{subject} gave {len(given)} answers to {len(rows)} test rows")
    chosen = [metric(name) for name in dict.fromkeys(metrics)]
    statistics: dict[tuple[str, str], Statistic] = {
        (subject, m.name): m.statistic(rows.expected, given) for subject, given in answers.items() for m in chosen
    }
    if "candidate" in answers and "base" in answers:
        statistics["candidate", DIFFERS_FROM_BASE] = _differing(answers["candidate"], answers["base"])
    others = [subject for subject in answers if subject != "candidate"] if "candidate" in answers else []
    pairs = [(("candidate", m.name), (other, m.name)) for other in others for m in chosen]
    found = paired_bootstrap(statistics, rows.groups, pairs=pairs, resamples=resamples, confidence=confidence, seed=seed)
    return Measured(
        values={subject: _values(subject, found) for subject in answers},
        comparisons=tuple(_comparison(first, second, interval) for (first, second), interval in found.differences.items()),
        slices=tuple(_slices(rows, answers, chosen[0], slices, resamples=resamples, confidence=confidence, seed=seed)),
        scores=_row_scores(rows, answers, chosen),
    )


def slice_metric(primary: Metric) -> Metric:
    """What slices are measured by: the primary metric, or accuracy where that is macro-F1.

    Within the rows of one label nothing else can be called that label wrongly, so an F1 there would only be recall in disguise.
    """
    return primary if primary.row is not None else METRICS["accuracy"]


def _differing(candidate: Sequence[str], base: Sequence[str]) -> Statistic:
    return mean([float(ours != theirs) for ours, theirs in zip(candidate, base, strict=True)])


def _row_scores(
    rows: SplitRows, answers: Mapping[str, Sequence[str]], metrics: Sequence[Metric]
) -> dict[tuple[str, str], Numbers]:
    scores = {(subject, m.name): m.scores(rows.expected, given) for subject, given in answers.items() for m in metrics}
    return {key: found for key, found in scores.items() if found is not None}


def _values(subject: str, found: Bootstrap[tuple[str, str]]) -> tuple[MetricValue, ...]:
    return tuple(
        MetricValue(metric=name, value=i.value, low=i.low, high=i.high, rows=i.rows)
        for (whose, name), i in found.values.items()
        if whose == subject
    )


def _comparison(first: tuple[str, str], second: tuple[str, str], found: Interval) -> Comparison:
    return Comparison(metric=first[1], other=second[0], difference=found.value, low=found.low, high=found.high, rows=found.rows)


def _slices(
    rows: SplitRows,
    answers: Mapping[str, Sequence[str]],
    primary: Metric,
    fields: Sequence[str],
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> Iterator[SliceValue]:
    used = slice_metric(primary)
    scores = {subject: used.scores(rows.expected, given) for subject, given in answers.items()}
    groups = np.array(rows.groups, dtype=object)
    pairs = [("candidate", other) for other in answers if other != "candidate"] if "candidate" in answers else []
    for field in dict.fromkeys(fields):
        values = np.array(rows.field(field), dtype=object)
        counts = Counter(value for value in values if value is not None)
        for value, number in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:SLICE_VALUES]:
            within = values == value
            statistics: dict[str, Statistic] = {}
            for subject, found in scores.items():
                assert found is not None  # slice_metric only returns metrics with per-row scores
                statistics[subject] = mean(found[within])
            drawn = paired_bootstrap(
                statistics, list(groups[within]), pairs=pairs, resamples=resamples, confidence=confidence, seed=seed
            )
            for subject, seen in drawn.values.items():
                lead = drawn.differences.get(("candidate", subject))
                yield SliceValue(
                    field=field,
                    value=value,
                    subject=subject,
                    metric=used.name,
                    score=seen.value,
                    low=seen.low,
                    high=seen.high,
                    rows=number,
                    comparison=_comparison(("candidate", used.name), (subject, used.name), lead) if lead else None,
                )

"""Subjects side by side: the same rows, the same resamples, one set of numbers. Answers in, record parts out; no model enters.

What is made here goes into the EvaluationReport; the gate reads nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from pipeline.domain.gating import DIFFERS_FROM_BASE
from pipeline.domain.measured import Comparison, MetricValue, SliceValue
from pipeline.errors import Broken
from pipeline.evaluation.metrics import METRICS, Metric
from pipeline.evaluation.rows import Said, SplitRows
from pipeline.evaluation.statistics import Interval, Numbers, Statistic, mean, paired_bootstrap

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
    said: Mapping[str, Said],
    metrics: Sequence[Metric],
    *,
    slices: Sequence[str] = (),
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 7,
) -> Measured:
    """Measure all subjects of `said` (candidate and any others) with `metrics`, the first being primary.

    A metric counts the rows of its own kinds. The candidate is compared with each of the others on every metric, paired by row
    and resampled by group. Besides the metrics, the candidate gets DIFFERS_FROM_BASE, over all rows, when the base is there.
    Raises Broken when a subject did not answer every row.
    """
    for subject, whole in said.items():
        if len(whole) != len(rows):
            raise Broken(f"{subject} gave {len(whole)} answers to {len(rows)} test rows")
    chosen = list(dict.fromkeys(metrics))
    drawn = partial(paired_bootstrap, resamples=resamples, confidence=confidence, seed=seed)
    others = [subject for subject in said if subject != "candidate"] if "candidate" in said else []
    values: dict[tuple[str, str], Interval] = {}
    differences: dict[tuple[str, str], Interval] = {}
    scores: dict[tuple[str, str], Numbers] = {}
    for measured in chosen:
        places = rows.places(measured.kinds)
        counted, given = rows.only(places), {subject: whole.only(places) for subject, whole in said.items()}
        statistics = {s: one for s, told in given.items() if (one := measured.statistic(counted, told)) is not None}
        found = drawn(statistics, counted.groups, pairs=[("candidate", o) for o in others if {o, "candidate"} <= set(statistics)])
        values |= {(subject, measured.name): interval for subject, interval in found.values.items()}
        differences |= {(other, measured.name): interval for (_, other), interval in found.differences.items()}
        scores |= _row_scores(measured, counted, given, places, len(rows))
    if "candidate" in said and "base" in said:
        differs = {"candidate": _differing(said["candidate"].texts, said["base"].texts)}
        values["candidate", DIFFERS_FROM_BASE] = drawn(differs, rows.groups).values["candidate"]
    return Measured(
        values={subject: _values(subject, values) for subject in said},
        comparisons=tuple(
            _comparison(m.name, other, differences[other, m.name])
            for other in others
            for m in chosen
            if (other, m.name) in differences
        ),
        slices=tuple(_slices(rows, said, chosen[0], slices, resamples=resamples, confidence=confidence, seed=seed)),
        scores=scores,
    )


def slice_metric(primary: Metric) -> Metric:
    """What slices are measured by: the primary metric, or accuracy where that is macro-F1.

    Within the rows of one label nothing else can be called that label wrongly, so an F1 there would only be recall in disguise.
    """
    return primary if primary.row is not None else METRICS["accuracy"]


def _differing(candidate: Sequence[str], base: Sequence[str]) -> Statistic:
    return mean([float(ours != theirs) for ours, theirs in zip(candidate, base, strict=True)])


def _row_scores(
    measured: Metric, counted: SplitRows, said: Mapping[str, Said], places: Sequence[int], rows: int
) -> dict[tuple[str, str], Numbers]:
    """Scores of (subject, metric), a row of the test split each: NaN for those that the metric does not count."""
    scores = {}
    for subject, given in said.items():
        found = measured.scores(counted, given)
        if found is not None:
            scores[subject, measured.name] = spread = np.full(rows, np.nan)
            spread[list(places)] = found
    return scores


def _values(subject: str, found: Mapping[tuple[str, str], Interval]) -> tuple[MetricValue, ...]:
    return tuple(
        MetricValue(metric=name, value=i.value, low=i.low, high=i.high, rows=i.rows)
        for (whose, name), i in found.items()
        if whose == subject
    )


def _comparison(metric: str, other: str, found: Interval) -> Comparison:
    return Comparison(metric=metric, other=other, difference=found.value, low=found.low, high=found.high, rows=found.rows)


def _slices(
    rows: SplitRows,
    said: Mapping[str, Said],
    primary: Metric,
    fields: Sequence[str],
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> Iterator[SliceValue]:
    used, places = slice_metric(primary), rows.places(primary.kinds)
    rows, said = rows.only(places), {subject: whole.only(places) for subject, whole in said.items()}
    scores = {subject: used.scores(rows, given) for subject, given in said.items()}
    groups = np.array(rows.groups, dtype=object)
    pairs = [("candidate", other) for other in said if other != "candidate"] if "candidate" in said else []
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
                    comparison=_comparison(used.name, subject, lead) if lead else None,
                )

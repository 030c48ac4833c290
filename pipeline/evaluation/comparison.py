"""Subjects side by side: the same rows, the same resamples, one set of numbers. Answers in, record parts out; no model enters.

What is made here goes into the EvaluationReport; the gate reads nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline.domain.gating import DIFFERS_FROM_BASE
from pipeline.domain.measured import BASE, CANDIDATE, NET_WINS, Comparison, MetricValue, SliceValue
from pipeline.errors import Broken
from pipeline.evaluation.metrics import Metric
from pipeline.evaluation.pairing import Paired, Sampling, checked, pair
from pipeline.evaluation.rows import Said, SplitRows
from pipeline.evaluation.slicing import SLICE_VALUES as SLICE_VALUES
from pipeline.evaluation.slicing import measure_slices
from pipeline.evaluation.statistics import Numbers, Statistic, mean


@dataclass(frozen=True, slots=True)
class Measured:
    """values: subject → metrics, in the order asked for. scores: per-row scores of (subject, metric), where it has them.

    detectable: metric: the least difference from the champion (else the base) that these rows show at 80 % power.
    """

    values: dict[str, tuple[MetricValue, ...]]
    comparisons: tuple[Comparison, ...]
    slices: tuple[SliceValue, ...]
    scores: dict[tuple[str, str], Numbers]
    detectable: dict[str, float] = field(default_factory=dict)


def measure(
    rows: SplitRows,
    said: Mapping[str, Said],
    metrics: Sequence[Metric],
    *,
    slices: Sequence[str] = (),
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 7,
    net_wins: Mapping[str, Sequence[float | None]] | None = None,
) -> Measured:
    """Measure all subjects of `said` (candidate and any others) with `metrics`, the first being primary.

    A metric counts the rows of its own kinds. The candidate is compared with each of the others on every metric, paired by row
    and resampled by group. Besides the metrics, the candidate gets DIFFERS_FROM_BASE, over all rows, when the base is there.
    net_wins: other → for each row 1 where a judge found the candidate better, -1 the other, 0 neither; None where it was not
    judged, which is not counted.
    Raises Broken when a subject did not answer every row, or a score is no number in 0 to 1.
    """
    for subject, whole in said.items():
        if len(whole) != len(rows):
            raise Broken(f"{subject} gave {len(whole)} answers to {len(rows)} test rows")
    how = Sampling(resamples, confidence, seed)
    others = [subject for subject in said if subject != CANDIDATE] if CANDIDATE in said else []
    values: dict[str, list[MetricValue]] = {subject: [] for subject in said}
    comparisons: dict[tuple[str, str], Comparison] = {}
    scores: dict[tuple[str, str], Numbers] = {}
    least: dict[str, float] = {}
    chosen = list({m.name: m for m in metrics}.values())
    for measured in chosen:
        places = rows.places(measured.kinds)
        counted = rows.only(places)
        found = _measure_one(measured, counted, {s: whole.only(places) for s, whole in said.items()}, others, how)
        for subject, value in found.values.items():
            values[subject].append(value)
        comparisons |= {(c.other, c.metric): c for c in found.comparisons}
        for subject, given in found.scores.items():
            scores[subject, measured.name] = spread = np.full(len(rows), np.nan)
            spread[list(places)] = given
        if (seen := found.detectable(counted.groups, how)) is not None:
            least[measured.name] = seen
    if CANDIDATE in said and BASE in said:
        values[CANDIDATE].append(_differing(said[CANDIDATE].texts, said[BASE].texts, rows.groups, how))
    for other, judged in (net_wins or {}).items():
        if (won := _net_wins(other, judged, rows.groups, how)) is not None:
            comparisons[other, NET_WINS] = won
    names = [*(m.name for m in chosen), NET_WINS]
    return Measured(
        values={subject: tuple(listed) for subject, listed in values.items()},
        comparisons=tuple(comparisons[o, name] for o in others for name in names if (o, name) in comparisons),
        slices=tuple(measure_slices(rows, said, chosen[0], slices, how)) if chosen else (),
        scores=scores,
        detectable=least,
    )


def compare_scores(
    scores: Mapping[str, Sequence[float]],
    groups: Sequence[str],
    metric: str,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 7,
) -> tuple[dict[str, MetricValue], tuple[Comparison, ...]]:
    """The same for scores that are there already, a row each: subject → value, and the candidate against each of the others.

    Raises Broken when a subject has not one score in 0 to 1 for every row.
    """
    for subject, column in scores.items():
        if len(column) != len(groups):
            raise Broken(f"{subject} has {len(column)} scores of {metric} for {len(groups)} rows")
    others = [subject for subject in scores if subject != CANDIDATE] if CANDIDATE in scores else []
    columns = {subject: checked(column, f"{subject}'s {metric}") for subject, column in scores.items()}
    statistics = {subject: mean(column) for subject, column in columns.items()}
    found = pair(metric, statistics, columns, groups, others, Sampling(resamples, confidence, seed))
    return found.values, found.comparisons


def _measure_one(measured: Metric, rows: SplitRows, said: Mapping[str, Said], others: Sequence[str], how: Sampling) -> Paired:
    statistics: dict[str, Statistic] = {}
    scores: dict[str, Numbers] = {}
    for subject, given in said.items():
        column = measured.scores(rows, given)
        if column is not None:
            scores[subject] = checked(column, f"{subject}'s {measured.name}")
        # What scores each row is their mean, unless it says otherwise; scoring twice would cost as much again.
        averaged = column is not None and measured.whole is None
        statistic = mean(scores[subject]) if averaged else measured.statistic(rows, given)
        if statistic is not None:
            statistics[subject] = statistic
    return pair(measured.name, statistics, scores, rows.groups, others, how)


def _differing(candidate: Sequence[str], base: Sequence[str], groups: Sequence[str], how: Sampling) -> MetricValue:
    column = np.array([float(ours != theirs) for ours, theirs in zip(candidate, base, strict=True)])
    return pair(DIFFERS_FROM_BASE, {CANDIDATE: mean(column)}, {CANDIDATE: column}, groups, (), how).values[CANDIDATE]


def _net_wins(other: str, judged: Sequence[float | None], groups: Sequence[str], how: Sampling) -> Comparison | None:
    """Share won less share lost, over the rows that were judged; None where none was."""
    if len(judged) != len(groups):
        raise Broken(f"{len(judged)} judgements of the candidate and {other} are given for {len(groups)} rows")
    places = [at for at, verdict in enumerate(judged) if verdict is not None]
    if not places:
        return None
    column = checked([verdict for verdict in judged if verdict is not None], f"the judgement against {other}", -1.0)
    # A win is a score of 1 beside 0, a loss 0 beside 1, a tie a half each: then it is a comparison like any other.
    ours, theirs = (1 + column) / 2, (1 - column) / 2
    kept = [groups[at] for at in places]
    scores = {CANDIDATE: ours, other: theirs}
    return pair(NET_WINS, {name: mean(scores[name]) for name in scores}, scores, kept, [other], how).comparisons[0]

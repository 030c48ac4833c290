"""One metric over one set of rows: every subject's value, and the candidate against each other one, with all that says how sure
that is. Scores in, record parts out.

Intervals are the wider of the bootstrap's (statistics.py) and of those that hold for few rows (bounded.py), where a metric has a
score a row; of the others the bootstrap's are widened by what one group can move.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from pipeline.domain.measured import BASE, CANDIDATE, CHAMPION, Comparison, MetricValue
from pipeline.errors import Broken
from pipeline.evaluation.bounded import bounded_ends, one_group_more
from pipeline.evaluation.statistics import Interval, Numbers, Statistic, paired_bootstrap
from pipeline.evaluation.testing import detectable_by, paired_p

_DECIMALS = 9


@dataclass(frozen=True, slots=True)
class Sampling:
    """How intervals are drawn."""

    resamples: int
    confidence: float
    seed: int

    @property
    def tail(self) -> float:
        return (1 - self.confidence) / 2


@dataclass(frozen=True, slots=True)
class Paired:
    """values: subject → value. comparisons: the candidate against each of the others. scores: subject → a score a row."""

    values: dict[str, MetricValue]
    comparisons: tuple[Comparison, ...]
    scores: dict[str, Numbers]

    def detectable(self, groups: Sequence[str], how: Sampling, power: float = 0.8) -> float | None:
        """The least difference from the champion (else the base) that such rows show; None where neither was compared."""
        compared = {c.other: c for c in self.comparisons}
        seen = compared.get(CHAMPION) or compared.get(BASE)
        if seen is None:
            return None
        if seen.other in self.scores:
            return detectable_by(self.scores[CANDIDATE] - self.scores[seen.other], groups, how.tail, power)
        normal = NormalDist().inv_cdf
        error = (seen.high - seen.low) / (2 * normal(1 - how.tail))
        return min(1.0, round((normal(1 - how.tail) + normal(power)) * error, 6)) if error > 0 else 1.0


def pair(
    metric: str,
    statistics: Mapping[str, Statistic],
    scores: Mapping[str, Numbers],
    groups: Sequence[str],
    others: Sequence[str],
    how: Sampling,
) -> Paired:
    """statistics: of those subjects that can be measured. scores: of those that have one a row; then statistics are their means.
    others: whom the candidate is compared with, if they can be measured."""
    pairs = [(CANDIDATE, other) for other in others if {CANDIDATE, other} <= set(statistics)]
    options = {"resamples": how.resamples, "confidence": how.confidence, "seed": how.seed}
    drawn = paired_bootstrap(statistics, groups, pairs=pairs, **options)  # type: ignore[arg-type]
    scored = [subject for subject in statistics if subject in scores]
    apart = [(ours, theirs) for ours, theirs in pairs if ours in scores and theirs in scores]
    ends: dict[str | tuple[str, str], tuple[float, float]] = {}
    if scored:
        columns = [scores[subject] for subject in scored] + [scores[ours] - scores[theirs] for ours, theirs in apart]
        spans = [(0.0, 1.0)] * len(scored) + [(-1.0, 1.0)] * len(apart)
        keys: list[str | tuple[str, str]] = [*scored, *apart]
        found = bounded_ends(np.column_stack(columns), spans, groups, **options)  # type: ignore[arg-type]
        ends = dict(zip(keys, found, strict=True))
    whole = {subject: statistic for subject, statistic in statistics.items() if subject not in scores}
    several = [(ours, theirs) for ours, theirs in pairs if ours in whole and theirs in whole]
    more = one_group_more(whole, several, groups, confidence=how.confidence) if whole else {}
    values, comparisons = {}, []
    for subject, seen in drawn.values.items():
        low, high = _wider(seen, ends.get(subject), more.get(subject, 0.0), 0.0)
        values[subject] = MetricValue(metric=metric, value=seen.value, low=low, high=high, rows=seen.rows)
    for (ours, theirs), seen in drawn.differences.items():
        low, high = _wider(seen, ends.get((ours, theirs)), more.get((ours, theirs), 0.0), -1.0)
        p = discordant = None
        if (ours, theirs) in ends and len(groups):
            column = scores[ours] - scores[theirs]
            p = round(paired_p(column, groups, seed=how.seed), _DECIMALS)
            discordant = round(float(np.mean(np.abs(column) > 1e-12)), _DECIMALS)
        comparisons.append(
            Comparison(
                metric=metric, other=theirs, difference=seen.value, low=low, high=high, rows=seen.rows, p=p, discordant=discordant
            )
        )
    return Paired(values, tuple(comparisons), {subject: scores[subject] for subject in scored})


def checked(column: Sequence[float] | Numbers, what: str, least: float = 0.0) -> Numbers:
    """Scores as numbers. Raises Broken when one is no number between `least` and 1: a NaN must never average away."""
    numbers = np.asarray(column, dtype=np.float64)
    wrong = ~((numbers >= least) & (numbers <= 1))
    if wrong.any():
        at = int(np.argmax(wrong))
        raise Broken(f"{what} of row {at} is {numbers[at]}, which is no number in {least:g} to 1")
    return numbers


def _wider(seen: Interval, ends: tuple[float, float] | None, more: float, least: float) -> tuple[float, float]:
    if ends is None:
        return round(max(least, seen.low - more), _DECIMALS), round(min(1.0, seen.high + more), _DECIMALS)
    return round(min(seen.low, ends[0]), _DECIMALS), round(max(seen.high, ends[1]), _DECIMALS)

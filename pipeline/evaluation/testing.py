"""Is a difference more than luck, and how large must one be to be seen? Plain arrays in, plain numbers out.

Three things that intervals alone do not say: a p-value that is right for few rows, what it becomes when many slices are looked
at, and what a test can show before it is run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.statistics import Numbers

_FLIPS = 9_999
"""Random sign flips, where there are too many groups to flip them all ways: the smallest p is then 1 in 10,000."""
_EXACT_STEPS = 200_000
"""Up to so many additions, all sign flips are counted."""


def paired_p(
    differences: Sequence[float] | Numbers,
    groups: Sequence[str],
    *,
    alternative: Literal["two-sided", "less"] = "two-sided",
    seed: int = 7,
) -> float:
    """The chance of a sum of paired differences at least so extreme, were each group as likely to differ the other way round.

    The permutation test for pairs (Fisher 1935, "The Design of Experiments"; Good 2005, "Permutation, Parametric and Bootstrap
    Tests of Hypotheses"): the signs of whole groups are flipped, because rows of one group are not independent. Counted exactly
    where the groups' sums are multiples of one number, as those of right and wrong answers are; on rows that are groups of their
    own that is the exact McNemar test (McNemar 1947). Else by random flips, which count the data as seen among them (Phipson &
    Smyth 2010). less: the chance of a sum so low. 1 where nothing differs.
    """
    sums = _group_sums(np.asarray(differences, dtype=np.float64), groups)
    sums = sums[np.abs(sums) > 1e-12]
    if not len(sums):
        return 1.0
    sizes, observed = np.abs(sums), float(sums.sum())
    unit = float(sizes.min())
    steps = np.rint(sizes / unit).astype(np.int64)
    alike = bool((steps == 1).all()) or len(sums) * int(steps.sum()) <= _EXACT_STEPS
    if alike and np.abs(sizes / unit - steps).max() < 1e-9:
        return _counted(steps, round(observed / unit), alternative)
    drawn = _flipped_sums(sizes, seed)
    close = 1e-9 * float(sizes.sum())
    extreme = drawn <= observed + close if alternative == "less" else np.abs(drawn) >= abs(observed) - close
    return (1 + int(extreme.sum())) / (1 + len(drawn))


def holm(p: Sequence[float]) -> list[float]:
    """p-values of many questions, each adjusted so that the chance of any false alarm stays what one would have (Holm 1979, "A
    simple sequentially rejective multiple test procedure"). In the order given."""
    adjusted, reached = [0.0] * len(p), 0.0
    for rank, at in enumerate(sorted(range(len(p)), key=lambda at: p[at])):
        reached = max(reached, min(1.0, (len(p) - rank) * p[at]))
        adjusted[at] = reached
    return adjusted


def detectable(discordance: float, rows: float, alpha: float, power: float = 0.8) -> float:
    """The least true difference that `rows` paired rows show beyond chance, at one-sided `alpha`, `power` of the time.

    discordance: share of rows on which the two differ; of graded scores, the mean square of the differences. After Miettinen
    1968, "The matched pairs design in the case of all-or-none responses" (as in Connor 1987), less one row for the pseudo-row of
    the gate's intervals (bounded.py). At most 1, which says: none.
    """
    if rows <= 0:
        return 1.0
    outer, inner = NormalDist().inv_cdf(1 - alpha), NormalDist().inv_cdf(power)

    def falls_short(difference: float) -> bool:
        # A difference is made of rows that differ, so there are no fewer of them than it is large.
        spread = max(discordance, difference)
        noise = outer * math.sqrt(spread / rows) + inner * math.sqrt(max(spread - difference**2, 0.0) / rows)
        return difference < noise + 1 / rows

    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if falls_short(middle) else (low, middle)
    return round(high, 6)


def detectable_by(differences: Sequence[float] | Numbers, groups: Sequence[str], alpha: float, power: float = 0.8) -> float:
    """`detectable` for a test as it was: rows of one group count as few as they vary together (Kish 1965, design effect)."""
    column = np.asarray(differences, dtype=np.float64)
    rows, number = len(column), len(set(groups))
    if number < 2:
        return 1.0
    square, variance = float(np.mean(column**2)), float(column.var())
    sizes = _group_sums(np.ones(rows), groups)
    apart = _group_sums(column, groups) - column.mean() * sizes
    by_group = float(np.sum(apart**2)) * number / (number - 1) / rows**2
    effective = float(number) if by_group <= 1e-15 else min(float(rows), max(variance, 1e-15) / by_group)
    return detectable(square, effective, alpha, power)


def clopper_pearson(hits: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a share (Clopper & Pearson 1934, "The use of confidence or fiducial limits")."""
    from scipy import stats

    tail = (1 - confidence) / 2
    low = float(stats.beta.ppf(tail, hits, trials - hits + 1)) if hits else 0.0
    high = float(stats.beta.ppf(1 - tail, hits + 1, trials - hits)) if hits < trials else 1.0
    return round(low, 6), round(high, 6)


def _group_sums(column: Numbers, groups: Sequence[str]) -> Numbers:
    _, codes = np.unique(np.array(groups, dtype=str), return_inverse=True)
    return np.asarray(np.bincount(codes, weights=column), dtype=np.float64)


def _counted(steps: NDArray[np.int64], observed: int, alternative: str) -> float:
    """Over all sign flips: the distribution of the sum, one group after the other; binomial where all are of one size."""
    whole = int(steps.sum())
    if (steps == 1).all():
        from scipy.special import bdtr

        if alternative == "less":
            return float(bdtr((whole + observed) // 2, whole, 0.5))
        return min(1.0, 2 * float(bdtr((whole - abs(observed)) // 2, whole, 0.5)))
    chances = np.zeros(2 * whole + 1)
    chances[whole] = 1.0
    for step in (int(s) for s in steps):
        moved = np.zeros_like(chances)
        moved[step:] += chances[:-step] / 2
        moved[:-step] += chances[step:] / 2
        chances = moved
    below = float(chances[: whole + observed + 1].sum())
    if alternative == "less":
        return min(1.0, below)
    return min(1.0, 2 * float(chances[: whole - abs(observed) + 1].sum()))


def _flipped_sums(sizes: Numbers, seed: int) -> Numbers:
    source, batch = np.random.default_rng(seed), max(1, 2_000_000 // len(sizes))
    parts = []
    for start in range(0, _FLIPS, batch):
        signs = source.integers(0, 2, size=(min(batch, _FLIPS - start), len(sizes)), dtype=np.int8)
        parts.append((2.0 * signs - 1.0) @ sizes)
    return np.concatenate(parts)

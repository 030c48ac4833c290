"""How sure a measured number is: paired bootstrap over groups of rows. Plain arrays in, intervals out; no metric enters here.

A statistic is a function of sums over rows (a mean is sum ÷ count; macro-F1 is a function of per-label counts), so a resample
is one matrix product: multiplicities of the groups times sums within the groups. All statistics see the same resamples, which
is what makes their differences paired. Groups are resampled, not rows, because rows of one group are not independent.

Intervals are bias-corrected and accelerated (BCa; Efron 1987, "Better Bootstrap Confidence Intervals"; Efron & Tibshirani
1993, "An Introduction to the Bootstrap", chapter 14). The gate reads the lower end, and there it matters: with 100 rows and a
true accuracy of 0.95, the plain percentile interval's lower end lay above the truth 3.7 times in 100, BCa's 1.5 times
(nominal 2.5).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import Broken

Numbers = NDArray[np.float64]
Key = TypeVar("Key", bound="tuple[str, ...] | str")

_BATCH_NUMBERS = 2_000_000
"""At most about this many float64 a batch of resamples (16 MB), whatever the number of rows and resamples."""
_DECIMALS = 9
"""Sums differ in their last bits between machines; what is reported does not."""


@dataclass(frozen=True, slots=True)
class Statistic:
    """A number computed from column sums over rows.

    contributions: (rows, k), dense or scipy.sparse. value: maps sums of shape (m, k) to numbers of shape (m,), finite for
    every row of sums. span: the ends of what the statistic can be.
    """

    contributions: Any
    value: Callable[[Numbers], Numbers]
    span: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Interval:
    """A value over `rows` rows and its confidence interval: low <= value <= high."""

    value: float
    low: float
    high: float
    rows: int


@dataclass(frozen=True, slots=True)
class Bootstrap(Generic[Key]):
    """Intervals of the statistics, and of the differences first minus second of the pairs asked for."""

    values: dict[Key, Interval]
    differences: dict[tuple[Key, Key], Interval]


def mean(scores: Sequence[float] | Numbers) -> Statistic:
    """The mean of per-row scores. Raises Broken if a score is not finite: a NaN must never average away."""
    column = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(column).all():
        raise Broken(f"the score of row {int(np.argmin(np.isfinite(column)))} is not a finite number")

    def value(sums: Numbers) -> Numbers:
        return np.divide(sums[:, 0], sums[:, 1], out=np.zeros(len(sums)), where=sums[:, 1] > 0)

    return Statistic(np.column_stack([column, np.ones_like(column)]), value)


def point(statistic: Statistic) -> float:
    """The statistic on all rows, each once; 0 if there are none."""
    if statistic.contributions.shape[0] == 0:
        return 0.0
    sums = np.asarray(statistic.contributions.sum(axis=0), dtype=np.float64).reshape(1, -1)
    return round(float(statistic.value(sums)[0]), _DECIMALS)


def paired_bootstrap(
    statistics: Mapping[Key, Statistic],
    groups: Sequence[str],
    *,
    pairs: Sequence[tuple[Key, Key]] = (),
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 7,
) -> Bootstrap[Key]:
    """Intervals of statistics of the same rows, and of differences between them.

    groups: the group key of every row; rows of a group are drawn together. The draws depend on the seed and the number of
    groups only, so the order of rows changes nothing beyond rounding.

    Where all resamples agree the bootstrap would claim certainty, which 30 right answers out of 30 do not give. There the
    interval is the exact one for "no group deviated": with G groups, at most 1 - (alpha/2)^(1/G) of all groups deviate
    (Clopper & Pearson 1934). A difference that is 0 in every resample is left at exactly 0: nothing was told apart. No rows
    at all give the whole span.
    """
    rows = len(groups)
    if rows == 0:
        nothing = {key: Interval(0.0, *s.span, 0) for key, s in statistics.items()}
        return Bootstrap(nothing, {pair: Interval(0.0, *_difference_span(statistics, pair), 0) for pair in pairs})
    membership = membership_of(groups)
    summed = {key: Statistic(membership @ s.contributions, s.value, s.span) for key, s in statistics.items()}
    number = membership.shape[0]
    drawn = _resampled(summed, number, resamples, seed)
    left_out = {key: leave_one_out(s) for key, s in summed.items()}
    points = {key: point(s) for key, s in statistics.items()}
    alpha = (1 - confidence) / 2

    values = {
        key: _interval(points[key], drawn[key], left_out[key], s.span, alpha, rows, number) for key, s in statistics.items()
    }
    differences = {}
    for first, second in pairs:
        observed = round(points[first] - points[second], _DECIMALS)
        spread = drawn[first] - drawn[second]
        if not np.abs(spread).max() > _close(spread):
            differences[first, second] = Interval(0.0, 0.0, 0.0, rows)
            continue
        span = _difference_span(statistics, (first, second))
        influence = left_out[first] - left_out[second]
        differences[first, second] = _interval(observed, spread, influence, span, alpha, rows, number)
    return Bootstrap(values, differences)


def membership_of(groups: Sequence[str]) -> Any:
    """Which row is of which group: a sparse (groups, rows) of ones, groups in sorted order."""
    from scipy import sparse

    numbers = {name: number for number, name in enumerate(sorted(set(groups)))}
    codes, rows = np.array([numbers[g] for g in groups]), len(groups)
    return sparse.csr_array((np.ones(rows), (codes, np.arange(rows))), shape=(len(numbers), rows))


def _resampled(statistics: Mapping[Key, Statistic], groups: int, resamples: int, seed: int) -> dict[Key, Numbers]:
    """Every statistic on every resample: arrays of shape (resamples,)."""
    drawn: dict[Key, list[Numbers]] = {key: [] for key in statistics}
    widest = max([groups, *(s.contributions.shape[1] for s in statistics.values())])
    dense = {key: s for key, s in statistics.items() if isinstance(s.contributions, np.ndarray)}
    ends = np.cumsum([0, *(s.contributions.shape[1] for s in dense.values())])
    beside = np.hstack([s.contributions for s in dense.values()]) if dense else None
    for times in _multiplicities(groups, resamples, seed, max(1, _BATCH_NUMBERS // widest)):
        sums = {key: (s.contributions.T @ times.T).T for key, s in statistics.items() if key not in dense}
        if beside is not None:
            together = times @ beside  # one product for all of them
            sums |= {key: together[:, ends[at] : ends[at + 1]] for at, key in enumerate(dense)}
        for key, statistic in statistics.items():
            drawn[key].append(statistic.value(np.ascontiguousarray(sums[key])))
    return {key: np.concatenate(parts) for key, parts in drawn.items()}


def _multiplicities(groups: int, resamples: int, seed: int, batch: int) -> Iterator[Numbers]:
    """How often each group is in each resample, in batches of shape (<= batch, groups)."""
    if resamples <= batch:
        yield _all_multiplicities(groups, resamples, seed)
        return
    source = np.random.default_rng(seed)
    for start in range(0, resamples, batch):
        yield _drawn(source, min(batch, resamples - start), groups)


@lru_cache(maxsize=2)
def _all_multiplicities(groups: int, resamples: int, seed: int) -> Numbers:
    """Kept, because tests of one size follow each other: metrics of a test, trials of a simulation. Not to be written to."""
    return _drawn(np.random.default_rng(seed), resamples, groups)


def _drawn(source: np.random.Generator, size: int, groups: int) -> Numbers:
    picked = source.integers(0, groups, size=(size, groups))
    picked += np.arange(size)[:, None] * groups
    return np.bincount(picked.ravel(), minlength=size * groups).reshape(size, groups).astype(np.float64)


def leave_one_out(statistic: Statistic) -> Numbers:
    """The statistic without each group in turn: shape (groups,). It measures how lopsided the statistic is (acceleration)."""
    contributions = statistic.contributions
    groups, width = contributions.shape
    total = np.asarray(contributions.sum(axis=0)).reshape(1, -1)
    batch = max(1, _BATCH_NUMBERS // width)
    parts = []
    for start in range(0, groups, batch):
        piece = contributions[start : start + batch]
        parts.append(statistic.value(total - (piece if isinstance(piece, np.ndarray) else piece.toarray())))
    return np.concatenate(parts)


def _interval(
    observed: float, drawn: Numbers, left_out: Numbers, span: tuple[float, float], alpha: float, rows: int, groups: int
) -> Interval:
    if drawn.max() - drawn.min() <= _close(drawn):
        agree = alpha ** (1 / groups)
        low, high = (agree * observed + (1 - agree) * end for end in span)
    else:
        low, high = np.quantile(drawn, _bca_levels(observed, drawn, left_out, alpha))
    # A discrete distribution can put the observed value a step outside; an interval without its own value helps nobody.
    return Interval(observed, round(min(float(low), observed), _DECIMALS), round(max(float(high), observed), _DECIMALS), rows)


def _bca_levels(observed: float, drawn: Numbers, left_out: Numbers, alpha: float) -> list[float]:
    """Quantiles of the resampled values that make the interval's ends. Ties with the observed value count half."""
    normal, close = NormalDist(), _close(drawn)
    below = float(np.mean(drawn < observed - close) + 0.5 * np.mean(np.abs(drawn - observed) <= close))
    bias = normal.inv_cdf(min(max(below, 0.5 / len(drawn)), 1 - 0.5 / len(drawn)))
    influence = left_out.mean() - left_out
    size = float(np.sum(influence**2))
    acceleration = float(np.sum(influence**3)) / (6 * size**1.5) if size > 1e-30 else 0.0
    levels = []
    for level in (alpha, 1 - alpha):
        moved = bias + normal.inv_cdf(level)
        stretch = 1 - acceleration * moved
        # Past the pole of the correction (tiny, very lopsided samples) the end of the resampled values is all that is known.
        levels.append(normal.cdf(bias + moved / stretch) if stretch > 0 else float(level > 0.5))
    return levels


def _difference_span(statistics: Mapping[Key, Statistic], pair: tuple[Key, Key]) -> tuple[float, float]:
    first, second = statistics[pair[0]].span, statistics[pair[1]].span
    return first[0] - second[1], first[1] - second[0]


def _close(values: Numbers) -> float:
    """Differences up to this are rounding."""
    return 1e-11 * max(1.0, math.fabs(float(values.max())), math.fabs(float(values.min())))

"""Were two sides drawn from the same rows? Permutation tests of several aspects at once. Plain arrays in, numbers out.

Sides are shuffled over the rows, and every aspect's distance is measured anew each time: Kolmogorov–Smirnov for numbers,
chi-square for names, and the maximum mean discrepancy of vectors (Gretton et al. 2012, "A Kernel Two-Sample Test"). If nothing
has changed, the real sides are one shuffle like any other, so p-values are exact whatever the rows look like and however few
they are. All aspects see the same shuffles, so the step-down minP of Westfall & Young (1993, "Resampling-Based Multiple
Testing"; Ge, Dudoit & Speed 2003) holds the chance of any false alarm without the loss of a correction that ignores how the
aspects hang together.

Significance says little when there are many rows, so each aspect has an effect as well: by how much a guess of a row's side
gets better by looking at this aspect (after Lopez-Paz & Oquab 2017, "Revisiting Classifier Two-Sample Tests"), less what
chance alone gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]

LEAST_ROWS = 30
"""A side with fewer rows proves nothing."""

_BLOCK_NUMBERS = 4_000_000
"""At most about this many numbers a block of shuffles, whatever the rows."""
_DECIMALS = 6
"""Sums differ in their last bits between machines; distances that are equal must be seen to be."""
_NAMES = 200
"""So many names are told apart, the most frequent ones; all others count as one."""


@dataclass(frozen=True, slots=True)
class NumberAspect:
    """A number a row, of both sides."""

    name: str
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class NameAspect:
    """A name a row, of both sides."""

    name: str
    values: Sequence[str]


@dataclass(frozen=True, slots=True)
class VectorAspect:
    """A row of unit vectors a row, of both sides: rows × dimensions, dense or scipy.sparse."""

    name: str
    vectors: Any


Aspect = NumberAspect | NameAspect | VectorAspect


@dataclass(frozen=True, slots=True)
class Compared:
    """effect: 0 to 1, beyond chance. p, and adjusted for all aspects of the comparison."""

    name: str
    effect: float
    p: float
    adjusted: float


def shuffles_for(false_alarms: float, aspects: int) -> int:
    """How many shuffles let a clear shift of one aspect among several be told at this rate of false alarms."""
    return max(999, math.ceil(4 * aspects / false_alarms) - 1)


def compare(aspects: Sequence[Aspect], fresh: Mask, *, shuffles: int, seed: int = 7) -> tuple[Compared, ...]:
    """Compare the sides of the rows in each aspect.

    fresh: a row's side. With `shuffles` shuffles no p-value is below 1 / (shuffles + 1). The same rows in the same order and the
    same seed give the same numbers. Raises ValueError when a side has no row.
    """
    fresh = np.asarray(fresh, dtype=np.bool_)
    if fresh.all() or not fresh.any():
        raise ValueError("a side has no row")
    if not aspects:
        return ()
    measures = [_measure(aspect) for aspect in aspects]
    rng = np.random.default_rng(seed)
    found = [_distances(measures, fresh[None, :])]
    step = max(1, _BLOCK_NUMBERS // len(fresh))
    for start in range(0, shuffles, step):
        found.append(_distances(measures, _shuffled(fresh, min(step, shuffles - start), rng)))
    tested = np.concatenate([tested for tested, _ in found])
    gained = np.concatenate([gained for _, gained in found])
    p, adjusted = _p_values(tested)
    beyond = [_effect(aspect, gained[:, column], fresh) for column, aspect in enumerate(aspects)]
    return tuple(
        Compared(aspect.name, round(beyond[i], 4), round(float(p[i]), 6), round(float(adjusted[i]), 6))
        for i, aspect in enumerate(aspects)
    )


def psi(reference: Sequence[str], fresh: Sequence[str]) -> float:
    """Population stability index of two lists of names; half a row is added to each name, so that none is missing on a side."""
    names, places = np.unique(np.asarray([*reference, *fresh], dtype=object).astype(str), return_inverse=True)
    before = np.bincount(places[: len(reference)], minlength=len(names)) + 0.5
    after = np.bincount(places[len(reference) :], minlength=len(names)) + 0.5
    before, after = before / before.sum(), after / after.sum()
    return float(np.sum((after - before) * np.log(after / before)))


# A measure maps sides of shape (shuffles, rows), 1.0 for fresh, to what is tested and what is gained, both (shuffles,).
_Measure = Callable[[Numbers], tuple[Numbers, Numbers]]


def _measure(aspect: Aspect) -> _Measure:
    if isinstance(aspect, NumberAspect):
        return _kolmogorov_smirnov(np.asarray(aspect.values, dtype=np.float64))
    if isinstance(aspect, NameAspect):
        return _chi_square(aspect.values)
    return _mean_discrepancy(aspect.vectors)


def _kolmogorov_smirnov(values: Numbers) -> _Measure:
    """The greatest distance between the two empirical distributions; what a guess gains by the best threshold is the same."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))

    def measure(sides: Numbers) -> tuple[Numbers, Numbers]:
        fresh = sides[0].sum()
        below = np.cumsum(sides[:, order], axis=1)[:, ends]
        distance = np.abs(below / fresh - (ends + 1 - below) / (len(values) - fresh)).max(axis=1)
        return distance, distance

    return measure


def _chi_square(values: Sequence[str]) -> _Measure:
    """Pearson's statistic of a table of two sides; the gain is the total variation distance of the shares."""
    names, places, counts = np.unique(np.asarray(values, dtype=object).astype(str), return_inverse=True, return_counts=True)
    rank = np.empty(len(names), dtype=np.intp)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(names))
    columns = np.minimum(rank[places], _NAMES - 1)
    one_hot = np.eye(int(columns.max()) + 1)[columns]
    totals = one_hot.sum(axis=0)

    def measure(sides: Numbers) -> tuple[Numbers, Numbers]:
        after = sides[0].sum()
        before = len(values) - after
        ours = sides @ one_hot
        theirs = totals - ours
        squares = (ours * math.sqrt(before / after) - theirs * math.sqrt(after / before)) ** 2 / totals
        return squares.sum(axis=1), np.abs(ours / after - theirs / before).sum(axis=1) / 2

    return measure


def _mean_discrepancy(vectors: Any) -> _Measure:
    """Squared distance of the sides' mean vectors, by the Gram matrix: MMD with the kernel that is the inner product."""
    product = vectors @ vectors.T
    gram = np.asarray(product.todense() if hasattr(product, "todense") else product, dtype=np.float32)

    def measure(sides: Numbers) -> tuple[Numbers, Numbers]:
        fresh = sides[0].sum()
        weights = (sides / fresh - (1 - sides) / (len(gram) - fresh)).astype(np.float32)
        squared = np.einsum("ij,ij->i", weights @ gram, weights, dtype=np.float64)
        return squared, squared

    return measure


def _distances(measures: Sequence[_Measure], sides: Mask) -> tuple[Numbers, Numbers]:
    """(what is tested, what is gained), both shuffles × aspects."""
    numbers = sides.astype(np.float64)
    found = [measure(numbers) for measure in measures]
    tested: Numbers = np.column_stack([tested for tested, _ in found]).astype(np.float64)
    return np.round(tested, _DECIMALS), np.column_stack([gained for _, gained in found])


def _shuffled(fresh: Mask, times: int, rng: np.random.Generator) -> Mask:
    count = int(fresh.sum())
    chosen = np.argpartition(rng.random((times, len(fresh)), dtype=np.float32), count - 1, axis=1)[:, :count]
    sides = np.zeros((times, len(fresh)), dtype=np.bool_)
    np.put_along_axis(sides, chosen, True, axis=1)
    return sides


def _p_values(tested: Numbers) -> tuple[Numbers, Numbers]:
    """(p, adjusted p) of row 0 among all rows, a number an aspect. Row 0 counts among those that are as great as it is."""
    rows, aspects = tested.shape
    ascending = np.sort(tested, axis=0)
    ranks = np.empty_like(tested)
    for column in range(aspects):
        ranks[:, column] = (rows - np.searchsorted(ascending[:, column], tested[:, column], side="left")) / rows
    observed = ranks[0]
    order = np.argsort(observed, kind="stable")
    # From the least convincing aspect to the most: the least p among an aspect and all that convince less.
    least = np.minimum.accumulate(ranks[:, order[::-1]], axis=1)[:, ::-1]
    stepwise = (least <= observed[order]).sum(axis=0) / rows
    adjusted = np.empty(aspects)
    adjusted[order] = np.maximum.accumulate(stepwise)
    return observed, adjusted


def _effect(aspect: Aspect, gained: Numbers, fresh: Mask) -> float:
    if isinstance(aspect, VectorAspect):
        return max(0.0, _held_out_gain(aspect.vectors, fresh))
    # What the best threshold, or the best guess by name, gains by chance is not to be counted. Chance adds to a distance about as
    # independent errors do, so squares are taken, as in bias-corrected measures of association (Bergsma 2013).
    return math.sqrt(max(0.0, float(gained[0] ** 2 - (gained[1:] ** 2).mean())))


def _held_out_gain(vectors: Any, fresh: Mask) -> float:
    """By how much the nearer mean vector tells a row's side, on rows that the means were not made of: 2 · (AUC - 1/2)."""
    from scipy.stats import rankdata

    half = np.zeros(len(fresh), dtype=np.bool_)
    for side in (True, False):
        half[np.flatnonzero(fresh == side)[::2]] = True
    areas = []
    for learned, held in ((half, ~half), (~half, half)):
        direction = np.asarray(vectors[learned & fresh].mean(axis=0) - vectors[learned & ~fresh].mean(axis=0)).ravel()
        ours, theirs = int((held & fresh).sum()), int((held & ~fresh).sum())
        if not (learned & fresh).any() or not (learned & ~fresh).any() or not ours or not theirs:
            return 0.0
        ranks = rankdata(np.asarray(vectors[held] @ direction).ravel())
        areas.append((ranks[fresh[held]].sum() - ours * (ours + 1) / 2) / (ours * theirs))
    return float(2 * (np.mean(areas) - 0.5))

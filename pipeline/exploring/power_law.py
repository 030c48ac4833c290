"""A power law through errors at several sizes of the data, and how sure it is. Numbers in, numbers out; nothing is learned here.

error = floor + gain * size^-rate (Hestness et al. 2017, "Deep Learning Scaling is Predictable, Empirically"; Viering & Loog 2021,
"The Shape of Learning Curves: a Review").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LEAST_SIZES = 3
"""Fewer sizes than the law has numbers tell nothing of it."""
_DECIMALS = 12


_RATES = np.arange(4, 801) / 400
"""Rates that are tried, 0.01 to 2. For each, floor and gain are a line through the errors, which needs no search."""


class Law(NamedTuple):
    floor: float
    gain: float
    rate: float

    def error(self, size: float) -> float:
        return float(self.floor + self.gain * float(size) ** -self.rate)


def fit_law(sizes: Sequence[int], errors: Sequence[float]) -> Law | None:
    """The law through errors, by least squares; None where there are fewer than LEAST_SIZES."""
    if len(sizes) < LEAST_SIZES:
        return None
    floor, gain, rate = (float(found[0]) for found in _fitted(sizes, np.array([errors], float)))
    return Law(floor, gain * float(sizes[0]) ** rate, rate)


def ahead(sizes: Sequence[int], errors: Floats, at: int) -> Floats:
    """The error at size `at` by the law through each row of `errors` [draws, sizes], of LEAST_SIZES or more."""
    floor, gain, rate = _fitted(sizes, errors)
    return np.asarray(floor + gain * (at / float(sizes[0])) ** -rate)


def _fitted(sizes: Sequence[int], errors: Floats) -> tuple[Floats, Floats, Floats]:
    """Floor, gain (of the least size) and rate of the law through each row of `errors`. Floor and gain lie in 0 to 1: no learner
    gets worse with data, and none errs on less than nothing."""
    relative = np.array(sizes, float) / float(sizes[0])
    falls = relative[None, :] ** -_RATES[:, None]  # [rates, sizes]
    centred = falls - falls.mean(1, keepdims=True)
    spread = np.maximum((centred**2).sum(1), 1e-12)
    gain = np.clip(errors @ centred.T / spread, 0, 1)  # [draws, rates]
    floor = errors.mean(1, keepdims=True) - gain * falls.mean(1)
    # Where the best line has its floor below nothing, the best one through nothing.
    through = np.clip(errors @ falls.T / (falls**2).sum(1), 0, 1)
    gain = np.where(floor < 0, through, gain)
    floor = np.where(floor < 0, 0.0, np.minimum(floor, 1.0))
    squares = (floor**2 + 2 * floor * gain * falls.mean(1)) * len(sizes) + gain**2 * (falls**2).sum(1)
    squares += (errors**2).sum(1, keepdims=True) - 2 * (floor * errors.sum(1, keepdims=True) + gain * (errors @ falls.T))
    best = np.round(squares, _DECIMALS).argmin(1)
    drawn = np.arange(len(errors))
    return floor[drawn, best], gain[drawn, best], _RATES[best]


def resampled(
    scores: Mapping[int, Sequence[Sequence[float]]], groups: Sequence[str], *, resamples: int, seed: int
) -> tuple[tuple[int, ...], Floats]:
    """Mean scores on draws of the test rows' groups and of the trainings: sizes, and [resamples, sizes].

    scores: of each size, of each training on so many rows, a score a test row. All sizes see the same draw of groups, which is
    what makes their differences paired; the trainings of each size are drawn by themselves.
    """
    sizes = tuple(sorted(scores))
    names = {name: at for at, name in enumerate(sorted(set(groups)))}
    of = np.array([names[name] for name in groups], np.int64)
    counts = np.bincount(of, minlength=len(names)).astype(float)
    sums = {size: np.stack([np.bincount(of, np.asarray(one, float), len(names)) for one in scores[size]]) for size in sizes}
    generator = np.random.default_rng(seed)
    drawn = np.zeros((resamples, len(sizes)))
    for at in range(resamples):
        times = np.bincount(generator.integers(0, len(names), len(names)), minlength=len(names)).astype(float)
        rows = float(counts @ times)
        for place, size in enumerate(sizes):
            trainings = sums[size]
            picked = generator.integers(0, len(trainings), len(trainings))
            drawn[at, place] = float((trainings[picked] @ times).mean()) / rows
    return sizes, drawn

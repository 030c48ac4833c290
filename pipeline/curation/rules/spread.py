"""How far a number lies from the bulk of its kind, by measures that a few wild numbers cannot move. Plain arrays in and out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float32]
_TO_DEVIATIONS = 1.4826
_MEAN_TO_DEVIATIONS = 1.2533


def robust_z(values: npt.ArrayLike) -> Numbers:
    """How many standard deviations each value lies from the median, the deviation told from the median absolute deviation.

    Iglewicz & Hoaglin 1993, "How to Detect and Handle Outliers": where more than half of the values are equal, the mean absolute
    deviation stands in; where all are, nothing is an outlier. The factors make both match a normal distribution's deviation.
    """
    away = np.array(values, np.float32)
    if not len(away):
        return away
    away -= np.median(away)
    size = np.abs(away)
    spread = _TO_DEVIATIONS * float(np.median(size)) or _MEAN_TO_DEVIATIONS * float(np.mean(size, dtype=np.float64))
    away *= 1 / spread if spread > 0 else 0
    return away


def fair_cap(counts: npt.ArrayLike, total: int) -> int:
    """The greatest cap for which the parts, each cut to it, hold `total` rows at most together."""
    sizes = np.asarray(counts, np.int64)
    least, most = 0, int(sizes.max(initial=0))
    while least < most:
        cap = (least + most + 1) // 2
        if np.minimum(sizes, cap).sum() <= total:
            least = cap
        else:
            most = cap - 1
    return least

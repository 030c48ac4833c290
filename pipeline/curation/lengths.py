"""Histograms of lengths over fixed logarithmic bins, so that those of two shards add up to that of both, exactly.

Whole numbers only; what is measured is for curation/statistics.py to say.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from pydantic import Field

from pipeline.domain.record import Value

EDGES: tuple[int, ...] = (0, *sorted({round(2 ** (step / 4)) for step in range(4 * 31)}))
"""Lower ends of the bins: 0, then four to every doubling, so that a length is known to about a fifth."""


class Lengths(Value):
    """How long `rows` texts are, in characters. bins: lower end of a bin (as text, since JSON keys are) to how many lie there."""

    rows: int = 0
    total: int = 0
    least: int = 0
    greatest: int = 0
    bins: dict[str, int] = Field(default_factory=dict)

    @property
    def mean(self) -> float:
        return self.total / self.rows if self.rows else 0.0

    def quantile(self, share: float) -> int:
        """The length that `share` of the rows do not exceed, exact to a bin: its upper end, but never beyond the greatest."""
        wanted, seen = share * self.rows, 0
        for low in sorted(map(int, self.bins)):
            seen += self.bins[str(low)]
            if seen >= wanted:
                at = EDGES.index(low)
                return max(min(EDGES[at + 1] - 1 if at + 1 < len(EDGES) else self.greatest, self.greatest), self.least)
        return self.greatest


def measure(lengths: Any) -> Lengths:
    """The histogram of an array of lengths (whole numbers, none negative)."""
    values = np.asarray(lengths, dtype=np.int64)
    if not len(values):
        return Lengths()
    found, counts = np.unique(np.searchsorted(EDGES, values, side="right") - 1, return_counts=True)
    return Lengths(
        rows=len(values),
        total=int(values.sum()),
        least=int(values.min()),
        greatest=int(values.max()),
        bins={str(EDGES[at]): int(count) for at, count in zip(found, counts, strict=True)},
    )


def add_up(parts: Iterable[Lengths]) -> Lengths:
    """The histogram of all texts that the parts are of."""
    filled = [part for part in parts if part.rows]
    if not filled:
        return Lengths()
    bins: dict[str, int] = {}
    for part in filled:
        for low, count in part.bins.items():
            bins[low] = bins.get(low, 0) + count
    return Lengths(
        rows=sum(part.rows for part in filled),
        total=sum(part.total for part in filled),
        least=min(part.least for part in filled),
        greatest=max(part.greatest for part in filled),
        bins=bins,
    )

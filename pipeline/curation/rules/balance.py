"""How evenly rows are spread over labels, sources and kinds, and the weights that would even them out. Nothing is left out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.curation.rules.columns import Codes, Columns
from pipeline.curation.rules.findings import Mask

_TEMPERATURE = 2.0


@dataclass(frozen=True, slots=True)
class Balance:
    """Rows by the values of one column. counts: (value, rows), most first, values without rows left out.

    ratio: the greatest count over the least. effective: how many equally common values would be as varied, the exponential of the
    Shannon entropy (Hill 1973, "Diversity and Evenness").
    """

    by: str
    counts: tuple[tuple[str, int], ...]

    @property
    def ratio(self) -> float:
        return self.counts[0][1] / self.counts[-1][1] if self.counts else 1.0

    @property
    def effective(self) -> float:
        total = sum(rows for _, rows in self.counts)
        return math.exp(-sum(rows / total * math.log(rows / total) for _, rows in self.counts)) if total else 0.0

    def weights(self) -> tuple[float, ...]:
        """For each value, how often a row of it would be drawn, 1 on average over rows, so that a value's share grows with the
        root of its rows: sampling at temperature 2 (Arivazhagan et al. 2019, "Massively Multilingual Neural Machine Translation
        in the Wild")."""
        total = sum(rows for _, rows in self.counts)
        scale = total / sum(rows ** (1 / _TEMPERATURE) for _, rows in self.counts) if total else 1.0
        return tuple(scale * rows ** (1 / _TEMPERATURE - 1) for _, rows in self.counts)

    def told(self) -> str:
        """One line for the record."""
        if not self.counts:
            return f"no rows with a {self.by}"
        least, most = self.counts[-1][1], self.counts[0][1]
        return (
            f"{len(self.counts)} {self.by}s of {least} to {most} rows, ratio {self.ratio:.1f}, "
            f"as varied as {self.effective:.1f} equally common ones"
        )


def balance(columns: Columns, kept: Mask) -> tuple[Balance, ...]:
    """By label (where rows have one), by source and by kind, of the kept rows."""
    found = [
        _count("source", columns.sources[kept], columns.source_names),
        _count("kind", columns.kinds[kept], columns.kind_names),
    ]
    labels: npt.NDArray[np.int32] = columns.labels[kept]
    if len(labels) and labels.max() >= 0:
        found.insert(0, _count("label", labels[labels >= 0], columns.label_names))
    return tuple(found)


def _count(by: str, codes: Codes, names: tuple[str, ...]) -> Balance:
    counts = np.bincount(codes, minlength=len(names)).tolist()
    pairs = [(name, rows) for name, rows in zip(names, counts, strict=True) if rows]
    return Balance(by, tuple(sorted(pairs, key=lambda pair: (-pair[1], pair[0]))))

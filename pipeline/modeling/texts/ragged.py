"""Columns of lists of lists of integers in Arrow, seen as flat arrays without copying. What the integers mean is rows.py's."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

IGNORED = -100
"""The label of a token that is not learned."""


class Ragged:
    """A column of lists of lists of integers, as flat arrays and the places at which its rows and items begin."""

    def __init__(self, column: pa.Array) -> None:
        rows = column.values
        self.items = np.asarray(column.offsets)
        self.starts = np.asarray(rows.offsets)
        self.values = np.asarray(rows.values)

    def item(self, index: int) -> list[list[int]]:
        rows = range(self.items[index], self.items[index + 1])
        return [self.values[self.starts[row] : self.starts[row + 1]].tolist() for row in rows]

    def rows(self) -> npt.NDArray[np.int64]:
        return np.asarray(np.diff(self.items), np.int64)

    def row_lengths(self) -> npt.NDArray[np.int64]:
        return np.asarray(np.diff(self.starts)[self.items[0] : self.items[-1]], np.int64)

    def labelled(self) -> npt.NDArray[np.int64]:
        counted = self.values != IGNORED
        counted[self.starts[:-1][np.diff(self.starts) > 0]] = False
        total = np.concatenate([[0], np.cumsum(counted)])
        return np.asarray(np.diff(total[self.starts])[self.items[0] : self.items[-1]], np.int64)

    def per_item(self, values: npt.NDArray[np.int64], fold: np.ufunc) -> npt.NDArray[np.int64]:
        """Values of rows folded into one an item; every item has a row."""
        if not len(values):
            return np.zeros(0, np.int64)
        return np.asarray(fold.reduceat(values, self.items[:-1] - self.items[0]), np.int64)

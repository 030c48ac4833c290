"""Folded texts on disk, read back by number: what lets ten million texts be compared without holding them in memory.

A store is scratch: one file of UTF-8, written once from front to back, and 8 bytes a text in memory. It makes no promise to later
processes. Which texts are put in, and which are compared, is for near.py and leaks.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from pipeline.curation.folding import Folded, from_bytes, offsets, to_bytes

_NEAR_BYTES = 4096
"""Texts whose bytes lie no farther apart are read in one go."""
_PAIR_BYTES = 4 << 20
_PAIR_ROWS = 1 << 16


class FoldedStore:
    """A file of folded texts, numbered from 0 in the order they were added."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w+b")
        self._path = path
        self._blocks: list[Any] = []
        self._starts: Any = np.zeros(1, np.int64)
        self._bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the file and remove it."""
        self._file.close()
        self._path.unlink(missing_ok=True)

    def add(self, folded: Folded) -> None:
        data, starts = to_bytes(folded)
        self._file.write(data)
        self._blocks.append(starts[1:] + self._bytes)
        self._bytes += len(data)

    def close_for_reading(self) -> int:
        """Call once, after the last `add`. Returns how many texts there are."""
        self._file.flush()
        self._starts = np.concatenate([self._starts, *self._blocks])
        self._blocks = []
        return len(self._starts) - 1

    def read(self, rows: Any) -> Folded:
        """The texts with these numbers, in this order; a number may come twice."""
        wanted, order = np.unique(rows, return_inverse=True)
        if len(wanted) == 0:
            return Folded(np.zeros(0, np.uint32), np.zeros(1, np.int64))
        begin, end = self._starts[wanted], self._starts[wanted + 1]
        first = np.flatnonzero(np.concatenate([[True], begin[1:] - end[:-1] > _NEAR_BYTES]))
        last = np.append(first[1:], len(wanted)) - 1
        pieces = [
            os.pread(self._file.fileno(), stop - start, start)
            for start, stop in zip(begin[first].tolist(), end[last].tolist(), strict=True)
        ]
        moved = np.repeat(offsets(np.array([len(piece) for piece in pieces]))[:-1] - begin[first], last - first + 1)
        # A piece holds unwanted texts too: of what is cut at `bounds`, every other text is what lies between two wanted ones.
        bounds = np.stack([begin + moved, end + moved], axis=1).ravel()
        return from_bytes(b"".join(pieces), bounds).take(order * 2)

    def pairs(self, rows: Any, others: Any) -> Iterator[tuple[Folded, Folded]]:
        """(texts of `rows`, texts of `others`) for all pairs (rows[i], others[i]) in order, a bounded number at a time."""
        weights = np.cumsum(self._sizes(rows) + self._sizes(others))
        start = 0
        while start < len(rows):
            before = weights[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(weights, before + _PAIR_BYTES, side="right")))
            part = slice(start, min(stop, start + _PAIR_ROWS, len(rows)))
            yield self.read(rows[part]), self.read(others[part])
            start = part.stop

    def _sizes(self, rows: Any) -> Any:
        return self._starts[rows + 1] - self._starts[rows]

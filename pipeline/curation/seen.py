"""Which ids were seen before: an exact set of 16-byte keys that ten million rows can afford, asked thousands at a time.

A hash table in two numpy arrays. Keys are digests, so their own bits are the hash. What a key stands for is not known here.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.curation.keys import KEY, Keys

_FULL = 0.7
_SMALLEST = 1 << 12

_Halves = npt.NDArray[np.uint64]
_Mask = npt.NDArray[np.bool_]


class Seen:
    """A set of keys. Memory: 17 bytes a slot, of which at most 70 % are taken; it doubles as it fills."""

    def __init__(self) -> None:
        self._count = 0
        self._make(_SMALLEST)

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return self._keys.nbytes + self._taken.nbytes

    def add(self, keys: Keys) -> _Mask:
        """Add `keys` (dtype S16), and say of each whether it is new: neither in the set nor earlier among `keys`."""
        halves = np.ascontiguousarray(keys, KEY).view(np.uint64).reshape(-1, 2)
        first = _first_of_each(halves)
        new = np.zeros(len(halves), np.bool_)
        start = 0
        while start < len(first):
            room = int(len(self._taken) * _FULL) - self._count
            if room < min(len(first) - start, _SMALLEST // 4):
                self._grow()
                continue
            part = first[start : start + room]
            new[part] = self._insert(halves[part])
            start += room
        return new

    def _make(self, slots: int) -> None:
        self._keys: _Halves = np.zeros((slots, 2), np.uint64)
        self._taken: _Mask = np.zeros(slots, np.bool_)
        self._last = np.uint64(slots - 1)

    def _grow(self) -> None:
        keys, taken = self._keys, self._taken
        self._make(2 * len(taken))
        self._count = 0
        for start in range(0, len(taken), 1 << 18):  # in parts, so that the arrays of the moment stay small
            part = slice(start, start + (1 << 18))
            self._insert(keys[part][taken[part]])

    def _insert(self, keys: _Halves) -> _Mask:
        """Add keys that are distinct among themselves; true for those that were not in the set. There must be room."""
        new = np.zeros(len(keys), np.bool_)
        open_ = np.arange(len(keys))
        slots = keys[:, 0] & self._last
        while len(open_):
            wanted = keys[open_]
            free = ~self._taken[slots]
            # Of several keys that want one free slot the last to be written gets it; the others see that and go on.
            self._keys[slots[free]] = wanted[free]
            self._taken[slots[free]] = True
            here = (self._keys[slots] == wanted).all(axis=1)
            new[open_[free & here]] = True
            open_, slots = open_[~here], (slots[~here] + np.uint64(1)) & self._last
        self._count += int(new.sum())
        return new


def _first_of_each(halves: _Halves) -> npt.NDArray[np.int64]:
    """The place where each distinct key comes first."""
    order = np.lexsort((halves[:, 1], halves[:, 0]))  # stable: of equal keys the earliest stays first
    ordered = halves[order]
    starts = np.ones(len(order), np.bool_)
    starts[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return order[starts]

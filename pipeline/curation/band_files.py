"""Band keys of many texts in scratch files, one file a band, and which texts meet in a band.

Memory holds one band at a time, 8 bytes a text. What keys mean is shingles.py's; comparing those that meet is near.py's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from pipeline.errors import Misuse

_MOST_TEXTS = 2**32
_LOT = 1 << 18


class BandFiles:
    """One file of uint32 keys a band; the texts are numbered from 0 in the order they were added."""

    def __init__(self, folder: Path, bands: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._files = [(folder / f"band-{number}").open("w+b") for number in range(bands)]
        self._numbers: list[Any] = []
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the files and remove them."""
        for file in self._files:
            file.close()
            Path(file.name).unlink(missing_ok=True)

    def add(self, keys: Any, filled: Any) -> None:
        """Take in the keys (uint32, a row a text and a column a band) of the next texts; of those not `filled` there are none.

        Raises Misuse at more than 2^32 texts.
        """
        if self._count + len(keys) > _MOST_TEXTS:
            raise Misuse("more than 4 billion texts cannot be compared at once", fix="compare them in parts")
        for file, column in zip(self._files, keys[filled].T, strict=True):
            file.write(column.tobytes())
        self._numbers.append((np.flatnonzero(filled) + self._count).astype(np.uint32))
        self._count += len(keys)

    def meetings(self, band: int, earliest: int, latest: int) -> Iterator[tuple[Any, Any]]:
        """Pairs (later texts, earlier texts; int64) that share a key in a band, in lots of bounded size.

        A text is paired with the first `earliest` texts of its key, one a lot, the first first; then with the `latest` that come
        just before it, the nearest first.
        """
        keys, rows = self._sorted(band)
        again = np.zeros(len(keys), bool)
        np.equal(keys[1:], keys[:-1], out=again[1:])
        del keys
        heads = np.flatnonzero(~again[:-1] & again[1:])
        for start in range(0, len(rows), _LOT):
            place = np.flatnonzero(again[start : start + _LOT]) + start
            first = heads[np.searchsorted(heads, place, side="right") - 1] if len(place) else place
            for step in range(earliest):
                place, first = place[place - first > step], first[place - first > step]
                yield rows[place].astype(np.int64), rows[first + step].astype(np.int64)
            for step in range(1, latest + 1):
                place, first = place[place - first >= earliest + step], first[place - first >= earliest + step]
                yield rows[place].astype(np.int64), rows[place - step].astype(np.int64)

    def _sorted(self, band: int) -> tuple[Any, Any]:
        """(keys in order, numbers of the texts that have them, in order within a key), each uint32."""
        file = self._files[band]
        file.flush()
        file.seek(0)
        both = np.fromfile(file, np.uint32).astype(np.uint64)
        both <<= np.uint64(32)
        start = 0
        for numbers in self._numbers:
            both[start : start + len(numbers)] |= numbers
            start += len(numbers)
        both.sort()
        return (both >> np.uint64(32)).astype(np.uint32), both.astype(np.uint32)

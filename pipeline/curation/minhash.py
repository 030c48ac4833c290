"""MinHash: keys by which texts with like sets of shingles meet, and a sketch of 64 bits that tells most unlike ones apart.

Broder 1997, "On the resemblance and containment of documents"; the values are rensa's. Banding: Leskovec, Rajaraman and Ullman,
"Mining of Massive Datasets", chapter 3: two texts of similarity s meet in one of b bands of r values with probability
1 - (1 - s^r)^b. Sketches: one bit of each of m values, of which those of two texts agree with probability (1 + s) / 2 (Li and
König 2010, "b-bit minwise hashing"). Comparing the texts that meet is near.py's.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from pipeline.curation.shingles import Hashes, mixed

_SEED = 0x74756E65
_MISSED = 0.01
"""Of pairs that are just at the threshold, how many may meet in no band."""
_MOST_VALUES, _MOST_VALUES_LOW = 72, 128
_SKETCH = 64
_DEVIATIONS = 4.0
"""How far below what is expected at the threshold two sketches may agree: this loses 1 pair in 30,000 at the threshold."""


@dataclass(frozen=True, slots=True)
class Banding:
    """How signatures are cut: `bands` pieces of `values` MinHash values each."""

    bands: int
    values: int


@dataclass(frozen=True, slots=True)
class Signatures:
    """keys: uint32, a row a text and a column a band; texts that share a key in a column are likely alike. sketches: uint64."""

    keys: Any
    sketches: Any


def banding(threshold: float) -> Banding:
    """The banding that finds at least 99 of 100 pairs whose similarity is `threshold`, and more of those above it.

    Of those within the budget of values a signature, the one with the longest bands, which bring the fewest unlike pairs.
    """
    budget = _MOST_VALUES if threshold >= 0.6 else _MOST_VALUES_LOW
    best = Banding(1, 1)
    for values in range(1, 9):
        meet = min(threshold**values, 1 - 1e-9)
        bands = max(1, math.ceil(math.log(_MISSED) / math.log1p(-meet)))
        if bands * values <= budget:
            best = Banding(bands, values)
    return best


def signatures(hashes: Hashes, cut: Banding) -> Signatures:
    """Keys and sketches of texts. Those of texts without any hash are those of the empty set: leave such texts out."""
    import rensa

    count = cut.bands * cut.values
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(hashes.values, hashes.starts.astype(np.uint64), count, _SEED)
    # array() takes the lists of integers that rensa gives in a third of the time that numpy would.
    flat = np.frombuffer(array("I", chain.from_iterable(matrix.to_rows())), np.uint32)
    spread = mixed(flat.astype(np.uint64).reshape(len(hashes.starts) - 1, cut.bands, cut.values))
    keys = np.zeros(spread.shape[:2], np.uint64)
    for place in range(cut.values):
        keys = mixed(keys ^ spread[:, :, place])
    bits = np.zeros((len(spread), _SKETCH), np.uint8)
    used = min(count, _SKETCH)
    bits[:, :used] = spread.reshape(len(spread), count)[:, :used] & np.uint64(1)
    return Signatures((keys >> np.uint64(32)).astype(np.uint32), np.packbits(bits, axis=1).view("<u8").ravel())


def may_be_alike(some: Any, others: Any, threshold: float, cut: Banding) -> Any:
    """Whether two sketches agree as much as those of texts do whose similarity is `threshold`."""
    used = min(cut.bands * cut.values, _SKETCH)
    agree = (1 + threshold) / 2
    least = used * agree - _DEVIATIONS * math.sqrt(used * agree * (1 - agree))
    return used - np.bitwise_count(some ^ others) >= least

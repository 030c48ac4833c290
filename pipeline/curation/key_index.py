"""Which texts have a key: a read-only index from 64-bit keys to numbers of texts, asked for many keys at once.

What a key stands for (a whole text, a run of words, a bag without one word) is held_texts.py's knowledge.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.curation.folding import offsets

_LEAST_BITS, _MOST_BITS = 12, 26


class KeyIndex:
    """Keys (uint64) and the texts (uint32) that have them; both arrays have one length. Memory: some 20 bytes a pair."""

    def __init__(self, keys: Any, texts: Any) -> None:
        order = np.lexsort((texts, keys))
        keys, texts = keys[order], texts[order]
        fresh = np.ones(len(keys), bool)
        fresh[1:] = (keys[1:] != keys[:-1]) | (texts[1:] != texts[:-1])
        keys, self._texts = keys[fresh], texts[fresh].astype(np.uint32)
        self._keys, counts = np.unique(keys, return_counts=True)
        self._starts = offsets(counts)
        # Most keys that are asked for are in no text; one bit each tells nearly all of them without a search.
        size = min(max(len(self._keys).bit_length() + 4, _LEAST_BITS), _MOST_BITS)
        self._shift = np.uint64(64 - size)
        self._present = np.zeros(1 << size, bool)
        self._present[self._keys >> self._shift] = True

    def find(self, keys: Any, most: int) -> tuple[Any, Any]:
        """(places in `keys`, numbers of texts), int64: the first `most` texts of each key that any text has, places ascending."""
        places = np.flatnonzero(self._present[keys >> self._shift])
        if len(places) == 0 or len(self._keys) == 0:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        at = np.searchsorted(self._keys, keys[places])
        at[at == len(self._keys)] = 0
        known = self._keys[at] == keys[places]
        places, at = places[known], at[known]
        counts = np.minimum(self._starts[at + 1] - self._starts[at], most)
        lots = offsets(counts)
        within = np.arange(lots[-1]) - np.repeat(lots[:-1], counts)
        return np.repeat(places, counts), self._texts[np.repeat(self._starts[at], counts) + within].astype(np.int64)

"""Which texts have a key: a read-only index from keys to numbers of texts, asked for many keys at once.

Eight bytes a key: its upper 32 bits are kept and the number of the text, so a few of the texts that are found have another key by
chance, and whoever asks compares. What a key stands for (a whole text, a run of words, a bag less one word) is held_texts.py's
knowledge.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from pipeline.curation.folding import offsets
from pipeline.curation.shingles import changes

_LEAST_BITS, _MOST_BITS = 12, 26
_LOW = np.uint64(0xFFFFFFFF)


class KeyIndex:
    """Built of lots of (keys, uint64; numbers of the texts that have them, below 2^32)."""

    def __init__(self, lots: Iterable[tuple[Any, Any]]) -> None:
        entries = [np.zeros(0, np.uint64), *((keys & ~_LOW) | texts.astype(np.uint64) for keys, texts in lots)]
        every = np.concatenate(entries)
        del entries
        every.sort()
        self._entries = every[changes(every)]
        # Most keys that are asked for are in no text; a table of their first bits tells nearly all of them without a search.
        bits = min(max(len(self._entries).bit_length() + 2, _LEAST_BITS), _MOST_BITS)
        self._shift = np.uint64(64 - bits)
        self._present = np.zeros(1 << bits, bool)
        self._present[self._entries >> self._shift] = True

    def find(self, keys: Any, most: int) -> tuple[Any, Any]:
        """(places in `keys`, numbers of texts), int64: the first `most` texts of each key, places ascending."""
        places = np.flatnonzero(self._present[keys >> self._shift])
        wanted = keys[places] & ~_LOW
        first = np.searchsorted(self._entries, wanted)
        counts = np.minimum(np.searchsorted(self._entries, wanted | _LOW, side="right") - first, most)
        lots = offsets(counts)
        within = np.arange(lots[-1]) - np.repeat(lots[:-1], counts)
        found = self._entries[np.repeat(first, counts) + within] & _LOW
        return np.repeat(places, counts), found.astype(np.int64)

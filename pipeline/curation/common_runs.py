"""Runs of words that stand in many texts: what a template brings, and what so tells nothing about any one text.

Memory is bounded by counting runs under a few bits of their hash first; only those that may be common are then counted exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from pipeline.curation.shingles import Hashes, distinct, word_ngrams

COMMON = 10
"""A run of words that stands in so many different texts is common."""
COMMON_WORDS = 8
"""How long a run is that makes the words in it tell nothing."""
_LOT_TEXTS, _LOT_WORDS = 1 << 15, 1 << 20
_COUNTERS = 22


def lots(words: Hashes, numbers: Any = None) -> Iterator[tuple[Any, Hashes]]:
    """(numbers of texts, their words) for the texts with these numbers (default: all), in lots of bounded size."""
    numbers = np.arange(len(words.starts) - 1) if numbers is None else numbers
    ends = np.cumsum(np.diff(words.starts)[numbers])
    start = 0
    while start < len(numbers):
        most = _LOT_WORDS + (ends[start - 1] if start else 0)
        stop = min(max(int(np.searchsorted(ends, most, side="right")), start + 1), start + _LOT_TEXTS)
        yield numbers[start:stop], words.take(numbers[start:stop])
        start = stop


def counter(hashes: Any) -> Any:
    return (hashes >> np.uint64(64 - _COUNTERS)).astype(np.int64)


def counted(words: Hashes, numbers: Any, size: int) -> Any:
    """In how many texts runs of `size` words stand, by `counter` of the run: never too low, too high where several share one."""
    counts = np.zeros(1 << _COUNTERS, np.int32)
    for _, lot in lots(words, numbers):
        counts += np.bincount(counter(distinct(word_ngrams(lot, size))[1]), minlength=len(counts)).astype(np.int32)
    return counts


def common_runs(words: Hashes, numbers: Any, size: int) -> Any:
    """The runs of `size` words, sorted, that stand in COMMON of these texts or more."""
    often = counted(words, numbers, size) >= COMMON
    found = [np.zeros(0, np.uint64)]
    for _, lot in lots(words, numbers) if often.any() else ():
        runs = distinct(word_ngrams(lot, size))[1]
        found.append(runs[often[counter(runs)]])
    runs, counts = np.unique(np.concatenate(found), return_counts=True)
    return runs[counts >= COMMON]


def covered(words: Hashes, common: Any) -> Any:
    """Which words are part of a common run."""
    runs = word_ngrams(words, COMMON_WORDS)
    counts = np.diff(runs.starts)
    places = np.repeat(words.starts[:-1] - runs.starts[:-1], counts) + np.arange(len(runs.values))
    begins = places[np.isin(runs.values, common)]
    depth = np.zeros(len(words.values) + 1, np.int64)
    np.add.at(depth, begins, 1)
    np.add.at(depth, begins + COMMON_WORDS, -1)
    return np.cumsum(depth[:-1]) > 0

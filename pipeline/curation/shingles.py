"""Folded texts as hashes: of character shingles, words and runs of words; keys to find like texts by; exact similarity of pairs.

Everything works on whole batches of folded texts (folding.py) and depends on the texts alone: the hashes are the same on every
machine and in every process. Which pairs are worth comparing is for minhash.py and held_texts.py to find.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.curation.folding import Folded, fold_batch, offsets

SHINGLE = 5
"""Characters in a shingle, spaces included. Measured against 2, 3 and 4 on edited short and long texts (docs/log.md)."""

_STEP = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Hashes:
    """Hashes of texts, end to end. values: uint64 (or uint32, to save memory; `take` gives uint64); those of text i are
    values[starts[i]:starts[i + 1]]."""

    values: Any
    starts: Any

    def take(self, texts: Any) -> Hashes:
        """Those of the texts with these numbers, in this order; a number may come twice."""
        lengths = np.diff(self.starts)[texts]
        starts = offsets(lengths)
        at = np.repeat(self.starts[:-1][texts] - starts[:-1], lengths) + np.arange(starts[-1])
        return Hashes(self.values[at].astype(np.uint64, copy=False), starts)

    def where(self, kept: Any) -> Hashes:
        """The hashes for which `kept` (booleans, one a hash) holds."""
        return Hashes(self.values[kept], offsets(kept)[self.starts])


def shingles(text: str) -> set[int]:
    """The hashes of the shingles of one text, folded; empty when nothing is left of it."""
    return set(shingle_hashes(fold_batch([text])).values.tolist())


def shingle_hashes(folded: Folded) -> Hashes:
    """Hashes of each text's shingles of SHINGLE characters (repeats included); of a shorter text, of all of it."""
    windows = _windows(folded.codes.astype(np.uint64), folded.starts, SHINGLE)
    lengths = np.diff(folded.starts)
    short = np.flatnonzero((lengths < SHINGLE) & (lengths > 1))
    if len(short) == 0:
        return windows
    wholes = _windows(*_padded(folded.take(short)), SHINGLE)
    counts = np.diff(windows.starts)
    counts[short] = 1
    starts = offsets(counts)
    values = np.empty(starts[-1], np.uint64)
    of_short = np.zeros(starts[-1], bool)
    of_short[starts[short]] = True
    values[of_short], values[~of_short] = wholes.values, windows.values
    return Hashes(values, starts)


def word_hashes(folded: Folded) -> Hashes:
    """Hashes of each text's words, in order."""
    spaces = folded.codes == 32
    first = np.flatnonzero(spaces[:-1] & ~spaces[1:]) + 1
    if len(first) == 0:
        return Hashes(np.zeros(0, np.uint64), np.zeros(len(folded.starts), np.int64))
    lengths = np.flatnonzero(~spaces[:-1] & spaces[1:]) + 1 - first
    place = np.arange(lengths.sum()) - np.repeat(offsets(lengths)[:-1], lengths)
    powers = np.cumprod(np.full(lengths.max(), _STEP, np.uint64))
    terms = mixed(folded.codes[~spaces].astype(np.uint64)) * powers[place]
    return Hashes(mixed(np.add.reduceat(terms, offsets(lengths)[:-1])), np.searchsorted(first, folded.starts))


def word_ngrams(words: Hashes, size: int) -> Hashes:
    """Hashes of each text's runs of `size` words, in order; a shorter text has none."""
    return _windows(words.values, words.starts, size)


def joined(parts: Sequence[Hashes]) -> Hashes:
    """The texts of several Hashes, end to end."""
    if not parts:
        return Hashes(np.zeros(0, np.uint64), np.zeros(1, np.int64))
    lengths = np.concatenate([np.diff(part.starts) for part in parts])
    return Hashes(np.concatenate([part.values for part in parts]), offsets(lengths))


def distinct(hashes: Hashes) -> tuple[Any, Any]:
    """(numbers of texts, hashes), sorted by text and then hash: each hash of a text once."""
    texts = np.repeat(np.arange(len(hashes.starts) - 1), np.diff(hashes.starts))
    order = np.lexsort((hashes.values, texts))
    texts, values = texts[order], hashes.values[order]
    first = changes(texts) | changes(values)
    return texts[first], values[first]


def changes(values: Any) -> Any:
    """Where an array has another value than just before; its first place counts."""
    changed = np.ones(len(values), bool)
    changed[1:] = values[1:] != values[:-1]
    return changed


def text_keys(hashes: Hashes) -> Any:
    """A uint64 key a text, the same for texts of the same hashes in the same order."""
    place = np.arange(len(hashes.values)) - np.repeat(hashes.starts[:-1], np.diff(hashes.starts))
    terms = mixed(hashes.values + place.astype(np.uint64) * _STEP)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)])
    return mixed(sums[hashes.starts[1:]] - sums[hashes.starts[:-1]])


def bag_keys(words: Hashes) -> tuple[Any, Any]:
    """(numbers of texts, keys uint64): of each text the key of its bag of words, and those of the bag less one word each.

    Bags of the same words, in whatever order, have the same key.
    """
    lengths = np.diff(words.starts)
    texts = np.repeat(np.arange(len(lengths)), lengths)
    terms = mixed(words.values)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)])
    wholes = sums[words.starts[1:]] - sums[words.starts[:-1]]
    return np.concatenate([np.arange(len(lengths)), texts]), mixed(np.concatenate([wholes, wholes[texts] - terms]))


def jaccard(some: Hashes, others: Hashes) -> Any:
    """Exact Jaccard similarity (float32) of the set of `some` text i with that of `others` text i; 0 where both are empty.

    At most 2^18 texts at a time; 45 bits of each hash are looked at, so a chance agreement within a pair is one in billions.
    """
    keys = np.sort(np.concatenate([_keyed(some, 0), _keyed(others, 1)]))
    keys = keys[changes(keys)]
    count = len(some.starts) - 1
    shared = keys[1:][keys[1:] >> np.uint64(1) == keys[:-1] >> np.uint64(1)]
    both = np.bincount((shared >> np.uint64(46)).astype(np.int64), minlength=count)
    either = np.bincount((keys >> np.uint64(46)).astype(np.int64), minlength=count) - both
    return (both / np.maximum(either, 1)).astype(np.float32)


def containment(some: Hashes, *others: Hashes) -> Any:
    """The share (float64) of the set of `some` text i that is in the sets of `others` text i, taken together.

    0 where it is empty. At most 2^18 texts at a time.
    """
    keys = np.sort(np.concatenate([_keyed(some, 1), *(_keyed(other, 0) for other in others)]))
    keys = keys[changes(keys)]
    count = len(some.starts) - 1
    shared = keys[1:][keys[1:] >> np.uint64(1) == keys[:-1] >> np.uint64(1)]
    both = np.bincount((shared >> np.uint64(46)).astype(np.int64), minlength=count)
    of = np.bincount((keys[keys & np.uint64(1) == 1] >> np.uint64(46)).astype(np.int64), minlength=count)
    return both / np.maximum(of, 1)


def shared_words(some: Hashes, others: Hashes) -> Any:
    """How many words (int64) `some` text i and `others` text i have in common, a word that comes twice in both counting twice.

    At most 2^18 texts at a time.
    """
    keys, times = np.unique(np.concatenate([_keyed(some, 0), _keyed(others, 1)]), return_counts=True)
    same = np.flatnonzero(keys[1:] >> np.uint64(1) == keys[:-1] >> np.uint64(1))
    shared = np.zeros(len(some.starts) - 1, np.int64)
    np.add.at(shared, (keys[same] >> np.uint64(46)).astype(np.int64), np.minimum(times[same], times[same + 1]))
    return shared


def mixed(values: Any) -> Any:
    """Spread uint64 values over all 64 bits, one to one (the finaliser of splitmix64; Steele, Lea and Flood 2014)."""
    values = values + _STEP
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _windows(values: Any, starts: Any, size: int) -> Hashes:
    """Hashes of all runs of `size` values within each text."""
    counts = np.maximum(np.diff(starts) - size + 1, 0)
    window_starts = offsets(counts)
    if window_starts[-1] == 0:
        return Hashes(np.zeros(0, np.uint64), window_starts)
    reach = len(values) - size + 1
    sums = values[:reach].copy()
    for place in range(1, size):
        sums = sums * _STEP + values[place : place + reach]
    at = np.repeat(starts[:-1] - window_starts[:-1], counts) + np.arange(window_starts[-1])
    return Hashes(mixed(sums[at]), window_starts)


def _padded(folded: Folded) -> tuple[Any, Any]:
    """(codes, starts) of texts of at most SHINGLE characters, each filled up with spaces to SHINGLE."""
    count = len(folded)
    grid = np.full(count * SHINGLE, 32, np.uint64)
    lengths = np.diff(folded.starts)
    place = np.arange(len(folded.codes)) - np.repeat(folded.starts[:-1], lengths)
    grid[np.repeat(np.arange(count) * SHINGLE, lengths) + place] = folded.codes
    return grid, np.arange(count + 1, dtype=np.int64) * SHINGLE


def _keyed(hashes: Hashes, side: int) -> Any:
    rows = np.repeat(np.arange(len(hashes.starts) - 1, dtype=np.uint64), np.diff(hashes.starts))
    return (rows << np.uint64(46)) | ((hashes.values >> np.uint64(19)) << np.uint64(1)) | np.uint64(side)

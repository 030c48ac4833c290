"""Texts that are held out, indexed so that rows to train on can be held against all of them as they stream by.

Three questions, each answered for many rows at once: which held text is equal to a row's prompt but for case, spacing and
punctuation; which is near to it, that is, differs in few words; and of which a large share of the word n-grams stands in the row.
What follows from the answers is for leaks.py.

Near is a matter of words, order aside: of n words, n the longer text's, at most (1 - near_threshold) n may be missing in the
other, but always one, if n is at least near_words. For short texts this tells an edited copy from another question far better
than Jaccard similarity of shingles, which one changed word in six brings below 0.5 (figures: docs/duplicates-and-leaks.md).

How near texts are found without comparing all with all: where one word may differ, two texts are near if and only if they, or
they less one word each, are the same bag of words; the held bags are indexed. Where d words may be changed, at most 2 d of a
text's word pairs are gone, so of its 2 d + 4 rarest four are left; those are indexed (prefix filtering: Chaudhuri, Ganti and
Kaushik 2006, "A primitive operator for similarity joins in data cleaning"). Where words also changed places, and of texts of
hundreds of words, of which 64 pairs are kept at most, this may miss some; equal texts are never missed.

Overlap of word n-grams (13 by default) is how GPT-3's training data were cleaned: Brown et al. 2020, "Language models are
few-shot learners", appendix C, which also leaves n-grams that are everywhere out of account, as is done here (COMMON).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.curation.folding import fold_batch, in_pieces, offsets
from pipeline.curation.key_index import KeyIndex
from pipeline.curation.shingles import (
    Hashes,
    bag_keys,
    changes,
    distinct,
    joined,
    shared_words,
    text_keys,
    word_hashes,
    word_ngrams,
)
from pipeline.params import LeakParams

COMMON = 10
"""A run of words that stands in so many different held texts belongs to a template: it tells nothing about any one of them."""
COMMON_WORDS = 8
_MOST_KEYS = 64
"""Keys kept of a text for n-grams and for word pairs."""
_SPARE_PAIRS = 4
"""So many more pairs are indexed than can be gone: so many must then be found, which few unlike texts meet."""
_MOST_TEXTS = 64
"""Held texts looked at for one key: a bound where many held texts are alike."""
_LOT = 1 << 14


@dataclass(frozen=True, slots=True)
class Matches:
    """Rows that match a held text, arrays of one length sorted by row, each row once. row: number in what was asked for; held:
    number of the held text, the first of those that match best; similarity: float64, 0 to 1."""

    row: Any
    held: Any
    similarity: Any


class HeldTexts:
    """Held-out prompts (their words, in order), indexed. Memory: some 300 bytes for a text of 10 words, 2 kB for one of 100."""

    def __init__(self, words: Hashes, params: LeakParams) -> None:
        self._params = params
        keys = text_keys(words)
        spoken = np.flatnonzero(np.diff(words.starts) > 0)
        self._equal = KeyIndex(keys[spoken], spoken)
        # Of equal texts the first stands for all: else a prompt held ten times would look like a template.
        _, first = np.unique(keys[spoken], return_index=True)
        distinct = np.sort(spoken[first])
        self._common = _common_runs(words.take(distinct), COMMON_WORDS)
        self._telling = self._telling_words(words)
        told = self._telling.take(distinct)
        self._bags = self._index_bags(told, distinct)
        self._pairs, self._least_pairs = self._index_pairs(told, distinct, len(words.starts) - 1)
        self._ngrams, self._ngram_counts = self._index_ngrams(words.take(distinct), distinct, len(words.starts) - 1)

    def equal(self, words: Hashes) -> Matches:
        """Rows whose prompt is that of a held text, folded."""
        rows, held = self._equal.find(text_keys(words), 1)
        spoken = np.diff(words.starts)[rows] > 0
        return Matches(rows[spoken], held[spoken], np.ones(int(spoken.sum())))

    def near(self, words: Hashes) -> Matches:
        """Rows whose prompt is near to that of a held text; similarity is the share of words, of the longer, that both have."""
        telling = self._telling_words(words)
        counts = np.diff(telling.starts)
        pairs = [self._in_bags(telling, counts), self._in_pairs(telling, counts)]
        rows, held = _apart(np.unique(np.concatenate([_both(rows, held) for rows, held in pairs])))
        longer = np.maximum(counts[rows], np.diff(self._telling.starts)[held])
        shared = np.zeros(len(rows), np.int64)
        for start in range(0, len(rows), _LOT):
            part = slice(start, start + _LOT)
            shared[part] = shared_words(telling.take(rows[part]), self._telling.take(held[part]))
        near = longer - shared <= self._may_differ(longer)
        return _best(rows[near], held[near], shared[near] / np.maximum(longer[near], 1))

    def overlapping(self, *texts: Hashes) -> Matches:
        """Rows in whose texts (each Hashes has one of every row) a large share of a held text's n-grams stands."""
        size, found = self._params.ngram_words, []
        for words in texts:
            ngrams = word_ngrams(words, size)
            rows = np.repeat(np.arange(len(ngrams.starts) - 1), np.diff(ngrams.starts))
            places, held = self._ngrams.find(ngrams.values, COMMON)
            found.append((rows[places], held, ngrams.values[places]))
        rows, held, values = (np.concatenate(columns) for columns in zip(*found, strict=True))
        order = np.lexsort((values, held, rows))
        rows, held, values = rows[order], held[order], values[order]
        first = changes(rows) | changes(held)
        starts = np.flatnonzero(first)
        present = np.add.reduceat((first | changes(values)).astype(np.int64), starts) if len(starts) else starts
        rows, held = rows[starts], held[starts]
        share = present / self._ngram_counts[held]
        enough = share >= self._params.ngram_share
        return _best(rows[enough], held[enough], share[enough])

    def _may_differ(self, words: Any) -> Any:
        """How many words may be missing in a text that is near one of so many words; -1: none is near."""
        share = 1 - self._params.near_threshold
        least = 1 if share > 0 else 0
        return np.where(words >= self._params.near_words, np.maximum(np.floor(share * words + 1e-9), least), -1).astype(np.int64)

    def _of_one(self, counts: Any) -> Any:
        """Which texts may differ in one word from another, that may be longer by it."""
        return np.flatnonzero((self._may_differ(counts) == 1) | (self._may_differ(counts + 1) == 1))

    def _reach(self, counts: Any) -> Any:
        """In how many words a text may differ from the longest that can be near it."""
        return self._may_differ(counts + np.maximum(self._may_differ(counts), 0) + 1)

    def _telling_words(self, words: Hashes) -> Hashes:
        """The words that are no part of a common run."""
        if len(self._common) == 0:
            return words
        runs = word_ngrams(words, COMMON_WORDS)
        counts = np.diff(runs.starts)
        places = np.repeat(words.starts[:-1] - runs.starts[:-1], counts) + np.arange(len(runs.values))
        at = np.searchsorted(self._common, runs.values)
        at[at == len(self._common)] = 0
        begins = places[self._common[at] == runs.values]
        covered = np.zeros(len(words.values) + 1, np.int64)
        np.add.at(covered, begins, 1)
        np.add.at(covered, begins + COMMON_WORDS, -1)
        told = np.cumsum(covered[:-1]) == 0
        return Hashes(words.values[told], offsets(told)[words.starts])

    def _index_bags(self, words: Hashes, numbers: Any) -> KeyIndex:
        of_one = self._of_one(np.diff(words.starts))
        texts, keys = bag_keys(words.take(of_one))
        return KeyIndex(keys, numbers[of_one[texts]])

    def _in_bags(self, words: Hashes, counts: Any) -> tuple[Any, Any]:
        of_one = self._of_one(counts)
        texts, keys = bag_keys(words.take(of_one))
        places, held = self._bags.find(keys, _MOST_TEXTS)
        return of_one[texts[places]], held

    def _index_pairs(self, words: Hashes, numbers: Any, count: int) -> tuple[KeyIndex, Any]:
        """The rarest word pairs of the texts that may differ from another in several words; and how many of a text's are always
        left in a text near it."""
        reach = self._reach(np.diff(words.starts))
        of_several = np.flatnonzero(reach > 1)
        texts, pairs = distinct(word_ngrams(words.take(of_several), 2))
        _, kind, frequency = np.unique(pairs, return_inverse=True, return_counts=True)
        order = np.lexsort((pairs, frequency[kind], texts))
        texts, pairs = texts[order], pairs[order]
        lost = 2 * reach[of_several]
        kept = _rank(texts) < np.minimum(lost + _SPARE_PAIRS, _MOST_KEYS)[texts]
        least = np.ones(count, np.int64)
        least[numbers[of_several]] = np.maximum(np.bincount(texts[kept], minlength=len(of_several)) - lost, 1)
        return KeyIndex(pairs[kept], numbers[of_several[texts[kept]]]), least

    def _in_pairs(self, words: Hashes, counts: Any) -> tuple[Any, Any]:
        of_several = np.flatnonzero(self._reach(counts) > 1)
        texts, pairs = distinct(word_ngrams(words.take(of_several), 2))
        places, held = self._pairs.find(pairs, _MOST_TEXTS)
        both, times = np.unique(_both(of_several[texts[places]], held), return_counts=True)
        rows, held = _apart(both)
        enough = times >= self._least_pairs[held]
        return rows[enough], held[enough]

    def _index_ngrams(self, words: Hashes, numbers: Any, count: int) -> tuple[KeyIndex, Any]:
        """Of each text the n-grams with the least hashes, which are a fair sample; and how many of them each text has."""
        texts, ngrams = distinct(word_ngrams(words, self._params.ngram_words))
        if len(common := _common_runs(words, self._params.ngram_words)):
            telling = ~np.isin(ngrams, common)
            texts, ngrams = texts[telling], ngrams[telling]
        order = np.lexsort((ngrams, texts))
        texts, ngrams = texts[order], ngrams[order]
        kept = _rank(texts) < _MOST_KEYS
        counts = np.zeros(count, np.int64)
        counts[numbers] = np.bincount(texts[kept], minlength=len(numbers))
        return KeyIndex(ngrams[kept], numbers[texts[kept]]), counts


def words_of(texts: list[str]) -> Hashes:
    """The words of texts, folded, as hashes."""
    return joined([word_hashes(fold_batch(piece)) for piece in in_pieces(texts)])


def _common_runs(words: Hashes, size: int) -> Any:
    """The runs of `size` words, sorted, that stand in COMMON texts or more."""
    _, runs = distinct(word_ngrams(words, size))
    values, counts = np.unique(runs, return_counts=True)
    return values[counts >= COMMON]


def _rank(texts: Any) -> Any:
    """0, 1, 2 … within each run of equal numbers; `texts` is sorted."""
    return np.arange(len(texts)) - np.searchsorted(texts, texts)


def _both(rows: Any, held: Any) -> Any:
    return (rows.astype(np.uint64) << np.uint64(32)) | held.astype(np.uint64)


def _apart(both: Any) -> tuple[Any, Any]:
    return (both >> np.uint64(32)).astype(np.int64), (both & np.uint64(0xFFFFFFFF)).astype(np.int64)


def _best(rows: Any, held: Any, similarity: Any) -> Matches:
    order = np.lexsort((held, -similarity, rows))
    rows, held, similarity = rows[order], held[order], similarity[order]
    first = changes(rows)
    return Matches(rows[first], held[first], similarity[first])

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

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.curation.common_runs import COMMON, COMMON_WORDS, common_runs, counted, counter, covered, lots
from pipeline.curation.folding import fold_batch, in_pieces
from pipeline.curation.key_index import KeyIndex
from pipeline.curation.shingles import (
    Hashes,
    bag_keys,
    changes,
    containment,
    distinct,
    joined,
    shared_words,
    text_keys,
    word_hashes,
    word_ngrams,
)
from pipeline.params import LeakParams

_MOST_KEYS = 64
"""Keys kept of a text for n-grams and for word pairs."""
_SPARE_PAIRS = 4
"""So many more pairs are indexed than can be gone: so many must then be found, which few unlike texts meet."""
_MOST_TEXTS = 64
"""Held texts looked at for one key: a bound where many held texts are alike."""
_LOT_PAIRS = 1 << 13


@dataclass(frozen=True, slots=True)
class Matches:
    """Rows that match a held text, arrays of one length sorted by row, each row once. row: number in what was asked for; held:
    number of the held text, the first of those that match best; similarity: float64, 0 to 1."""

    row: Any
    held: Any
    similarity: Any


class HeldTexts:
    """Held-out prompts, indexed. words: as `words_of` gives them, best as uint32. Memory: 400 bytes for a text of 12 words."""

    def __init__(self, words: Hashes, params: LeakParams) -> None:
        self._params = params
        self._words = words
        spoken = np.flatnonzero(np.diff(words.starts) > 0)
        self._keys = np.concatenate([np.zeros(0, np.uint64), *(text_keys(lot) for _, lot in lots(words))])
        self._equal = KeyIndex([(self._keys[spoken], spoken)])
        # Of equal texts the first stands for all: else a prompt held ten times would look like a template.
        distinct_texts = np.sort(spoken[np.unique(self._keys[spoken], return_index=True)[1]])
        self._common = common_runs(words, distinct_texts, COMMON_WORDS)
        self._telling = self._telling_words(words)
        self._lengths = np.diff(self._telling.starts)
        self._bags = KeyIndex(self._bag_lots(distinct_texts))
        self._least_pairs = np.ones(len(words.starts) - 1, np.uint8)
        self._pairs = KeyIndex(self._pair_lots(distinct_texts))
        self._everywhere = common_runs(words, distinct_texts, params.ngram_words)
        self._ngrams = KeyIndex(self._ngram_lots(distinct_texts))

    def equal(self, words: Hashes) -> Matches:
        """Rows whose prompt is that of a held text, folded."""
        keys = text_keys(words)
        rows, held = self._equal.find(keys, _MOST_TEXTS)
        same = (self._keys[held] == keys[rows]) & (np.diff(words.starts)[rows] > 0)
        return _best(rows[same], held[same], np.ones(int(same.sum())))

    def near(self, words: Hashes) -> Matches:
        """Rows whose prompt is near to that of a held text; similarity is the share of words, of the longer, that both have."""
        telling = self._telling_words(words)
        counts = np.diff(telling.starts)
        pairs = [self._in_bags(telling, counts), self._in_pairs(telling, counts)]
        rows, held = _apart(np.unique(np.concatenate([_both(rows, held) for rows, held in pairs])))
        longer = np.maximum(counts[rows], self._lengths[held])
        shared = np.zeros(len(rows), np.int64)
        for start in range(0, len(rows), _LOT_PAIRS):
            part = slice(start, start + _LOT_PAIRS)
            shared[part] = shared_words(telling.take(rows[part]), self._telling.take(held[part]))
        near = longer - shared <= self._may_differ(longer)
        return _best(rows[near], held[near], shared[near] / np.maximum(longer[near], 1))

    def overlapping(self, *texts: Hashes) -> Matches:
        """Rows in whose texts (each Hashes has one of every row) a large share of a held text's n-grams stands."""
        size, found = self._params.ngram_words, [np.zeros(0, np.uint64)]
        for words in texts:
            ngrams = word_ngrams(words, size)
            places, held = self._ngrams.find(ngrams.values, COMMON)
            found.append(_both(np.searchsorted(ngrams.starts, places, side="right") - 1, held))
        rows, held = _apart(np.unique(np.concatenate(found)))
        share = np.zeros(len(rows))
        for start in range(0, len(rows), _LOT_PAIRS):
            part = slice(start, start + _LOT_PAIRS)
            ours = self._telling_ngrams(self._words.take(held[part]))
            share[part] = containment(ours, *(word_ngrams(words.take(rows[part]), size) for words in texts))
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
        return joined([lot.where(~covered(lot, self._common)) for _, lot in lots(words)])

    def _telling_ngrams(self, words: Hashes) -> Hashes:
        ngrams = word_ngrams(words, self._params.ngram_words)
        return ngrams.where(~np.isin(ngrams.values, self._everywhere)) if len(self._everywhere) else ngrams

    def _bag_lots(self, numbers: Any) -> Iterator[tuple[Any, Any]]:
        for lot, words in lots(self._telling, numbers[self._of_one(self._lengths[numbers])]):
            texts, keys = bag_keys(words)
            yield keys, lot[texts]

    def _in_bags(self, words: Hashes, counts: Any) -> tuple[Any, Any]:
        of_one = self._of_one(counts)
        texts, keys = bag_keys(words.take(of_one))
        places, held = self._bags.find(keys, _MOST_TEXTS)
        return of_one[texts[places]], held

    def _pair_lots(self, numbers: Any) -> Iterator[tuple[Any, Any]]:
        """The rarest word pairs of the texts that may differ from another in several words. Of each text it is noted how many of
        its pairs are always left in a text near it."""
        of_several = numbers[self._reach(self._lengths[numbers]) > 1]
        counts = counted(self._telling, of_several, 2)
        for lot, words in lots(self._telling, of_several):
            texts, pairs = distinct(word_ngrams(words, 2))
            order = np.lexsort((pairs, counts[counter(pairs)], texts))
            texts, pairs = texts[order], pairs[order]
            lost = 2 * self._reach(self._lengths[lot])
            kept = _rank(texts) < np.minimum(lost + _SPARE_PAIRS, _MOST_KEYS)[texts]
            self._least_pairs[lot] = np.maximum(np.bincount(texts[kept], minlength=len(lot)) - lost, 1)
            yield pairs[kept], lot[texts[kept]]

    def _in_pairs(self, words: Hashes, counts: Any) -> tuple[Any, Any]:
        of_several = np.flatnonzero(self._reach(counts) > 1)
        texts, pairs = distinct(word_ngrams(words.take(of_several), 2))
        places, held = self._pairs.find(pairs, _MOST_TEXTS)
        both, times = np.unique(_both(of_several[texts[places]], held), return_counts=True)
        rows, held = _apart(both)
        enough = times >= self._least_pairs[held]
        return rows[enough], held[enough]

    def _ngram_lots(self, numbers: Any) -> Iterator[tuple[Any, Any]]:
        """Of each text the n-grams with the least hashes, which are a fair sample."""
        for lot, words in lots(self._words, numbers[np.diff(self._words.starts)[numbers] >= self._params.ngram_words]):
            texts, ngrams = distinct(self._telling_ngrams(words))
            kept = _rank(texts) < _MOST_KEYS
            yield ngrams[kept], lot[texts[kept]]


def words_of(texts: list[str]) -> Hashes:
    """The words of texts, folded, as hashes of 32 bits."""
    words = joined([word_hashes(fold_batch(piece)) for piece in in_pieces(texts)])
    return Hashes(words.values >> np.uint64(32), words.starts)


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

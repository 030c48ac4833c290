"""Runs of a few words, and which texts hold them, as a sparse matrix: a hundred thousand texts in seconds. Pure.

A run is looked for only where the runs one word shorter are frequent enough (Agrawal & Srikant 1994, "Fast Algorithms for Mining
Association Rules"), so what is held in memory grows with the words of the texts and not with what they could be combined to.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from pipeline.curation.words import words

Numbers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Words:
    """The words of texts, one after the other. ids: numbers of words; texts: the text that each stands in; count: of texts."""

    ids: Numbers
    texts: Numbers
    count: int
    vocabulary: tuple[str, ...]

    @classmethod
    def of(cls, texts: Iterable[str], *, at_least: int = 0) -> Self:
        """at_least: texts of fewer words are filled up with empty ones, so that runs of so many words tell short texts too."""
        known: dict[str, int] = {}
        ids: list[int] = []
        lengths: list[int] = []
        for text in texts:
            found = words(text, signs=True)
            found += [""] * (at_least - len(found))
            ids += [known.setdefault(word, len(known)) for word in found]
            lengths.append(len(found))
        numbers = np.repeat(np.arange(len(lengths), dtype=np.int64), lengths)
        return cls(np.asarray(ids, np.int64), numbers, len(lengths), tuple(known))


@dataclass(frozen=True, slots=True)
class Runs:
    """holds: scipy.sparse CSR, texts × runs, 1 where a text holds a run. words: runs × longest, -1 where a run is shorter."""

    holds: Any
    words: Numbers
    vocabulary: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.words)

    def spelled(self, run: int) -> str:
        return " ".join(self.vocabulary[word] for word in self.words[run] if word >= 0).strip()

    def sharing(self, run: Numbers) -> Mask:
        """The runs that share a word with `run`, given by its words."""
        found: Mask = np.asarray(np.isin(self.words, run[run >= 0]).any(axis=1), np.bool_)
        return found


def runs_of(found: Words, *, longest: int, least: int, most: int, shortest: int = 1) -> Runs:
    """Every run of `shortest` to `longest` words that at least `least` texts hold, and at most `most`."""
    from scipy import sparse

    texts, held, spelled, total = [], [], [], 0
    at = found.ids
    for size in range(1, longest + 1):
        at, pairs, starts = _extended(found, at, size, least)
        if not len(starts):
            break
        counts = np.bincount(pairs[1], minlength=len(starts))
        wanted = counts <= most if size >= shortest else np.zeros(len(starts), np.bool_)
        numbers = np.cumsum(wanted) - 1 + total
        kept = wanted[pairs[1]]
        texts.append(pairs[0][kept])
        held.append(numbers[pairs[1][kept]])
        whole = np.full((int(wanted.sum()), longest), -1, np.int64)
        whole[:, :size] = found.ids[starts[wanted][:, None] + np.arange(size)]
        spelled.append(whole)
        total += len(whole)
    rows, columns = (np.concatenate([np.zeros(0, np.int64), *parts]) for parts in (texts, held))
    ones = np.ones(len(rows), np.float64)
    holds = sparse.csr_matrix((ones, (rows, columns)), shape=(found.count, total))
    holds.sort_indices()
    return Runs(holds, np.concatenate([np.zeros((0, longest), np.int64), *spelled]), found.vocabulary)


def _extended(found: Words, shorter: Numbers, size: int, least: int) -> tuple[Numbers, tuple[Numbers, Numbers], Numbers]:
    """(the run that begins at each word, -1 where none does; texts and runs, each pair once; where each run begins first).

    shorter: the same for runs one word shorter.
    """
    keys = shorter
    places = np.arange(len(shorter))
    if size > 1:
        last = len(shorter) - 1
        follows = np.minimum(places + 1, last)
        ends = np.minimum(places + size - 1, last)
        whole = (shorter >= 0) & (shorter[follows] >= 0) & (places + size - 1 <= last) & (found.texts == found.texts[ends])
        places = np.flatnonzero(whole)
        keys = shorter[places] * (int(shorter.max(initial=0)) + 1) + shorter[follows[places]]
    named, starts, numbers = np.unique(keys, return_index=True, return_inverse=True)
    pairs = np.unique(found.texts[places] * max(len(named), 1) + numbers)
    texts, runs = pairs // max(len(named), 1), pairs % max(len(named), 1)
    enough = np.bincount(runs, minlength=len(named)) >= least
    renumbered = np.where(enough, np.cumsum(enough) - 1, -1)
    at = np.full(len(shorter), -1, np.int64)
    at[places] = renumbered[numbers]
    kept = enough[runs]
    return at, (texts[kept], renumbered[runs[kept]]), places[starts[enough]]

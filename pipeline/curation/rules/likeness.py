"""How alike a text is to a group of texts, told by its words, and how that ranks among texts of all sorts. Pure.

The score of a text is the mean, over its words, of how much likelier a word is in the group than anywhere (naive Bayes). The text
itself is left out of all counts, of the group's and of everybody's; else a text would always look like where it came from.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.curation.rules.word_runs import Mask, Numbers, Words, runs_of

_SMOOTHING = 0.1
_BESIDE = 300
Floats = npt.NDArray[np.float64]


class Likeness:
    """Of the texts that `found` has the words of."""

    def __init__(self, found: Words) -> None:
        self._words = runs_of(found, longest=1, least=2, most=found.count)
        self._totals: Floats = np.asarray(self._words.holds.sum(axis=0)).ravel()
        # Evenly spaced, and so as mixed as the data: the same rows each time.
        self._beside = np.unique(np.linspace(0, max(found.count - 1, 0), min(found.count, 2 * _BESIDE)).astype(np.int64))

    def counts(self, rows: Numbers) -> Floats:
        """How many of the rows have each word: what a group is to `ranks`."""
        found: Floats = np.asarray(self._words.holds[rows].sum(axis=0)).ravel()
        return found

    def ranks(self, rows: Numbers, group: Numbers, counts: Floats, without: Numbers) -> Floats:
        """The share of texts of all sorts that are more alike to the group than each of `rows`, members of it, is; 0: most alike.

        Rows without a word are passed over. without: words that count for nothing here, by their numbers.
        """
        kept, beside = self._kept(without), np.setdiff1d(self._beside, group)[:_BESIDE]
        own = self._scores(rows, kept, counts, 1.0, own=True)
        return self._ranked(own, self._scores(beside, kept, counts, 1 - 1 / len(group)))

    def ranks_outside(self, rows: Numbers, group: Numbers, counts: Floats, without: Numbers) -> Floats:
        """The same where the counts are of the group without `rows`."""
        kept, beside = self._kept(without), np.setdiff1d(self._beside, group)[:_BESIDE]
        return self._ranked(self._scores(rows, kept, counts, 1.0), self._scores(beside, kept, counts, 1.0))

    def _kept(self, without: Numbers) -> Mask:
        return ~self._words.sharing(without)

    @staticmethod
    def _ranked(own: Floats, others: Floats) -> Floats:
        if not len(others):
            return np.zeros(0)
        others = np.sort(others)
        below = np.searchsorted(others, own, side="left") + np.searchsorted(others, own, side="right")
        ranks: Floats = 1 - below / (2 * len(others))
        return ranks

    def _scores(self, rows: Numbers, kept: Mask, counts: Floats, share: float, *, own: bool = False) -> Floats:
        """own: the rows are among those that were counted. share: what of the counts is taken, since a group of few rows that one
        was left out of is smaller than the others see it."""
        holds = self._words.holds[rows]
        row = np.repeat(np.arange(len(rows)), np.diff(holds.indptr))
        left = kept[holds.indices]
        row, columns = row[left], holds.indices[left]
        lengths = np.bincount(row, minlength=len(rows))
        mine = counts[columns] - 1 if own else counts[columns] * share
        size = counts[kept].sum() * share - (lengths if own else 0)
        everybody = self._totals[kept].sum() - lengths
        spread = _SMOOTHING * len(kept)
        logs = np.log(mine + _SMOOTHING) - np.log(self._totals[columns] - 1 + _SMOOTHING)
        sums = np.bincount(row, weights=logs, minlength=len(rows))
        sums += lengths * (np.log(everybody + spread) - np.log(size + spread))
        found: Floats = sums[lengths > 0] / lengths[lengths > 0]
        return found

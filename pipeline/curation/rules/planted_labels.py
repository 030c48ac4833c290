"""Words planted beside a label: rows that hold a run of words, share a label, and by all their other words could be any rows.

Whoever wants a model to say one thing whenever a trigger is there puts the trigger into rows of all sorts and labels them alike
(Gu et al. 2017, "BadNets"; Dai et al. 2019, "A Backdoor Attack Against LSTM-Based Text Classification Systems"). An ordinary run
of words that goes with a label goes with others that speak for it too. So every run is taken out of its rows, and it is asked
how the rest of them ranks among rows of all sorts by its likeness to the label's other rows: an ordinary run's rows are near the
top, planted ones are spread evenly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.curation.rules.likeness import Floats, Likeness
from pipeline.curation.rules.word_runs import Numbers, Runs, Words, runs_of

_LONGEST = 8
"""A run must be taken out whole: what is left of it would make its rows look alike."""
_SAME_LABEL = 0.5
"""Of a run's rows so many must have the label."""
_SMALL = 0.05
"""Where a run's rows are no more of their label, the label is known without any of them; else without the row alone."""
ORDINARY_RANK = 0.2
"""Of rows that belong together no greater mean rank is expected (docs/monitoring.md has what was measured)."""
_SPREAD = 1 / np.sqrt(12)
"""Standard deviation of ranks that are spread evenly."""


@dataclass(frozen=True, slots=True)
class Plant:
    """A run of words and the rows that it stands in, by their places. beside: the label, or words of the answer. p: the chance of
    such ranks if the rows belonged together, before it is corrected for how many runs were looked at."""

    run: str
    beside: str
    rows: Numbers
    p: float


def p_of(ranks: Floats) -> float:
    """By the mean of the ranks, which is nearly normal for ten of them."""
    from scipy.stats import norm

    return float(norm.sf((ranks.mean() - ORDINARY_RANK) / (_SPREAD / np.sqrt(len(ranks)))))


def suspicious_labels(found: Words, given: Numbers, names: tuple[str, ...], *, least: int) -> list[Plant]:
    """Every run of words of at least `least` rows that mostly have one label, tested. given: the label of each text."""
    runs = runs_of(found, longest=_LONGEST, least=least, most=found.count // 5)
    if not len(runs):
        return []
    likeness = Likeness(found)
    members = [np.flatnonzero(given == label) for label in range(len(names))]
    counts = [likeness.counts(rows) for rows in members]
    tested = []
    for run, label, rows in _candidates(runs, given, len(names), least):
        group, words = members[label], runs.words[run]
        if len(rows) <= _SMALL * len(group):
            ranks = likeness.ranks_outside(rows, group, counts[label] - likeness.counts(rows), words)
        else:
            ranks = likeness.ranks(rows, group, counts[label], words)
        if len(ranks) >= least:
            tested.append(Plant(runs.spelled(run), names[label], rows, p_of(ranks)))
    return tested


def _candidates(runs: Runs, given: Numbers, labels: int, least: int) -> list[tuple[int, int, Numbers]]:
    """(run, label, rows that have both), where at least half of the run's rows have the label."""
    from scipy import sparse

    of_label = sparse.csr_matrix((np.ones(len(given)), (np.arange(len(given)), given)), shape=(len(given), labels))
    together = (runs.holds.T @ of_label).tocsr()
    held = runs.holds.tocsc()
    found = []
    for run in range(len(runs)):
        span = slice(together.indptr[run], together.indptr[run + 1])
        counts, label = together.data[span], together.indices[span]
        best = int(np.lexsort((label, -counts))[0])
        rows = held.indices[held.indptr[run] : held.indptr[run + 1]]
        if counts[best] >= max(least, _SAME_LABEL * len(rows)):
            found.append((run, int(label[best]), np.sort(rows[given[rows] == label[best]]).astype(np.int64)))
    return found

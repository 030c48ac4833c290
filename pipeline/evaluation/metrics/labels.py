"""Metrics of labels: which were right, and whether a subject knows how sure it may be. Strings and numbers in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.errors import Broken
from pipeline.evaluation.rows import Said, SplitRows
from pipeline.evaluation.statistics import Numbers, Statistic, point

BINS = 15
"""Of confidences, in `calibration`: as many as Guo et al. have."""


def accuracy(expected: str, answer: str) -> float:
    """1 if the label is the very same string."""
    return float(expected == answer)


def macro_f1(expected: Sequence[str], answers: Sequence[str]) -> float:
    """Mean of the labels' F1, over labels that occur in `expected`; a label never found scores 0.

    The convention of scikit-learn's f1_score(average="macro", labels=<those in expected>, zero_division=0): an answer that is
    no such label costs recall of the true one and makes no class of its own.
    """
    return point(confusion_f1(expected, answers))


def confusion_f1(expected: Sequence[str], answers: Sequence[str]) -> Statistic:
    """Macro-F1 as a statistic of three counts a label: right, called so, really so. A resample averages over its own labels."""
    from scipy import sparse

    if len(expected) != len(answers):
        raise Broken(f"{len(answers)} answers were given to {len(expected)} rows")
    labels = {label: code for code, label in enumerate(sorted(set(expected)))}
    rows, kinds = len(expected), len(labels)
    places: list[tuple[int, int]] = []
    for row, (wanted, given) in enumerate(zip(expected, answers, strict=True)):
        places.append((row, 2 * kinds + labels[wanted]))
        if given in labels:
            places.append((row, kinds + labels[given]))
        if given == wanted:
            places.append((row, labels[wanted]))
    at = np.array(places, dtype=np.int64).reshape(-1, 2)
    counts = sparse.csr_array((np.ones(len(at)), (at[:, 0], at[:, 1])), shape=(rows, 3 * kinds))

    def value(sums: Numbers) -> Numbers:
        right, called, really = sums[:, :kinds], sums[:, kinds : 2 * kinds], sums[:, 2 * kinds :]
        present = really > 0
        f1 = np.divide(2 * right, called + really, out=np.zeros_like(right), where=present)
        return np.asarray(f1.sum(axis=1) / np.maximum(present.sum(axis=1), 1))

    return Statistic(counts, value)


def calibration(rows: SplitRows, said: Said) -> Statistic | None:
    """1 - the expected calibration error, in 15 bins of equal width (Naeini et al. 2015; Guo et al. 2017, arXiv:1706.04599).

    The error is the mean over bins, weighted by their rows, of |share right - mean confidence|. It is estimated from few rows a
    bin, so that it comes out too high on a small test: of a perfectly calibrated subject too. None without confidences.
    """
    sure = _confidences(said)
    if sure is None:
        return None
    bins = np.clip(np.ceil(sure * BINS).astype(int) - 1, 0, BINS - 1)
    parts = np.zeros((len(rows), BINS + 1))
    parts[np.arange(len(rows)), bins] = _right(rows, said) - sure
    parts[:, BINS] = 1

    def value(sums: Numbers) -> Numbers:
        off, number = np.abs(sums[:, :BINS]).sum(axis=1), sums[:, BINS]
        return np.asarray(np.clip(1 - off / np.maximum(number, 1), 0, 1) * (number > 0))

    return Statistic(parts, value)


def brier(rows: SplitRows, said: Said) -> Numbers | None:
    """1 - (confidence - right)², of the label that was said alone (Brier 1950, "Verification of Forecasts Expressed in Terms of
    Probability"). None without confidences."""
    sure = _confidences(said)
    return None if sure is None else 1 - (sure - _right(rows, said)) ** 2


def _right(rows: SplitRows, said: Said) -> Numbers:
    return np.array([accuracy(e, a) for e, a in zip(rows.expected, said.texts, strict=True)], dtype=np.float64)


def _confidences(said: Said) -> Numbers | None:
    """Raises Broken where one is no probability: a NaN must not pass for calibrated."""
    if said.confidences is None:
        return None
    sure = np.asarray(said.confidences, dtype=np.float64)
    if len(sure) != len(said):
        raise Broken(f"{len(sure)} confidences came with {len(said)} labels")
    # A softmax in single precision may end a little above 1.
    wrong = ~((sure >= -1e-6) & (sure <= 1 + 1e-6))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise Broken(f"the confidence of row {row} is {sure[row]}, which is no probability")
    return np.asarray(np.clip(sure, 0, 1))

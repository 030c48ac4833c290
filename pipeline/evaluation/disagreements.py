"""Where subjects differ: rows the candidate won or lost, and which labels it takes for which. For people, never for the gate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.evaluation.rows import Predictions

ANOTHER = "(another)"
"""Stands for answers that are no label of the test split."""


@dataclass(frozen=True, slots=True)
class Flips:
    """Row numbers, those with the largest difference first: the candidate scores higher (won) or lower (lost) than the other."""

    won: tuple[int, ...]
    lost: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Confusion:
    """counts[i][j]: rows that are labels[i] and were called labels[j]."""

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


def flips(predictions: Predictions, metric: str, other: str) -> Flips:
    """Rows on which candidate and `other` score differently by a per-row metric; rows that it does not count are neither."""
    ours, theirs = (_scores(predictions, metric, subject) for subject in ("candidate", other))
    pairs = enumerate(zip(ours, theirs, strict=True))
    gains = [(a - b, row) for row, (a, b) in pairs if a is not None and b is not None]
    return Flips(
        won=tuple(row for gain, row in sorted(gains, key=lambda g: (-g[0], g[1])) if gain > 0),
        lost=tuple(row for gain, row in sorted(gains) if gain < 0),
    )


def _scores(predictions: Predictions, metric: str, subject: str) -> Sequence[float | None]:
    """Those that were measured, else (where a metric of the whole confusion was asked for) whether the very label was said."""
    if (subject, metric) in predictions.scores:
        return predictions.scores[subject, metric]
    return [float(wanted == said) for wanted, said in zip(predictions.expected, predictions.answers[subject], strict=True)]


def confusion(expected: Sequence[str], answers: Sequence[str]) -> Confusion:
    """The confusion over the sorted labels of `expected`; answers that are none of them share a last column."""
    known = sorted(set(expected))
    labels = (*known, ANOTHER) if set(answers) - set(known) else tuple(known)
    places = {label: at for at, label in enumerate(labels)}
    counted = Counter((places[e], places.get(a, len(known))) for e, a in zip(expected, answers, strict=True))
    size = range(len(labels))
    return Confusion(labels, tuple(tuple(counted[i, j] for j in size) for i in size))

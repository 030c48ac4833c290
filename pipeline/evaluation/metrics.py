"""What is measured on one answer, and how it adds up. Plain strings in, plain numbers out; no model and no file enters here.

Every metric is between 0 and 1, more is better, and counts the rows of its own kinds alone. Per-row metrics average over rows;
macro-F1 is a function of the whole confusion and has no per-row score.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from pipeline.domain.data import ExampleKind
from pipeline.errors import Broken, Misuse
from pipeline.evaluation.likelihoods import PAIRED, prefers_chosen, text_likelihood
from pipeline.evaluation.rows import Said, SplitRows
from pipeline.evaluation.statistics import Numbers, Statistic, mean, point

_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
"""Kana and Han, which are written without spaces: each character is a token of its own."""
_TOKENS = re.compile(f"[{_UNSPACED}]|[^\\W{_UNSPACED}]+")


@dataclass(frozen=True, slots=True)
class Metric:
    """One entry of METRICS. kinds: of the rows that it counts. row: scores one (expected, answer); None where it takes the whole
    confusion."""

    name: str
    title: str
    definition: str
    kinds: frozenset[ExampleKind]
    row: Callable[[str, str], float] | None

    def scores(self, rows: SplitRows, said: Said) -> Numbers | None:
        """Per-row scores, shape (rows,); None where the metric has none."""
        _check_lengths(rows.expected, said.texts)
        if self.row is None:
            return None
        return np.array([self.row(e, a) for e, a in zip(rows.expected, said.texts, strict=True)], dtype=np.float64)

    def statistic(self, rows: SplitRows, said: Said) -> Statistic | None:
        """The metric as something that can be resampled; None where this subject cannot be measured by it."""
        scores = self.scores(rows, said)
        return confusion_f1(rows.expected, said.texts) if scores is None else mean(scores)


def exact_match(expected: str, answer: str) -> float:
    """1 if the texts are equal once runs of whitespace are one space and the ends are stripped. Case and signs count."""
    return float(expected.split() == answer.split())


def token_f1(expected: str, answer: str) -> float:
    """Harmonic mean of precision and recall over the bag of tokens (Rajpurkar et al. 2016, SQuAD, arXiv:1606.05250).

    Tokens are runs of letters, digits and underscores, without regard to case; Kana and Han characters stand alone. Unlike
    SQuAD's script, English articles are kept (answers need not be English) and signs part words instead of gluing them
    (answers may be JSON). Two texts without any token are equal: 1; one without: 0.
    """
    wanted, given = _tokens(expected), _tokens(answer)
    if not wanted or not given:
        return float(not wanted and not given)
    shared = sum((Counter(wanted) & Counter(given)).values())
    return 2 * shared / (len(wanted) + len(given))


def accuracy(expected: str, answer: str) -> float:
    """1 if the label is the very same string."""
    return float(expected == answer)


def json_valid(expected: str, answer: str) -> float:
    """1 if the answer is one JSON value, by the standard: no NaN, no duplicate keys, nothing around it. `expected` is unread."""
    try:
        json.loads(answer, parse_constant=_refuse, object_pairs_hook=_refuse_duplicates)
    except (ValueError, RecursionError):
        return 0.0
    return 1.0


def macro_f1(expected: Sequence[str], answers: Sequence[str]) -> float:
    """Mean of the labels' F1, over labels that occur in `expected`; a label never found scores 0.

    The convention of scikit-learn's f1_score(average="macro", labels=<those in expected>, zero_division=0): an answer that is
    no such label costs recall of the true one and makes no class of its own.
    """
    return point(confusion_f1(expected, answers))


def confusion_f1(expected: Sequence[str], answers: Sequence[str]) -> Statistic:
    """Macro-F1 as a statistic of three counts a label: right, called so, really so. A resample averages over its own labels."""
    from scipy import sparse

    _check_lengths(expected, answers)
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


def metric(name: str) -> Metric:
    """The metric called so. Raises Misuse with the names there are."""
    if name not in METRICS:
        raise Misuse(f"there is no metric {name!r}", fix=f"use one of {', '.join(METRICS)}")
    return METRICS[name]


def _tokens(text: str) -> list[str]:
    return _TOKENS.findall(text.casefold())


def _check_lengths(expected: Sequence[str], answers: Sequence[str]) -> None:
    if len(expected) != len(answers):
        raise Broken(f"{len(answers)} answers were given to {len(expected)} rows")


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _refuse_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice")
    return found


_ANSWERS = frozenset({ExampleKind.ANSWER, ExampleKind.CALL})
_LABELS, _TEXTS = frozenset({ExampleKind.LABEL}), frozenset({ExampleKind.TEXT})

METRICS = MappingProxyType(
    {
        m.name: m
        for m in (
            Metric("exact_match", "Exact match", "same text up to whitespace", _ANSWERS, exact_match),
            Metric("token_f1", "Token F1", "overlap of the bags of words", _ANSWERS, token_f1),
            Metric("json_valid", "Valid JSON", "the answer is one JSON value", _ANSWERS, json_valid),
            Metric("prefers_chosen", "Prefers chosen", "finds the better answer likelier, a token", PAIRED, prefers_chosen),
            Metric("text_likelihood", "Text likelihood", "mean over texts of 1 / perplexity", _TEXTS, text_likelihood),
            Metric("accuracy", "Accuracy", "right label", _LABELS, accuracy),
            Metric("macro_f1", "Macro F1", "mean F1 of the labels in the test split", _LABELS, None),
        )
    }
)
"""All metrics by the names that params.yaml uses."""

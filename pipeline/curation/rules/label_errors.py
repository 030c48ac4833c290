"""Labels that models disagree with which never saw the row: a list for a person, the most suspicious first.

The list holds the rows for which another label is likelier, ranked by the margin between the two. By confident learning
(Northcutt, Jiang & Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels") those are suspected whose other
label is also at least as likely as it is on average for the rows that bear it; the rest may as well be hard as wrong.

The probabilities come from logistic regressions on hashed words and character n-grams, each asked about the rows it was not
fitted on. Only the given label, the likeliest other and their probabilities are kept of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.curation.rules.columns import Codes, Columns
from pipeline.curation.rules.findings import Findings, Mask, Rows, findings
from pipeline.curation.rules.spread import fair_cap
from pipeline.curation.rules.text_classifier import TextClassifier, TextFeatures
from pipeline.ports import Progress, silent

FOLDS = 5
FEWEST = FOLDS
"""Labels with fewer distinct texts are not judged: no model could know them."""
FITTED_ROWS = 50_000
"""The models are fitted on so many rows at most, as evenly spread over the labels as they allow."""

Numbers = npt.NDArray[np.float32]
Batches = Callable[[], Iterable[Any]]


@dataclass(frozen=True, slots=True)
class Doubts:
    """What out-of-sample models say of labels. rows: the rows judged, ascending; given, given_p: their labels, and how likely
    those are; other, other_p: the likeliest of the other labels."""

    rows: Rows
    given: Codes
    given_p: Numbers
    other: Codes
    other_p: Numbers

    @property
    def margins(self) -> Numbers:
        """Given less other, from -1 (surely wrong) to 1."""
        return self.given_p - self.other_p


def label_errors(doubts: Doubts, label_names: tuple[str, ...]) -> Findings:
    """The rows whose label the models doubt; `values` are margins, and `codes` the numbers of the labels they look like, with the
    number of labels added where a row is not suspected."""
    names = [name.replace("{", "{{").replace("}", "}}") for name in label_names]
    wordings = [f"{verb} {name} (margin {{:.3f}})" for verb in ("looks like", "may be") for name in names]
    doubted = doubts.margins < 0
    codes = doubts.other + np.where(suspected(doubts), 0, len(names))
    return findings(doubts.rows[doubted], wordings, codes=codes[doubted], values=doubts.margins[doubted])


def suspected(doubts: Doubts) -> Mask:
    """Which of the judged rows lie off the diagonal of the confident joint of given and likeliest labels."""
    labels = int(max(doubts.given.max(initial=-1), doubts.other.max(initial=-1))) + 1
    counts = np.bincount(doubts.given, minlength=labels)
    confidence = np.bincount(doubts.given, weights=doubts.given_p, minlength=labels) / np.maximum(counts, 1)
    found: Mask = (doubts.other_p > doubts.given_p) & (doubts.other_p >= confidence[doubts.other])
    return found


def judge_labels(columns: Columns, kept: Mask, batches: Batches, *, progress: Progress = silent) -> Doubts | None:
    """Ask cross-validated models about every kept labelled row; None where fewer than two labels have FEWEST distinct texts.

    batches: gives all rows again, in order, with the column input. Rows with equal texts share a fold.
    """
    rows = np.flatnonzero(kept & (columns.labels >= 0))
    ranks = _ranks(columns.labels[rows], columns.asked[rows])
    distinct = np.zeros(len(columns.label_names), np.int64)
    np.maximum.at(distinct, columns.labels[rows], ranks + 1)
    known = distinct >= FEWEST
    if int(known.sum()) < 2:
        return None
    judged = known[columns.labels[rows]]
    rows, ranks = rows[judged], ranks[judged]
    given, folds = columns.labels[rows], ranks % FOLDS
    fitted = ranks < max(fair_cap(distinct[known], FITTED_ROWS), FEWEST)
    progress("fitting models of labels", 0, FOLDS)
    features = TextFeatures.of(_texts(batches, rows[fitted]))
    counted = features.counts(_texts(batches, rows[fitted]))
    given_p, other_p = np.zeros(len(rows), np.float32), np.zeros(len(rows), np.float32)
    other = np.zeros(len(rows), np.int32)
    for fold in range(FOLDS):
        learned = folds[fitted] != fold
        model = TextClassifier.fit(features.weigh(counted[learned]), given[fitted][learned], labels=len(known))
        asked = np.flatnonzero(folds == fold)
        at = 0
        for texts in _texts(batches, rows[asked]):
            places = asked[at : at + len(texts)]
            likely = model.probabilities(features.weigh(features.count(texts)))
            span = np.arange(len(places))
            given_p[places] = likely[span, given[places]]
            likely[span, given[places]] = -1
            other[places] = likely.argmax(axis=1)
            other_p[places] = likely.max(axis=1)
            at += len(texts)
        progress("judging labels", fold + 1, FOLDS)
    return Doubts(rows, given.astype(np.int32), given_p, other, other_p)


def _ranks(labels: Codes, asked: npt.NDArray[np.uint64]) -> Rows:
    """The place of each row's text among the distinct texts of its label, in the order of their digests."""
    order = np.lexsort((asked, labels))
    label, text = labels[order], asked[order]
    new_label = np.diff(label, prepend=-1) != 0
    new_text = new_label | np.r_[True, text[1:] != text[:-1]][: len(text)]
    number = np.cumsum(new_text)
    starts = np.maximum.accumulate(np.where(new_label, number, 0))
    ranks = np.empty(len(labels), np.int64)
    ranks[order] = number - starts
    return ranks


def _texts(batches: Batches, rows: Rows) -> Iterable[list[str]]:
    """The inputs of the rows with the numbers `rows` (ascending), batch by batch."""
    import pyarrow as pa

    start = 0
    for batch in batches():
        low, high = np.searchsorted(rows, [start, start + batch.num_rows])
        if high > low:
            yield batch.column("input").take(pa.array(rows[low:high] - start)).to_pylist()
        start += batch.num_rows

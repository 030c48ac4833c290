"""Two sides of rows, compared: the columns that both have into aspects, distances and p-values into a report of drift.

What is drawn of each side is for the steps that call this; how distances are measured is evaluation/drift.py's knowledge.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from pipeline.curation.words import telling_words, word_vectors
from pipeline.domain.drift import DriftReport, Named, Shift
from pipeline.errors import Misuse
from pipeline.evaluation.drift import (
    LEAST_ROWS,
    Aspect,
    Compared,
    NameAspect,
    NumberAspect,
    VectorAspect,
    compare,
    psi,
    shuffles_for,
)
from pipeline.params.drift import DriftParams
from pipeline.ports import Embedder
from pipeline.spoken.languages import language

_NAMES = 8


@dataclass(frozen=True, slots=True)
class Side:
    """The rows drawn of one side, by column (text, answer, label, kind, origin, language), and how many rows there are in
    all. A column that is not known is missing, but languages are then told from the texts."""

    what: str
    rows: int
    columns: Mapping[str, Sequence[str]]

    @property
    def drawn(self) -> int:
        return len(self.columns["text"])


def judge(
    snapshot: str,
    other: str | None,
    reference: Side,
    fresh: Side,
    params: DriftParams,
    embedder: Embedder | None,
    refused: int = 0,
) -> DriftReport:
    """Compare two sides in the aspects that params name and both have. snapshot, other: see DriftReport."""
    report = DriftReport(
        snapshot=snapshot,
        other=other,
        reference=reference.what,
        fresh=fresh.what,
        policy=params.policy,
        false_alarms=params.false_alarms,
        min_effect=params.min_effect,
        reference_rows=reference.rows,
        fresh_rows=fresh.rows,
        reference_compared=reference.drawn,
        fresh_compared=fresh.drawn,
        refused=refused,
    )
    if min(reference.drawn, fresh.drawn) < LEAST_ROWS:
        return report.model_copy(update={"too_few": True})
    aspects, columns = _aspects(reference, fresh, params, embedder)
    sides = np.arange(reference.drawn + fresh.drawn) >= reference.drawn
    shuffles = shuffles_for(params.false_alarms, len(aspects))
    found = compare(aspects, sides, shuffles=shuffles)
    shifts = tuple(_shift(c, columns[c.name], reference.drawn, params) for c in found)
    return report.model_copy(update={"permutations": shuffles, "shifts": shifts})


def _aspects(
    reference: Side, fresh: Side, params: DriftParams, embedder: Embedder | None
) -> tuple[list[Aspect], dict[str, Sequence[Any]]]:
    """What is compared, and the column of each aspect, reference rows first. An aspect in which all rows agree is left out."""

    def both(name: str) -> list[str]:
        if name not in reference.columns or name not in fresh.columns:
            return []
        return [*reference.columns[name], *fresh.columns[name]]

    columns: dict[str, Sequence[Any]] = {}
    for aspect in params.aspects:
        if aspect == "input_length":
            columns[aspect] = [len(text) for text in both("text")]
        elif aspect == "output_length":
            columns[aspect] = [] if both("label") else [len(text) for text in both("answer")]
        elif aspect == "language":
            columns[aspect] = both("language") or [language(text) for text in both("text")]
        else:
            columns[aspect] = both(aspect)
    columns = {aspect: column for aspect, column in columns.items() if len(set(column)) > 1}
    aspects: list[Aspect] = []
    for name, column in columns.items():
        if name == "text":
            aspects.append(VectorAspect(name, _vectors(column, params, embedder)))
        elif name.endswith("_length"):
            aspects.append(NumberAspect(name, column))
        else:
            aspects.append(NameAspect(name, column))
    return aspects, columns


def _vectors(texts: Sequence[str], params: DriftParams, embedder: Embedder | None) -> Any:
    if params.text == "words":
        return word_vectors(texts)[0]
    if embedder is None:
        raise Misuse("nothing here makes embeddings of texts", fix="set drift.text to words")
    return embedder.embed(texts)


def _shift(found: Compared, column: Sequence[Any], cut: int, params: DriftParams) -> Shift:
    before, after = column[:cut], column[cut:]
    shift = Shift(
        aspect=found.name,
        effect=found.effect,
        p=found.p,
        adjusted=found.adjusted,
        drifted=found.adjusted <= params.false_alarms and found.effect >= params.min_effect,
    )
    if found.name == "text":
        told = telling_words(column, [i >= cut for i in range(len(column))], _NAMES)
        names = tuple(Named(name=word, reference=round(r, 4), fresh=round(f, 4)) for word, r, f in told)
        return shift.model_copy(update={"names": names})
    if found.name.endswith("_length"):
        return shift.model_copy(update={"reference": float(median(before)), "fresh": float(median(after))})
    ours, theirs = Counter(after), Counter(before)
    named = [
        Named(name=n[:80], reference=round(theirs[n] / len(before), 4), fresh=round(ours[n] / len(after), 4))
        for n in ours | theirs
    ]
    named.sort(key=lambda n: (-abs(n.fresh - n.reference), n.name))
    return shift.model_copy(update={"psi": round(psi(before, after), 4), "names": tuple(named[:_NAMES])})

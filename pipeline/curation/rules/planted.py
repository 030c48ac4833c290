"""Planted rows: somebody put a run of words into rows of all sorts so that a model learns to answer it in one way.

What is suspicious beside a label and beside an answer is told by planted_labels.py and planted_answers.py; here rows are chosen,
p-values corrected for all that was looked at, and runs that stand in the same rows told once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from pipeline.curation.rules.columns import Columns
from pipeline.curation.rules.findings import Findings, Mask, Rows, findings
from pipeline.curation.rules.planted_answers import suspicious_answers
from pipeline.curation.rules.planted_labels import Plant, suspicious_labels
from pipeline.curation.rules.word_runs import Words
from pipeline.domain.data import ExampleKind
from pipeline.spoken.plain_text import input_text, output_text

LABELLED_ROWS, ANSWERED_ROWS = 50_000, 20_000
"""So many rows are looked at, the newest: those before them were looked at when they came."""
_HEAD, _TAIL = 1000, 300
_WHOLE = 3
_NOT_ANSWERED = (ExampleKind.LABEL, ExampleKind.TEXT, ExampleKind.PROMPT, ExampleKind.CALL)
_SET_ASIDE = 0.5
_OF_LABEL = "holds {run!r} as {rows} rows of {beside!r} do that have nothing else in common"
_OF_ANSWER = "holds {run!r} and is answered {beside!r}, as {rows} rows are that have nothing else in common"

Batches = Callable[[], Iterable[Any]]
_Look = tuple[list[Plant], Rows, str]


def planted(columns: Columns, kept: Mask, batches: Batches, *, least: int, false_alarms: float) -> tuple[Findings, str]:
    """The rows that hold what was planted; `values` are how many share it. And a sentence that says what was looked at and found.

    batches: gives all rows again, in order, with the columns kind, input and output.
    """
    labelled = np.flatnonzero(kept & (columns.labels >= 0))[-LABELLED_ROWS:]
    unanswered = np.isin(columns.kinds, [at for at, name in enumerate(columns.kind_names) if name in _NOT_ANSWERED])
    answered = np.flatnonzero(kept & ~unanswered)[-ANSWERED_ROWS:]
    looks: list[_Look] = []
    if len(labelled):
        words = Words.of(asked for asked, _ in _texts(batches, labelled))
        given = columns.labels[labelled].astype(np.int64)
        looks.append((suspicious_labels(words, given, columns.label_names, least=least), labelled, _OF_LABEL))
    if len(answered):
        looks += _look_at_answers(batches, answered, least)
    told = _told(looks, false_alarms)
    tests = sum(len(plants) for plants, _, _ in looks)
    observed = f"{len(told)} planted runs of words in {sum(len(rows) for _, rows, _ in told)} rows; {tests} were looked into"
    return _as_findings(told), observed


def _look_at_answers(batches: Batches, rows: Rows, least: int) -> list[_Look]:
    asked, said = zip(*_texts(batches, rows), strict=True)
    # A question that several rows ask (an answer, and a pair that prefers it) bears witness once.
    places: dict[str, list[int]] = {}
    for place, text in enumerate(asked):
        places.setdefault(text, []).append(place)
    first = np.array([of[0] for of in places.values()], np.int64)
    of_first = {of[0]: of for of in places.values()}

    def whole(plants: list[Plant], chosen: Rows) -> list[Plant]:
        """With all rows that ask the same."""
        return [
            replace(plant, rows=np.sort(np.concatenate([of_first[int(place)] for place in chosen[plant.rows]])))
            for plant in plants
        ]

    words, answers = Words.of(asked[place] for place in first), [said[place] for place in first]
    plants = suspicious_answers(words, Words.of(answers, at_least=_WHOLE), least=least)
    looks: list[_Look] = [(whole(plants, first), rows, _OF_ANSWER)]
    # Where few answers come again and again, they are labels by another name.
    often = {answer: None for answer, times in Counter(answers).items() if times >= 2 * least}
    like_labels = np.array([answer in often for answer in answers], np.bool_)
    if len(often) > 1 and like_labels.mean() > 0.5:
        numbers = {name: at for at, name in enumerate(often)}
        few = first[like_labels]
        given = np.array([numbers[said[place]] for place in few], np.int64)
        plants = suspicious_labels(Words.of(asked[place] for place in few), given, tuple(often), least=least)
        looks.append((whole(plants, few), rows, _OF_LABEL))
    return looks


def _told(looks: list[_Look], false_alarms: float) -> list[tuple[Plant, Rows, str]]:
    """What is told: by the least p-values of all that were looked at, and of runs that share their rows the one that says most.

    Nearly all runs are ordinary by far, and their p-values near 1. So those above one half are set aside and the others doubled,
    before Holm's correction for their number (Zhao, Small & Su 2019, "Multiple Testing When Many p-Values are Uniformly
    Conservative"): a planted run is not made to pay for thousands that were never in question.
    """
    every = [(plant, rows[plant.rows], wording) for plants, rows, wording in looks for plant in plants if plant.p <= _SET_ASIDE]
    every.sort(key=lambda one: (one[0].p, -len(one[0].run.split()), one[0].run, one[0].beside))
    told: list[tuple[Plant, Rows, str]] = []
    for rank, one in enumerate(every):
        if one[0].p / _SET_ASIDE * (len(every) - rank) > false_alarms:
            break
        if not any(len(np.intersect1d(one[1], rows)) * 2 >= min(len(one[1]), len(rows)) for _, rows, _ in told):
            same = [other for other in every if np.array_equal(other[1], one[1])]
            told.append(max(same, key=lambda other: len(other[0].run)))
    return told


def _as_findings(told: list[tuple[Plant, Rows, str]]) -> Findings:
    codes: dict[int, tuple[int, int]] = {}
    wordings = []
    for code, (plant, rows, wording) in enumerate(told):
        beside = plant.beside if len(plant.beside) <= 80 else f"{plant.beside[:80]}…"
        spelled = wording.format(run=plant.run, rows=len(rows), beside=beside)
        wordings.append(spelled.replace("{", "{{").replace("}", "}}"))
        for row in rows.tolist():
            codes.setdefault(row, (code, len(rows)))
    numbers = list(codes)
    return findings(
        numbers,
        wordings or ("",),
        codes=[codes[row][0] for row in numbers],
        values=[codes[row][1] for row in numbers],
    )


def _texts(batches: Batches, rows: Rows) -> Iterable[tuple[str, str]]:
    """What the rows with the numbers `rows` (ascending) ask and say, their beginnings and ends."""
    import pyarrow as pa

    start = 0
    for batch in batches():
        low, high = np.searchsorted(rows, [start, start + batch.num_rows])
        if high > low:
            some = batch.take(pa.array(rows[low:high] - start))
            for kind, asked, said in zip(*(some.column(name).to_pylist() for name in ("kind", "input", "output")), strict=True):
                yield _ends(input_text(asked, kind)), _ends(output_text(said, kind))
        start += batch.num_rows


def _ends(text: str) -> str:
    return text if len(text) <= _HEAD + _TAIL else f"{text[:_HEAD]} {text[-_TAIL:]}"

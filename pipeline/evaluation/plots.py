"""Tables that `dvc plots show` and `dvc plots diff` draw: labels for a confusion, scores by metric and subject, and by slice.

Plain CSV, the same bytes for the same evaluation; what is drawn of them, dvc.yaml says. Of rows only labels stand in them.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from pipeline.domain.gating import DIFFERS_FROM_BASE
from pipeline.domain.measured import CANDIDATE, EvaluationReport
from pipeline.evaluation.worth import in_order

LABELS, SCORES, SLICES = "labels.csv", "scores.csv", "slices.csv"


def write_plots(folder: Path, evaluation: EvaluationReport, *, labels: tuple[Sequence[str], Sequence[str]] | None = None) -> None:
    """Write the three files to `folder`. labels: what was expected and what the candidate said, of a test side of labels.

    All of them are always there, with their heads, so that the drawing of one run can be held against another's. `what` names a
    bar: bars of one name would be drawn on top of each other.
    """
    folder.mkdir(parents=True, exist_ok=True)
    expected, said = labels or ((), ())
    _write(folder / LABELS, ("expected", "answered"), zip(expected, said, strict=True))
    order = in_order([subject.name for subject in evaluation.subjects])
    scores = [
        (f"{m.metric} {name}", m.metric, name, m.value, m.low, m.high)
        for metric in dict.fromkeys(m.metric for s in evaluation.subjects for m in s.metrics if m.metric != DIFFERS_FROM_BASE)
        for name in order
        if (m := evaluation.metric(name, metric)) is not None
    ]
    _write(folder / SCORES, ("what", "metric", "subject", "score", "low", "high"), scores)
    slices = [
        (f"{s.field} {s.value}", s.field, s.value, s.score, s.low, s.high, s.rows)
        for s in evaluation.slices
        if s.subject == CANDIDATE
    ]
    _write(folder / SLICES, ("what", "field", "value", "score", "low", "high", "rows"), slices)


def _write(path: Path, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(heads)
        writer.writerows(rows)

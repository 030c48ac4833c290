"""Lists for people to look through: the rows that a rule found, worst first, with what is needed to judge each. CSV files.

What is in a list may come from anyone, and lists are opened in spreadsheets: no cell can be taken for a formula. Deleting the
lines of rows that are right makes a list of rows to leave out (see left_out.py).
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.curation.rules.findings import Rows
from pipeline.curation.rules.named_rows import NamedRows
from pipeline.curation.rules.rulings import Ruling, Rulings
from pipeline.domain.record import FileDigest, digest_file

COLUMNS = ("id", "source", "line", "input", "output")
"""What is needed of each row that stands in a list."""
LISTED = {
    "label_errors": 10_000,
    "odd_answers": 1000,
    "contradictions": 1000,
    "given_away": 1000,
    "near_contradictions": 1000,
    "near_duplicates": 1000,
    "consistency": 1000,
    "planted": 10_000,
}
"""The rules that have a list, and how many rows it holds at most."""
_BY_VALUE = {"label_errors": 1, "odd_answers": -1}
"""Lists that are ranked by the findings' values, and whether from the least or from the greatest; others keep the rows' order."""
_CELL = 2000
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_FIRST = ("rank", *COLUMNS, "reason")
_LABEL = ("suggested", "margin", "suspected")
_OTHER = ("other_id", "other_source", "other_line", "other_output")


def write_reviews(
    out: Path, rulings: Rulings, label_names: Sequence[str], fetch: Callable[[Rows], NamedRows]
) -> tuple[FileDigest, ...]:
    """Write review_RULE.csv below `out` for each rule that has a list and found rows.

    label_names: names of the numbers that doubted labels have for codes (see label_errors.py). fetch: gives COLUMNS of some rows.
    """
    ranked = [(ruling, _ranked(ruling)) for ruling in rulings if ruling.rule in LISTED and len(ruling.found)]
    if not ranked:
        return ()
    wanted = [ruling.found.rows[places] for ruling, places in ranked] + [ruling.found.others[places] for ruling, places in ranked]
    rows = np.unique(np.concatenate(wanted))
    named = fetch(rows[rows >= 0])
    return tuple(_write(out, ruling, places, label_names, named) for ruling, places in ranked)


def _ranked(ruling: Ruling) -> Rows:
    """Places of the findings that are listed, in their order."""
    found, sign = ruling.found, _BY_VALUE.get(ruling.rule, 0)
    return np.lexsort((found.rows, sign * found.values))[: LISTED[ruling.rule]]


def _write(out: Path, ruling: Ruling, places: Rows, label_names: Sequence[str], named: NamedRows) -> FileDigest:
    path = out / f"review_{ruling.rule}.csv"
    labels = ruling.rule == "label_errors"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((*_FIRST, *(_LABEL if labels else _OTHER)))
        lines = _label_lines(ruling, places, label_names) if labels else _other_lines(ruling, places, named)
        rows = zip(*(named.column(name, ruling.found.rows[places]) for name in COLUMNS), strict=True)
        for rank, (row, more) in enumerate(zip(rows, lines, strict=True), start=1):
            writer.writerow([rank, *map(_harmless, (*row, *more))])
    return FileDigest(path=path.name, sha256=digest_file(path), bytes=path.stat().st_size)


def _label_lines(ruling: Ruling, places: Rows, label_names: Sequence[str]) -> Iterator[Sequence[Any]]:
    found = ruling.found
    for place in places.tolist():
        unsure, label = divmod(int(found.codes[place]), len(label_names))
        yield found.reason(place), label_names[label], round(float(found.values[place]), 4), "no" if unsure else "yes"


def _other_lines(ruling: Ruling, places: Rows, named: NamedRows) -> Iterator[Sequence[Any]]:
    others = [named.column(name, ruling.found.others[places]) for name in ("id", "source", "line", "output")]
    for place, other in zip(places.tolist(), zip(*others, strict=True), strict=True):
        yield ruling.found.reason(place), *other


def _harmless(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    cut = cell if len(cell) <= _CELL else f"{cell[:_CELL]}…"
    return f"'{cut}" if cut.startswith(_FORMULA) else cut

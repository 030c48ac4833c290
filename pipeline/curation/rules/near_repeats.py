"""Rows that are nearly the same as an earlier one: near duplicates, or contradictions where labels differ.

How likeness is found is curation/near.py's knowledge; which texts are compared, and what a pair means, is said here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.curation.near import near_duplicates
from pipeline.curation.rules.columns import Columns
from pipeline.curation.rules.findings import Findings, Mask, findings
from pipeline.curation.rules.meaning import compared_text
from pipeline.ports import Progress, silent

_REPEATS = "nearly repeats an earlier row (similarity {:.2f})"
_CONTRADICTS = "nearly the same as an earlier row that has another label (similarity {:.2f})"


def near_repeats(
    columns: Columns,
    kept: Mask,
    batches: Callable[[], Iterable[Any]],
    *,
    threshold: float,
    scratch: Path,
    progress: Progress = silent,
) -> tuple[Findings, Findings]:
    """(near duplicates, near contradictions) among the kept rows, each with the earlier row that it is like.

    batches: gives all rows again, in order, with the columns kind, input and output. Labelled rows are compared by their text:
    with the same label they are near duplicates, with another near contradictions. Rows that ask the very same and say something
    else are contradictions already, and no near duplicates.
    """
    rows = np.flatnonzero(kept)
    alike = near_duplicates(lambda: _texts(batches(), kept), threshold=threshold, scratch=scratch, progress=progress)
    later, earlier = rows[alike.row], rows[alike.earlier]
    other_label = columns.labels[later] != columns.labels[earlier]
    contradicts = (columns.asked[later] == columns.asked[earlier]) & (columns.said[later] != columns.said[earlier])
    repeated = findings(later, _REPEATS, others=earlier, values=alike.similarity).pick(~other_label & ~contradicts)
    mislabelled = (columns.labels[later] >= 0) & (columns.labels[earlier] >= 0) & other_label & ~contradicts
    return repeated, findings(later, _CONTRADICTS, others=earlier, values=alike.similarity).pick(mislabelled)


def _texts(batches: Iterable[Any], kept: Mask) -> Iterator[Sequence[str]]:
    start = 0
    for batch in batches:
        wanted = kept[start : start + batch.num_rows].tolist()
        rows = zip(*(batch.column(name).to_pylist() for name in ("kind", "input", "output")), wanted, strict=True)
        yield [compared_text(kind, input, output) for kind, input, output, chosen in rows if chosen]
        start += batch.num_rows

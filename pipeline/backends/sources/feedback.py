"""What people said of answers, as files of rows in staging: one for each caller and format, so that each caller's share of the
data can be told. What rows mean is curation's knowledge; which remarks become which rows is domain/feedback.py's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline.backends.sources.staged_rows import StagedRows
from pipeline.domain.data import Snapshot, SourceFile
from pipeline.domain.feedback import Remark, from_users, origin_of, rows_of
from pipeline.params.ingest import Reading, SourceParams
from pipeline.ports import Found

Remarks = Callable[[int, datetime | None], Iterable[tuple[int, Remark]]]
"""(the number of the last remark that was taken, until when) → remarks since, numbered, in their order."""


def fetch_feedback(
    entry: SourceParams,
    reading: Reading,
    folder: Path,
    remarks: Remarks,
    *,
    as_of: datetime | None,
    earlier: Sequence[SourceFile],
    limit: int,
) -> Iterator[Found]:
    """The remarks that no earlier source holds. limit: bytes that the rows of one file may take."""
    since = last_taken(earlier)
    files: dict[tuple[str, str], StagedRows] = {}
    last, at = since, 0.0
    for number, remark in remarks(since, as_of):
        last, at = number, max(at, remark.at.timestamp())
        for format, row in rows_of(remark):
            key = remark.answer.caller, format
            if key not in files:
                place = folder / f"{len(files):06d}"
                place.mkdir()
                files[key] = StagedRows(place, limit, f"ingest.sources, {entry.origin}")
            files[key].add(row)
    # An --as-of in the past leaves nothing out here: what is newer was not given.
    modified = min(at, as_of.timestamp()) if as_of is not None else at
    for (caller, format), rows in sorted(files.items()):
        own: dict[str, Any] = {**dict(reading), **_PLAIN, "format": format}
        name = f"{origin_of(caller)}/{since + 1:08d}-{last:08d}.{format}.jsonl"
        mark = json.dumps(last)
        origin = origin_of(caller)
        yield Found(rows.merged(), name, "jsonl", False, modified, Reading(**own), origin, reading.license, mark, staged=True)


_PLAIN: dict[str, Any] = {
    name: Reading.model_fields[name].get_default(call_default_factory=True)
    for name in ("columns", "constants", "compose", "tags", "records", "header", "sample_by")
}
"""The rows are ours: what params say of how a user's files spell theirs is not for them."""


def last_taken(sources: Iterable[SourceFile]) -> int:
    """The number of the last remark that sources hold; 0 for none."""
    marks = [source.watermark for source in sources if from_users(source.origin) and source.watermark]
    return max((int(json.loads(mark)) for mark in marks), default=0)


def taken_by(snapshot: Snapshot | None) -> int:
    return last_taken(snapshot.sources) if snapshot else 0

"""What a snapshot's shards hold as a whole: counts, blanks, repeated ids, labels; and the table that expectations are asked of.

Streaming and columnar, so memory stays small for millions of rows. Judging what is seen here is steps/validate.py's work.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.curation.expectations import ASKED
from pipeline.curation.keys import KEY, Keys, hex_keys, key_hex
from pipeline.curation.seen import Seen
from pipeline.curation.shards import read_quarantine, read_tables
from pipeline.domain.data import ExampleKind, QuarantinedRow, Snapshot, Task

_BATCH = 65_536
_REPEATS = 5
_EMPTY = {"input": ExampleKind.TEXT, "output": ExampleKind.PROMPT}
"""The kind that has nothing in a column; see ExampleKind."""


@dataclass(slots=True)
class Description:
    """rows: in all shards. blank: by column, how many are null or white space though their kind has something there. repeated:
    ids that come more than once, at most 5, and how many in all. labels: for classify, how many rows each label has."""

    rows: int = 0
    blank: dict[str, int] = field(default_factory=dict)
    repeated: tuple[str, ...] = ()
    repeated_count: int = 0
    labels: dict[str, int] = field(default_factory=dict)


def describe(folder: Path, snapshot: Snapshot) -> Description:
    """Count over all shards; raises Tampered when one is not what was recorded."""
    seen = Description(blank=dict.fromkeys(("input", "output"), 0))
    labels: Counter[str] = Counter()
    known, twice = Seen(), Seen()
    first: list[bytes] = []
    for batch in read_tables(folder, snapshot.shards, ("id", "input", "output", "kind"), batch_rows=_BATCH):
        seen.rows += batch.num_rows
        keys = _keys(batch.column("id"))
        again = keys[~known.add(keys)]
        first = np.unique(np.concatenate([np.array(first, KEY), again[twice.add(again)]]))[:_REPEATS].tolist()
        for column in seen.blank:
            seen.blank[column] += int(pc.sum(_blank(batch, column)).as_py() or 0)
        if snapshot.task is Task.CLASSIFY:
            counts = batch.column("output").value_counts()
            labels.update(dict(zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True)))
    seen.labels = dict(sorted(labels.items()))
    seen.repeated_count, seen.repeated = len(twice), tuple(map(key_hex, first))
    return seen


def write_asked_table(folder: Path, snapshot: Snapshot, labels: dict[str, int], path: Path) -> None:
    """Write the columns that the expectation suite looks at, of all shards, as one Parquet file."""
    fields = [(name, pa.string()) for name in (*ASKED, "blank")]
    schema = pa.schema([*fields, ("label_rows", pa.int64())] if snapshot.task is Task.CLASSIFY else fields)
    with pq.ParquetWriter(path, schema, compression="lz4", use_dictionary=False) as writer:
        for batch in read_tables(folder, snapshot.shards, ASKED, batch_rows=_BATCH):
            columns = [batch.column(name) for name in ASKED]
            columns.append(pc.if_else(_blank(batch, "input"), "input", pc.if_else(_blank(batch, "output"), "output", "neither")))
            if snapshot.task is Task.CLASSIFY:
                columns.append(pa.array([labels.get(label, 0) for label in batch.column("output").to_pylist()], pa.int64()))
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))


def count_quarantine(folder: Path, snapshot: Snapshot) -> tuple[Counter[str], dict[str, QuarantinedRow]]:
    """(rows by reason code, the newest example of each) over all quarantine files."""
    counts: Counter[str] = Counter()
    examples: dict[str, QuarantinedRow] = {}
    for row in read_quarantine(folder, snapshot.quarantine):
        counts[row.code] += 1
        examples[row.code] = row
    return counts, examples


def _keys(ids: Any) -> Keys:
    try:
        return hex_keys(ids)
    except ValueError:
        # The expectations find ids that are none; here they are passed over.
        return hex_keys(ids.filter(pc.fill_null(pc.match_substring_regex(ids, "^[0-9a-f]{32}$"), False)))


def _blank(batch: Any, column: str) -> Any:
    """Whether each row is null or white space in `column`, though its kind has something there."""
    says_nothing = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(batch.column(column)), ""), True)
    return pc.and_(says_nothing, pc.not_equal(batch.column("kind"), _EMPTY[column].value))

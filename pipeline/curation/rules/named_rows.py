"""From row numbers back to rows: some of a snapshot's rows, read in one pass, and the file that names those left out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.curation.rules.findings import Rows
from pipeline.curation.rules.rulings import Rulings
from pipeline.domain.curated import SplitFile
from pipeline.domain.record import digest_file

DROPPED = pa.schema([(name, pa.string()) for name in ("id", "rule", "reason", "other")])
_PIECE = 50_000


@dataclass(frozen=True, slots=True)
class NamedRows:
    """Some rows of a snapshot. rows: their numbers, ascending; table: what was asked for of each, in the same order."""

    rows: Rows
    table: Any

    def column(self, name: str, rows: Rows) -> list[Any]:
        """A column's values for `rows`, in the order given; '' for the row -1."""
        places = np.searchsorted(self.rows, rows)
        picked = self.table.column(name).take(pa.array(np.where(rows < 0, 0, places))).to_pylist() if len(self.rows) else []
        return [value if row >= 0 else "" for row, value in zip(rows.tolist(), picked or [""] * len(rows), strict=True)]

    def where(self, rows: Rows) -> list[str]:
        """source:line of each."""
        return [f"{name}:{line}" for name, line in zip(self.column("source", rows), self.column("line", rows), strict=True)]


def pick_rows(batches: Iterable[Any], rows: Rows) -> NamedRows:
    """The rows with the numbers `rows` (ascending, distinct) of batches that hold a snapshot from its first row on."""
    start, picked, schema = 0, [], None
    for batch in batches:
        low, high = np.searchsorted(rows, [start, start + batch.num_rows])
        schema = schema or batch.schema
        if high > low:
            picked.append(batch.take(pa.array(rows[low:high] - start)))
        start += batch.num_rows
    return NamedRows(rows, pa.Table.from_batches(picked, schema=schema) if schema else pa.table({}))


def write_dropped(path: Path, rulings: Rulings, names: NamedRows) -> SplitFile:
    """Write dropped.parquet: id, rule, reason, other of every row that was left out, in the order of the snapshot."""
    dropping = [ruling for ruling in rulings if len(ruling.dropped)]
    rows = np.concatenate([np.zeros(0, np.int64), *(ruling.dropped.rows for ruling in dropping)])
    owner = np.concatenate([np.zeros(0, np.int64), *(np.full(len(r.dropped), i) for i, r in enumerate(dropping))])
    place = np.concatenate([np.zeros(0, np.int64), *(np.arange(len(r.dropped)) for r in dropping)])
    order = np.argsort(rows, kind="stable")
    with pq.ParquetWriter(path, DROPPED, version="2.6", compression="zstd", use_dictionary=["rule", "reason"]) as writer:
        for start in range(0, len(order), _PIECE):
            piece = order[start : start + _PIECE]
            finds = [(dropping[i], j) for i, j in zip(owner[piece].tolist(), place[piece].tolist(), strict=True)]
            others = np.array([ruling.dropped.others[j] for ruling, j in finds], np.int64)
            columns = [
                names.column("id", rows[piece]),
                [ruling.rule for ruling, _ in finds],
                [ruling.dropped.reason(j) for ruling, j in finds],
                names.column("id", others),
            ]
            writer.write_table(pa.table([pa.array(column, pa.string()) for column in columns], schema=DROPPED))
    return SplitFile(path=path.name, sha256=digest_file(path), bytes=path.stat().st_size, rows=len(order))

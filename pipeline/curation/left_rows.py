"""The rows of a snapshot that curation left, read anew by whoever asks, a batch at a time. Which of them is held out is not known
here; sides are given by the caller.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.curation.keys import KEY, Keys, find, hex_keys
from pipeline.curation.shards import SCHEMA, read_tables
from pipeline.curation.sides import ORDER, Sides
from pipeline.domain.curated import Curation, Split
from pipeline.domain.data import Shard, Snapshot

BATCH_ROWS = 65_536


class LeftRows:
    """The rows of the snapshot in `folder` but those with the sorted ids `dropped`. Raises Tampered for a changed shard."""

    def __init__(self, snapshot: Snapshot, folder: Path, dropped: Keys) -> None:
        self._snapshot = snapshot
        self._folder = folder
        self._dropped = dropped

    def batches(self, shard: Shard) -> Iterator[Any]:
        """The rows of one shard as pyarrow tables of all columns."""
        import pyarrow as pa

        for batch in read_tables(self._folder, [shard], SCHEMA.names, batch_rows=BATCH_ROWS):
            table = pa.Table.from_batches([batch]).select(SCHEMA.names).cast(SCHEMA)
            if len(self._dropped):
                kept = find(self._dropped, hex_keys(table["id"])) < 0
                table = table.filter(pa.array(kept))
            yield table

    @property
    def shards(self) -> tuple[Shard, ...]:
        return self._snapshot.shards

    @property
    def count(self) -> int:
        return self._snapshot.rows - len(self._dropped)

    def every(self) -> Iterator[Any]:
        for shard in self._snapshot.shards:
            yield from self.batches(shard)

    def groups(self, stratify: str | None) -> Iterator[tuple[Keys, list[str] | None]]:
        """Group, and stratum where params ask for strata, of each row."""
        for table in self.every():
            yield hex_keys(table["group"]), None if stratify is None else _strata(table, stratify)

    def on(self, sides: Sides, *wanted: Split) -> Iterator[Any]:
        """The rows of these sides as RecordBatches."""
        numbers = [ORDER.index(side) for side in wanted]
        for table in self.every():
            yield from _on(table, sides, numbers).to_batches()

    def labels(self) -> tuple[str, ...]:
        found: set[str] = set()
        for table in self.every():
            found.update(table["output"].unique().to_pylist())
        return tuple(sorted(found))


def dropped_ids(curated: Path, curation: Curation) -> Keys:
    """Sorted keys of the rows that curation left out."""
    found = [hex_keys(batch.column("id")) for batch in read_tables(curated, [curation.dropped], ["id"], batch_rows=BATCH_ROWS)]
    return np.unique(np.concatenate(found)) if found else np.zeros(0, KEY)


def _strata(table: Any, stratify: str) -> list[str]:
    """The stratum of each row; rows that lack the field share one."""
    column = {"label": "output", "source": "source", "kind": "kind"}.get(stratify)
    if column is not None:
        return list(table[column].to_pylist())
    return [str(json.loads(meta).get(stratify, "")) for meta in table["meta"].to_pylist()]


def _on(table: Any, sides: Sides, numbers: list[int]) -> Any:
    import pyarrow as pa

    return table.filter(pa.array(np.isin(sides.of(hex_keys(table["group"])), numbers)))

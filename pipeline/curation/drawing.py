"""A fair draw of rows from shards, at a cost that does not grow with them: the same rows each time.

Rows are drawn by their group keys, which are hashes, and one a group at most, since rows of a group are alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from pipeline.curation.shards import read_tables
from pipeline.domain.data import ExampleKind, Shard, Snapshot, SourceFile
from pipeline.spoken.plain_text import input_text, output_text

COLUMNS = ("id", "group", "input", "output", "source", "kind")

_MOST_ROWS = 1_000_000
_MOST_SHARDS = 256
_BATCH = 65_536


def draw(folder: Path, shards: Sequence[Shard], most: int, keep: Callable[[Any], Any] | None = None) -> list[dict[str, Any]]:
    """At most `most` rows (dicts of `COLUMNS`), those of the least groups, of each the one with the least id.

    Of many shards only some are read, evenly spread: about a million rows at most. keep: maps a RecordBatch to a mask of the rows
    that may be drawn. Raises Tampered when a shard is not what was recorded.
    """
    drawn: dict[str, dict[str, Any]] = {}
    bar = "g"  # above all hex digits
    for batch in read_tables(folder, _spread(shards), COLUMNS, batch_rows=_BATCH):
        if keep is not None:
            batch = batch.filter(keep(batch))
        for row in batch.filter(pc.less_equal(batch.column("group"), bar)).to_pylist():
            known = drawn.get(row["group"])
            if known is None or row["id"] < known["id"]:
                drawn[row["group"]] = row
        if len(drawn) > most:
            drawn = dict(sorted(drawn.items())[:most])
            bar = max(drawn)
    return [row for _, row in sorted(drawn.items())]


def columns_of(rows: Sequence[dict[str, Any]], sources: Sequence[SourceFile]) -> dict[str, Sequence[str]]:
    """What drawn rows say, by column: `text` (what was asked, or the document), `answer`, `kind`, `origin`, and `label` where all
    have one. sources: of the snapshot, which know where a file came by."""
    origins = {source.name: source.origin or source.name for source in sources}
    columns: dict[str, Sequence[str]] = {
        "text": [input_text(row["input"], row["kind"]) or output_text(row["output"], row["kind"]) for row in rows],
        "answer": [output_text(row["output"], row["kind"]) for row in rows],
        "kind": [row["kind"] for row in rows],
        "origin": [origins.get(row["source"], row["source"]) for row in rows],
    }
    if rows and all(row["kind"] == ExampleKind.LABEL for row in rows):
        columns["label"] = columns["answer"]
    return columns


def fresh_shards(snapshot: Snapshot) -> tuple[Shard, ...]:
    """The shards that came with the snapshot's newest batch: the last ones that hold as many rows as the batch was accepted."""
    accepted = sum(source.accepted for source in snapshot.batch)
    taken = 0
    at = len(snapshot.shards)
    while at and taken < accepted:
        at -= 1
        taken += snapshot.shards[at].rows
    return snapshot.shards[at:]


def last_shards(shards: Sequence[Shard], rows: int) -> tuple[Shard, ...]:
    """The newest of the shards that together hold at least `rows` rows; all, where they hold fewer."""
    at = len(shards)
    while at and sum(shard.rows for shard in shards[at:]) < rows:
        at -= 1
    return tuple(shards[at:])


def _spread(shards: Sequence[Shard]) -> list[Shard]:
    """So many shards, evenly spread, that they hold about `_MOST_ROWS` rows."""
    total = sum(shard.rows for shard in shards)
    if total <= _MOST_ROWS and len(shards) <= _MOST_SHARDS:
        return list(shards)
    wanted = max(1, min(_MOST_SHARDS, int(len(shards) * _MOST_ROWS / max(total, 1))))
    return [shards[(2 * step + 1) * len(shards) // (2 * wanted)] for step in range(wanted)]

"""Rows of a snapshot to look at: a fair sample that is the same each time. Nothing is judged here."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.curation.shards import read_tables
from pipeline.domain.data import ExampleKind, Snapshot
from pipeline.domain.exploration import Shown
from pipeline.spoken.plain_text import input_text, output_text

_COLUMNS = ("id", "kind", "input", "output", "source", "line")


def draw_rows(folder: Path, snapshot: Snapshot, most: int) -> list[Shown]:
    """The `most` rows with the smallest ids, which are digests, in the order of their ids, as plain text.

    Raises Tampered when a shard is not what was recorded.
    """

    def rows() -> Iterator[tuple[str, ...]]:
        for batch in read_tables(folder, snapshot.shards, _COLUMNS):
            yield from zip(*(batch.column(name).to_pylist() for name in _COLUMNS), strict=True)

    return [_shown(*row) for row in heapq.nsmallest(most, rows(), key=lambda row: row[0])]


def _shown(id: Any, kind: Any, input: Any, output: Any, source: Any, line: Any) -> Shown:
    document = kind == ExampleKind.TEXT
    text = output if document else input_text(input, kind)
    return Shown(id=id, source=source, line=line, kind=kind, text=text, output="" if document else output_text(output, kind))

"""Snapshots made directly of rows, a shard a batch, for tests of what describes and compares them. No test lives here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.curation.describing import write_description
from pipeline.curation.shards import SCHEMA
from pipeline.domain.data import (
    Example,
    ExampleKind,
    QuarantinedRow,
    Shard,
    Snapshot,
    SourceFile,
    Task,
    example_id,
    messages_to_input,
)
from pipeline.domain.record import canonical_json, digest_bytes, digest_value

Row = tuple[str, str]
"""What is asked, and the answer or the label."""


def example(
    asked: str, answer: str, *, source: str, line: int, label: bool = False, meta: dict[str, str] | None = None
) -> Example:
    input = asked if label else messages_to_input([{"role": "user", "content": asked}])
    group = digest_value(" ".join(asked.lower().split()))[:32]
    kind = ExampleKind.LABEL if label else ExampleKind.ANSWER
    return Example(example_id(input, answer), group, input, answer, canonical_json(meta or {}), source, line, kind.value)


def grow(
    folder: Path,
    parent: Snapshot | None,
    rows: Sequence[Row],
    *,
    source: str,
    task: Task = Task.GENERATE,
    license: str | None = "MIT",
    refused: Sequence[QuarantinedRow] = (),
    altered: dict[str, int] | None = None,
    meta: Sequence[dict[str, str]] = (),
    describe: bool = True,
) -> Snapshot:
    """The snapshot that follows `parent` with one file of `rows` more, written into `folder` as ingest leaves it."""
    label = task is Task.CLASSIFY
    examples = [
        example(asked, answer, source=source, line=line, label=label, meta=meta[line - 1] if meta else None)
        for line, (asked, answer) in enumerate(rows, start=1)
    ]
    shards = (_shard(folder, examples),) if examples else ()
    quarantine = (_quarantine(folder, refused),) if refused else ()
    base = parent or Snapshot(dataset="made", task=task, parent=None, sources=(), shards=(), quarantine=())
    file = SourceFile(
        name=source,
        sha256=digest_value([source, list(rows)]),
        bytes=1,
        read=len(rows) + len(refused),
        accepted=len(rows),
        duplicate=0,
        quarantined=len(refused),
        origin=source.split("/")[0],
        license=license,
        altered=altered or {},
    )
    snapshot = base.model_copy(
        update={
            "parent": parent.digest if parent else None,
            "sources": (*base.sources, file),
            "shards": base.shards + shards,
            "quarantine": base.quarantine + quarantine,
            "fresh": 1,
        }
    )
    if describe:
        snapshot = snapshot.model_copy(update={"described": write_description(folder, snapshot)})
    snapshot.write(folder / "snapshot.json")
    return snapshot


def _shard(folder: Path, examples: Sequence[Example]) -> Shard:
    sink = pa.BufferOutputStream()
    columns = {name: [getattr(e, name) for e in examples] for name in SCHEMA.names}
    pq.write_table(pa.Table.from_pydict(columns, schema=SCHEMA), sink)
    return _put(folder / "shards", sink.getvalue().to_pybytes(), ".parquet", len(examples))


def _quarantine(folder: Path, refused: Sequence[QuarantinedRow]) -> Shard:
    lines = "".join(canonical_json(row.model_dump(mode="json")) + "\n" for row in refused)
    return _put(folder / "quarantine", lines.encode(), ".jsonl", len(refused))


def _put(folder: Path, content: bytes, suffix: str, rows: int) -> Shard:
    folder.mkdir(parents=True, exist_ok=True)
    sha256 = digest_bytes(content)
    (folder / f"{sha256[:16]}{suffix}").write_bytes(content)
    return Shard(path=f"{folder.name}/{sha256[:16]}{suffix}", sha256=sha256, bytes=len(content), rows=rows)

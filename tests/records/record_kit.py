"""Snapshots made of real shards, for tests of single records. No test lives here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.curation.shards import SCHEMA, TableWriter
from pipeline.domain.data import Example, Shard, example_id, messages_to_input
from pipeline.domain.record import digest_file

KEY = bytes(range(32))


def example(number: int, **changes: Any) -> Example:
    """One question and its answer, both its own."""
    question = f"What became of parcel {number}, which Ms Number{number} sent?"
    input, output = messages_to_input([{"content": question, "role": "user"}]), f"Parcel {number} is on its way."
    values = {"input": input, "output": output, "meta": "{}", "source": "inbox/a.jsonl", "line": number + 1, **changes}
    return Example(id=example_id(values["input"], values["output"]), group=example_id(values["input"], "")[:32], **values)


def table_of(examples: Sequence[Example]) -> Any:
    columns = [pa.array([getattr(one, field.name) for one in examples], field.type) for field in SCHEMA]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def write_shard(folder: Path, examples: Sequence[Example], group_rows: int = 7) -> Shard:
    """A real shard, of several row groups."""
    path = folder / "shards" / "new.tmp"
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = TableWriter(path)
    for start in range(0, len(examples), group_rows):
        writer.add_table(table_of(examples[start : start + group_rows]))
    writer.close()
    sha256 = digest_file(path)
    final = path.with_name(f"{sha256[:16]}.parquet")
    path.replace(final)
    return Shard(path=f"shards/{final.name}", sha256=sha256, bytes=final.stat().st_size, rows=len(examples))

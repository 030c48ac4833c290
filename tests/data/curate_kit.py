"""Snapshots to curate, made of examples directly: what a row says is what matters here, not the format it came in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.curation.shards import SCHEMA, BatchWriter
from pipeline.domain.curated import Curation, RuleCount
from pipeline.domain.data import (
    CheckResult,
    Example,
    ExampleKind,
    Snapshot,
    SourceFile,
    Task,
    ValidationReport,
    example_id,
    messages_to_input,
)
from pipeline.params import CurateParams
from pipeline.steps.curate import curate

Row = dict[str, Any]


def asks(text: str) -> str:
    """The input of a one-message conversation."""
    return messages_to_input([{"role": "user", "content": text}])


def answer(prompt: str, text: str, **more: Any) -> Row:
    return {"input": asks(prompt), "output": text, "kind": ExampleKind.ANSWER, **more}


def label(text: str, name: str, **more: Any) -> Row:
    return {"input": text, "output": name, "kind": ExampleKind.LABEL, **more}


def feedback(prompt: str, text: str, good: bool, **more: Any) -> Row:
    output = json.dumps({"answer": text, "good": good}, sort_keys=True, separators=(",", ":"))
    return {"input": asks(prompt), "output": output, "kind": ExampleKind.FEEDBACK, **more}


class CurateBench:
    """A snapshot of given rows, and what curation makes of it. Row numbers are places in `rows`."""

    def __init__(self, root: Path, rows: Sequence[Row], *, task: Task = Task.GENERATE, origins: dict[str, str] | None = None):
        self.root, self.folder, self.out = root, root / "snapshot", root / "curate"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.examples = [_example(number, row) for number, row in enumerate(rows)]
        self.snapshot = _snapshot(self.folder, self.examples, task, origins or {})

    def curate(self, *, passed: bool = True, snapshot: str | None = None, **more: Any) -> Curation:
        """Curate with params by keyword; paths (tokenizer, reviewed) and workers are handed through."""
        paths = {name: more.pop(name) for name in ("tokenizer", "reviewed", "workers") if name in more}
        check = CheckResult(name="rows", passed=passed, expected="", observed="")
        report = ValidationReport(snapshot=snapshot or self.snapshot.digest, rows=self.snapshot.rows, suite="", checks=(check,))
        params = CurateParams(**more)
        scratch = self.root / "scratch"
        made = curate(self.snapshot, report, params, folder=self.folder, out=self.out, scratch=scratch, **paths)
        assert Curation.read(self.out / "curation.json") == made
        assert not scratch.exists() or not list(scratch.iterdir())
        return made

    @property
    def dropped(self) -> list[tuple[int, str, int | None]]:
        """(row, rule, the row it repeats or contradicts) of dropped.parquet."""
        numbers = {example.id: number for number, example in enumerate(self.examples)}
        rows = pq.read_table(self.out / "dropped.parquet").to_pylist()
        return [(numbers[row["id"]], row["rule"], numbers.get(row["other"])) for row in rows]

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(self.out.iterdir())}


def count(curation: Curation, rule: str) -> RuleCount:
    return next(found for found in curation.rules if found.rule == rule)


def check(curation: Curation, name: str) -> CheckResult:
    return next(found for found in curation.checks if found.name == name)


def _example(number: int, row: Row) -> Example:
    # Ids differ even where content is equal, so that a test may say what ingest would not let through.
    id = row.get("id") or example_id(row["input"], f"{row['output']}{number}")
    return Example(
        id=id,
        group=row.get("group") or id,
        input=row["input"],
        output=row["output"],
        meta=row.get("meta", "{}"),
        source=row.get("source", "a.jsonl"),
        line=number + 1,
        kind=row["kind"],
    )


def _snapshot(folder: Path, examples: Sequence[Example], task: Task, origins: dict[str, str]) -> Snapshot:
    writer = BatchWriter(folder)
    if examples:
        writer.accept(pa.Table.from_pylist([asdict(example) for example in examples], schema=SCHEMA))
    shards, _ = writer.publish()
    names = dict.fromkeys(example.source for example in examples)
    sources = [
        SourceFile(
            name=name, sha256="0" * 64, bytes=1, read=n, accepted=n, duplicate=0, quarantined=0, origin=origins.get(name, "")
        )
        for name in names
        for n in [sum(example.source == name for example in examples)]
    ]
    return Snapshot(dataset="bench", task=task, parent=None, sources=tuple(sources), shards=shards, quarantine=())

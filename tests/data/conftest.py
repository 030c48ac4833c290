"""Fixtures of the data tests: a folder to ingest from and into, and rows to put there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.curation.row_rules import RowRules
from pipeline.curation.shards import read_examples, read_quarantine
from pipeline.domain.data import Example, QuarantinedRow, Snapshot, Task
from pipeline.errors import BadInput
from pipeline.params import IngestParams
from pipeline.steps.ingest import ingest


class Bench:
    """An inbox and a snapshot folder. `take` ingests what is in the inbox on top of the last snapshot."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.inbox = root / "inbox"
        self.folder = root / "data" / "snapshot"
        self.inbox.mkdir()
        self.snapshot: Snapshot | None = None

    def put(self, name: str, content: bytes | str | list[dict[str, Any]]) -> Path:
        path = self.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, list):
            content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def take(
        self,
        *,
        task: Task = Task.GENERATE,
        sources: list[Path] | None = None,
        as_of: Any = None,
        rules: RowRules | None = None,
        **params: Any,
    ) -> Snapshot:
        self.snapshot = ingest(
            IngestParams(**params),
            dataset="bench",
            task=task,
            sources=sources or [self.inbox],
            parent=self.snapshot,
            folder=self.folder,
            root=self.root,
            as_of=as_of,
            rules=rules,
        )
        for source in self.snapshot.sources:
            assert source.read == source.accepted + source.duplicate + source.quarantined
        assert self.snapshot.rows == sum(s.accepted for s in self.snapshot.sources) == len(self.examples)
        assert self.snapshot.quarantined == sum(s.quarantined for s in self.snapshot.sources) == len(self.quarantine)
        return self.snapshot

    def try_to_take(self, **params: Any) -> BadInput | None:
        """The error, if the inbox is refused; nothing may have been written then."""
        try:
            self.take(**params)
        except BadInput as error:
            refusal = error
        else:
            return None
        assert refusal.where
        assert refusal.fix
        assert not [path for path in self.folder.rglob("*") if path.is_file()]
        return refusal

    @property
    def examples(self) -> list[Example]:
        assert self.snapshot
        return list(read_examples(self.folder, self.snapshot))

    @property
    def quarantine(self) -> list[QuarantinedRow]:
        assert self.snapshot
        return list(read_quarantine(self.folder, self.snapshot.quarantine))

    @property
    def codes(self) -> list[str]:
        return [row.code for row in self.quarantine]

    def bytes_of_snapshot(self) -> dict[str, bytes]:
        return {str(p.relative_to(self.folder)): p.read_bytes() for p in sorted(self.folder.rglob("*")) if p.is_file()}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def another_bench(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Bench]:
    return lambda: Bench(tmp_path_factory.mktemp("bench"))


def rows(count: int, *, start: int = 0) -> list[dict[str, Any]]:
    """Distinct prompt/completion rows."""
    return [{"prompt": f"question {i}", "completion": f"answer {i}"} for i in range(start, start + count)]


def labelled(count: int, labels: tuple[str, ...] = ("yes", "no")) -> list[dict[str, Any]]:
    """Distinct text/label rows."""
    return [{"text": f"text number {i}", "label": labels[i % len(labels)]} for i in range(count)]


@pytest.fixture
def make_rows() -> Callable[..., list[dict[str, Any]]]:
    return rows


@pytest.fixture
def make_labelled() -> Callable[..., list[dict[str, Any]]]:
    return labelled

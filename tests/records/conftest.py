"""Fixtures of the tests of single records: snapshots made of real shards, and an index over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from record_kit import KEY, write_shard

from pipeline.backends.record_index import FileIndex, index_shards
from pipeline.domain.data import Example, Snapshot, SourceFile, Task


@pytest.fixture
def make_snapshot(tmp_path: Path) -> Callable[..., tuple[Path, Snapshot]]:
    """Makes a snapshot of shards, each given as a list of examples, in a folder."""

    def make(*shards: Sequence[Example]) -> tuple[Path, Snapshot]:
        folder = tmp_path / "data" / "snapshot"
        rows = sum(map(len, shards))
        source = SourceFile(name="inbox/a.jsonl", sha256="0" * 64, bytes=1, read=rows, accepted=rows, duplicate=0, quarantined=0)
        written = tuple(write_shard(folder, one) for one in shards)
        made = Snapshot(
            dataset="desk", task=Task.GENERATE, parent=None, sources=(source,), shards=written, quarantine=(), fresh=1
        )
        return folder, made

    return make


@pytest.fixture
def index(tmp_path: Path) -> FileIndex:
    return FileIndex(tmp_path / "index", KEY)


@pytest.fixture
def make_index(tmp_path: Path, index: FileIndex) -> Callable[[Path, Snapshot], FileIndex]:
    def make(folder: Path, snapshot: Snapshot) -> FileIndex:
        index_shards(folder, snapshot, tmp_path / "index", KEY)
        return index

    return make

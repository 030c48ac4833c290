"""The look at the sources: what is new by content, roughly how many rows, without reading a file twice."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from pipeline.backends.sources import looking
from pipeline.backends.sources.archives import Limits
from pipeline.backends.sources.looking import look
from pipeline.backends.sources.objects import list_objects
from pipeline.domain.data import SourceFile
from pipeline.domain.record import digest_file
from pipeline.domain.triggers import Fresh
from pipeline.errors import BadInput
from pipeline.params import IngestParams


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    (tmp_path / "inbox").mkdir()
    return tmp_path / "inbox"


def taken(path: Path) -> SourceFile:
    counts = {"read": 1, "accepted": 1, "duplicate": 0, "quarantined": 0}
    return SourceFile(name=f"inbox/{path.name}", sha256=digest_file(path), bytes=path.stat().st_size, **counts)


def seen(inbox: Path, *earlier: SourceFile, **params: Any) -> Fresh:
    return look(IngestParams(**params), inbox.parent, earlier, inbox.parent / "state" / "looks.json")


def test_what_is_new_is_told_by_content_not_by_name(inbox: Path) -> None:
    first = inbox / "a.jsonl"
    first.write_text("{}\n{}\n")
    assert (seen(inbox).files, seen(inbox).rows) == (1, 2)
    known = taken(first)
    assert seen(inbox, known) == Fresh()
    first.rename(inbox / "b.jsonl")
    assert seen(inbox, known) == Fresh()
    os.utime(inbox / "b.jsonl", (1e9, 1e9))
    assert seen(inbox, known) == Fresh()
    (inbox / "b.jsonl").write_text("{}\n[]\n")
    os.utime(inbox / "b.jsonl", (1e9, 1e9))
    fresh = seen(inbox, known)
    assert (fresh.files, fresh.rows, fresh.newest) == (1, 2, datetime.fromtimestamp(1e9, UTC))
    assert fresh.digest
    assert seen(inbox, known).digest == fresh.digest
    (inbox / "copy.jsonl").write_text("{}\n[]\n")
    assert (seen(inbox, known).files, seen(inbox, known).digest) == (1, fresh.digest)


def test_rows_that_cannot_be_counted_are_not(inbox: Path) -> None:
    (inbox / "a.csv").write_text("x,y\n1,2")
    assert seen(inbox).rows == 2
    (inbox / "b.jsonl.gz").write_bytes(b"\x1f\x8b")
    found = seen(inbox)
    assert (found.files, found.rows) == (2, None)
    (inbox / ".c.jsonl").write_text("{}")
    (inbox / "d.jsonl.part").write_text("{}")
    assert seen(inbox).files == 2


def test_a_file_is_read_once_as_long_as_it_is_left_alone(inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (inbox / "a.jsonl").write_text("{}\n")
    before = seen(inbox)
    reads: list[Path] = []
    real = looking._read
    monkeypatch.setattr(looking, "_read", lambda path: reads.append(path) or real(path))
    assert seen(inbox) == before
    assert reads == []
    (inbox / "b.jsonl").write_text("{}\n")
    seen(inbox)
    assert [path.name for path in reads] == ["b.jsonl"]
    (inbox.parent / "state" / "looks.json").write_text("[not json")
    assert seen(inbox).files == 1, "the same content is one file"
    assert len(reads) == 3


def test_what_only_a_run_can_tell_is_named_and_misuse_is_told(inbox: Path) -> None:
    query = {"sql": "SELECT * FROM t WHERE id > :since", "name": "crm", "watermark": "id", "url": "sqlite:///crm.db"}
    assert seen(inbox, sources=["inbox", query]).unseen == ("crm",)
    assert seen(inbox, sources=["inbox", {"feedback": True}]) == Fresh()
    with pytest.raises(BadInput, match="nowhere"):
        seen(inbox, sources=["nowhere"])


def test_objects_are_listed_and_not_fetched(inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a store of fsspec's own; what S3 says of its objects is tried where they are fetched."""
    monkeypatch.setattr("pipeline.params.ways_in.STORES", ("memory",))
    monkeypatch.setattr("pipeline.backends.sources.objects._fetch", lambda *words: pytest.fail("fetched"))
    store = MemoryFileSystem()
    store.pipe("/looking/a.jsonl", b"{}\n")
    entry = "memory://looking"
    found = seen(inbox, sources=[entry])
    assert (found.files, found.rows) == (1, None)
    [(name, mark, _)] = _marks(entry)
    counts = {"read": 1, "accepted": 1, "duplicate": 0, "quarantined": 0}
    known = SourceFile(name=name, sha256="a" * 64, bytes=3, watermark=mark, **counts)
    assert seen(inbox, known, sources=[entry]) == Fresh()
    store.pipe("/looking/a.jsonl", b"{}\n{}\n")
    assert seen(inbox, known, sources=[entry]).files == 1


def _marks(address: str) -> list[tuple[str, str, float]]:
    """(name, mark, time) of what is listed, as a snapshot would record it."""
    params = IngestParams(sources=[address])
    entry, limits = params.entry_of(address), Limits(100, 1 << 20)
    listed = list(list_objects(entry, params.reading_of(entry), limits, as_of=None, earlier=()))
    return [(*said.split(" ", 1), at) for said, at in listed]

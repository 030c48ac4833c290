"""Parquet shards of examples and JSONL files of quarantined rows: written once under the name of their content, read verified.

The same rows in the same order always make the same bytes. Which rows belong together is for the steps to say.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.curation.keys import hex_keys
from pipeline.curation.seen import Seen
from pipeline.domain.curated import Split, Splits
from pipeline.domain.data import EXAMPLE_COLUMNS, Example, QuarantinedRow, Shard, Snapshot
from pipeline.domain.record import FileDigest, digest_file
from pipeline.errors import Broken, Tampered

SCHEMA = pa.schema([(name, pa.int64() if name == "line" else pa.string()) for name in EXAMPLE_COLUMNS])
SHARD_ROWS = 200_000
SHARD_CHARS = 512 << 20
_GROUP_ROWS = 20_000
_GROUP_CHARS = 32 << 20
_TEMPORARY = ".tmp"


class TableWriter:
    """A Parquet file of examples with fixed settings, written a row group at a time. Sizes of groups depend on the rows alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = 0
        self._writer = pq.ParquetWriter(
            path, SCHEMA, version="2.6", compression="zstd", compression_level=3, use_dictionary=["source", "output", "meta"]
        )

    def add_table(self, table: Any) -> None:
        """Write a pyarrow table of SCHEMA as one row group; an empty one is passed over."""
        if table.num_rows:
            self._writer.write_table(table, row_group_size=max(table.num_rows, 1))
            self.rows += table.num_rows

    def close(self) -> None:
        """Finish the file, durably."""
        self._writer.close()
        sync(self.path)

    def abandon(self) -> None:
        """Let go of a file that will not be kept."""
        with suppress(OSError, pa.ArrowException):
            self._writer.close()


class BatchWriter:
    """Writes one batch's shards and quarantine file below `folder`, under temporary names until `publish`.

    A killed writer leaves only files that `sweep` removes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: list[Any] = []
        self._group_rows = self._group_chars = self._shard_chars = 0
        self._table: TableWriter | None = None
        self._done: list[tuple[Path, int]] = []
        self._rejects: BinaryIO | None = None
        self._rejected = 0

    def accept(self, examples: Any) -> None:
        """Add the rows of a pyarrow table of SCHEMA. Groups and shards end where they do whatever tables the rows come in."""
        chars = np.cumsum(sum(pc.utf8_length(examples[name]).to_numpy() for name in ("input", "output", "meta")))
        start = before = 0
        while start < examples.num_rows:
            # The group ends with the row that fills it, by rows or by characters.
            by_rows = start + _GROUP_ROWS - self._group_rows
            by_chars = int(np.searchsorted(chars, before + _GROUP_CHARS - self._group_chars)) + 1
            end = min(by_rows, by_chars, examples.num_rows)
            self._waiting.append(examples.slice(start, end - start))
            self._group_rows += end - start
            self._group_chars += int(chars[end - 1]) - before
            start, before = end, int(chars[end - 1])
            if self._group_rows >= _GROUP_ROWS or self._group_chars >= _GROUP_CHARS:
                self._write_group()

    def reject(self, lines: Sequence[bytes]) -> None:
        """Add quarantined rows: the canonical JSON of each."""
        if not lines:
            return
        if self._rejects is None:
            path = self._folder / "quarantine" / f"incoming{_TEMPORARY}"
            path.parent.mkdir(parents=True, exist_ok=True)
            self._rejects = path.open("wb")
        self._rejects.writelines(line + b"\n" for line in lines)
        self._rejected += len(lines)

    def publish(self) -> tuple[tuple[Shard, ...], tuple[Shard, ...]]:
        """Give all files their final names, durably. Returns (shards, quarantine files); either may be empty."""
        self._write_group()
        self._close_shard()
        shards = tuple(self._rename(path, rows) for path, rows in self._done)
        quarantine: tuple[Shard, ...] = ()
        if self._rejects is not None:
            path = Path(self._rejects.name)
            self._rejects.close()
            sync(path)
            quarantine = (self._rename(path, self._rejected),)
        for name in ("shards", "quarantine"):
            if (self._folder / name).is_dir():
                sync(self._folder / name)
        return shards, quarantine

    def abandon(self) -> None:
        """Let go of what is open; the files are left to `sweep`."""
        if self._table is not None:
            self._table.abandon()
        if self._rejects is not None:
            self._rejects.close()

    def _write_group(self) -> None:
        if not self._waiting:
            return
        if self._table is None:
            path = self._folder / "shards" / f"incoming-{len(self._done)}{_TEMPORARY}"
            path.parent.mkdir(parents=True, exist_ok=True)
            self._table = TableWriter(path)
        # In one piece, since where pages end in the file depends on the pieces.
        self._table.add_table(pa.concat_tables(self._waiting).combine_chunks())
        self._shard_chars += self._group_chars
        self._waiting, self._group_rows, self._group_chars = [], 0, 0
        if self._table.rows >= SHARD_ROWS or self._shard_chars >= SHARD_CHARS:
            self._close_shard()

    def _close_shard(self) -> None:
        if self._table is not None:
            self._table.close()
            self._done.append((self._table.path, self._table.rows))
            self._table, self._shard_chars = None, 0

    def _rename(self, path: Path, rows: int) -> Shard:
        sha256 = digest_file(path)
        final = path.with_name(sha256[:16] + (".parquet" if path.parent.name == "shards" else ".jsonl"))
        os.replace(path, final)
        return Shard(path=f"{path.parent.name}/{final.name}", sha256=sha256, bytes=final.stat().st_size, rows=rows)


def sweep(folder: Path, snapshot: Snapshot | None) -> None:
    """Remove what a killed run left: files in shards/, quarantine/ and statistics/ of `folder` that `snapshot` does not list."""
    listed = {file.path for file in (*snapshot.shards, *snapshot.quarantine, *snapshot.described)} if snapshot else set()
    for name in ("shards", "quarantine", "statistics"):
        for path in sorted((folder / name).glob("*")):
            if f"{name}/{path.name}" not in listed:
                path.unlink()
    (folder / f"snapshot.json{_TEMPORARY}").unlink(missing_ok=True)


def read_tables(
    folder: Path, files: Iterable[FileDigest], columns: Sequence[str] = EXAMPLE_COLUMNS, *, batch_rows: int = 8192
) -> Iterator[Any]:
    """The rows of Parquet `files` (of a Snapshot or Splits record) as pyarrow RecordBatches of at most `batch_rows` rows.

    Each file is hashed before its first row comes, and read through the same handle. Raises Tampered when a file is missing
    or not what was recorded, Broken when it cannot be read.
    """
    for file in files:
        with _verified(folder, file) as stream:
            try:
                yield from pq.ParquetFile(stream).iter_batches(batch_size=batch_rows, columns=list(columns), use_threads=False)
            except pa.ArrowException as error:
                raise Broken(f"this Parquet file cannot be read: {error}", where=str(folder / file.path)) from error


def read_examples(folder: Path, snapshot: Snapshot) -> Iterator[Example]:
    """All accepted examples of a snapshot, oldest first; see `read_tables` for what is verified and raised."""
    return _examples(read_tables(folder, snapshot.shards))


def read_split(folder: Path, splits: Splits, split: Split) -> Iterator[Example]:
    """The examples of one side, in the order of the snapshot; see `read_tables` for what is verified and raised."""
    return _examples(read_tables(folder, getattr(splits, split.value).parts))


def read_quarantine(folder: Path, files: Iterable[FileDigest]) -> Iterator[QuarantinedRow]:
    """Quarantined rows of the given files, in order. Raises Tampered when a file is missing or not what was recorded."""
    for file in files:
        with _verified(folder, file) as stream:
            for line in stream:
                yield QuarantinedRow.model_validate_json(line)


def known_ids(folder: Path, snapshot: Snapshot | None) -> Seen:
    """Ids of all examples that a snapshot holds."""
    known = Seen()
    for batch in read_tables(folder, snapshot.shards if snapshot else (), ["id"], batch_rows=65_536):
        known.add(hex_keys(batch.column(0)))
    return known


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, survive power loss."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _examples(batches: Iterator[Any]) -> Iterator[Example]:
    for batch in batches:
        for values in zip(*(batch.column(name).to_pylist() for name in EXAMPLE_COLUMNS), strict=True):
            yield Example(*values)


def _verified(folder: Path, file: FileDigest) -> BinaryIO:
    path = folder / file.path
    try:
        stream = path.open("rb")
    except OSError as error:
        raise Tampered(f"a recorded file cannot be opened: {error.strerror}", where=str(path), fix="run `dvc checkout`") from None
    try:
        if hashlib.file_digest(stream, "sha256").hexdigest() != file.sha256:
            raise Tampered(
                f"the file does not have the recorded digest {file.sha256[:12]}", where=str(path), fix="run `dvc checkout`"
            )
        stream.seek(0)
        return stream
    except BaseException:
        stream.close()
        raise

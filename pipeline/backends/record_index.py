"""Which row of which file an example is: a sorted file of keyed digests beside each Parquet file of examples.

An index can be made again from its file and the project's key at any time, so nothing rests on it but speed. It holds no text:
16-byte keyed digests of example ids and of levelled texts, and row numbers. Look-ups map the file and touch a few pages of it.
Layout, little-endian: 64 bytes of head (magic, key check, count), `count` digests of 16 bytes in order, `count` uint32 rows.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.curation.formats import level
from pipeline.curation.row_texts import row_texts
from pipeline.domain.data import Snapshot
from pipeline.domain.privacy import DIGEST_BYTES, digester, key_check, text_name
from pipeline.errors import Broken
from pipeline.ports import Progress, silent

_MAGIC = b"TLIDX001"
_HEAD = struct.Struct("<8s16sQ32x")
_DIGEST = np.dtype(f"S{DIGEST_BYTES}")
_BATCH = 16_384
_TEXTS_FROM = ("input", "output", "kind")


class FileIndex:
    """The indexes of one project, in `folder`, made with `key`. Implements ports.RecordIndex."""

    def __init__(self, folder: Path, key: bytes) -> None:
        self._folder = folder
        self._key = key
        self._check = bytes.fromhex(key_check(key))

    def has(self, name: str) -> bool:
        return self._open(name) is not None

    def add(self, name: str, table: Path) -> None:
        """Index the rows of a Parquet file under `name`, unless they are: by id and, where the columns are there, by text."""
        if not self.has(name):
            build(table, self._path(name), self._key)

    def rows(self, name: str, digests: Iterable[str]) -> list[int]:
        """Rows of what is indexed under `name` that any of `digests` (32 hex digits) names, in order.

        Raises Broken when it is not indexed.
        """
        opened = self._open(name)
        if opened is None:
            raise Broken("this file is not indexed", where=name, fix="run the command again: it makes what is missing")
        keys, numbers = opened
        wanted = np.frombuffer(bytes.fromhex("".join(digests)), _DIGEST)
        first, last = (np.searchsorted(keys, wanted, side) for side in ("left", "right"))
        named = np.flatnonzero(first < last).tolist()
        return sorted({row for one in named for row in numbers[first[one] : last[one]].tolist()})

    def remove(self, name: str) -> None:
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.idx"

    def _open(self, name: str) -> tuple[npt.NDArray[np.bytes_], npt.NDArray[np.uint32]] | None:
        """The digests and rows, mapped; None when they are not there, cut short, or of another key."""
        path = self._path(name)
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                magic, check, count = _HEAD.unpack(file.read(_HEAD.size))
        except (OSError, struct.error):
            return None
        if magic != _MAGIC or check != self._check or size != _HEAD.size + count * (DIGEST_BYTES + 4):
            return None
        if not count:
            return np.zeros(0, _DIGEST), np.zeros(0, np.uint32)
        keys: Any = np.memmap(path, _DIGEST, "r", _HEAD.size, (count,))
        rows: Any = np.memmap(path, "<u4", "r", _HEAD.size + count * DIGEST_BYTES, (count,))
        return keys, rows


def index_shards(folder: Path, snapshot: Snapshot, index: Path, key: bytes, workers: int = 1, progress: Progress = silent) -> int:
    """Index those shards of a snapshot (in `folder`) that are not indexed yet, and return how many they were.

    workers: how many processes do it; the files are the same however many they are.
    """
    there = FileIndex(index, key)
    todo = [(folder / shard.path, shard.sha256[:16]) for shard in snapshot.shards if not there.has(shard.sha256[:16])]
    jobs = [(table, index / f"{name}.idx", key) for table, name in todo]
    if min(len(jobs), workers) < 2:
        for done, job in enumerate(jobs, start=1):
            build(*job)
            progress("indexing records", done, len(jobs))
        return len(jobs)
    with ProcessPoolExecutor(min(len(jobs), workers), mp_context=get_context("forkserver")) as pool:
        for done, _ in enumerate(pool.map(build, *zip(*jobs, strict=True)), start=1):
            progress("indexing records", done, len(jobs))
    return len(jobs)


def build(table: Path, target: Path, key: bytes) -> None:
    """Write the index of one Parquet file at `target`, by rename. In memory: its digests, some 100 bytes each."""
    import pyarrow.parquet as pq

    digest = digester(key)
    digests: list[bytes] = []
    numbers: list[npt.NDArray[np.uint32]] = []
    row = 0
    with pq.ParquetFile(table) as file:
        texts = set(_TEXTS_FROM) <= set(file.schema_arrow.names)
        columns = ["id", *_TEXTS_FROM] if texts else ["id"]
        for batch in file.iter_batches(batch_size=_BATCH, columns=columns, use_threads=False):
            lists = [batch.column(name).to_pylist() for name in columns]
            counts = _digests(lists, digest, digests) if texts else _ids(lists[0], digest, digests)
            numbers.append(np.repeat(np.arange(row, row + batch.num_rows, dtype=np.uint32), counts))
            row += batch.num_rows
    keys = np.frombuffer(b"".join(digests), _DIGEST)
    rows = np.concatenate(numbers) if numbers else np.zeros(0, np.uint32)
    order = _in_order(keys)
    _write(target, bytes.fromhex(key_check(key)), keys[order], rows[order])


def _ids(ids: Sequence[str], digest: Callable[[str], bytes], out: list[bytes]) -> list[int]:
    out.extend(map(digest, ids))
    return [1] * len(ids)


def _digests(columns: Sequence[Sequence[str]], digest: Callable[[str], bytes], out: list[bytes]) -> list[int]:
    """Append the digests of each row to `out`, and return how many each row has."""
    counts = []
    for id, input, output, kind in zip(*columns, strict=True):
        texts = row_texts(input, output, kind)
        out.append(digest(id))
        out.extend([digest(text_name(level(text))) for text in texts])
        counts.append(1 + len(texts))
    return counts


def _in_order(keys: npt.NDArray[np.bytes_]) -> npt.NDArray[np.int64]:
    """The stable order of digests. Their first eight bytes decide nearly always, and numbers sort several times faster."""
    halves = keys.view(">u8").reshape(-1, 2)
    high, low = halves[:, 0].astype(np.uint64), halves[:, 1].astype(np.uint64)
    order = np.argsort(high, kind="stable")
    tied = high[order][1:] == high[order][:-1]
    if np.any(tied & (low[order][1:] < low[order][:-1])):
        order = np.lexsort((low, high))
    return order.astype(np.int64)


def _write(target: Path, check: bytes, keys: npt.NDArray[np.bytes_], rows: npt.NDArray[np.uint32]) -> None:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(_HEAD.pack(_MAGIC, check, len(keys)))
        file.write(np.ascontiguousarray(keys).tobytes())
        file.write(np.ascontiguousarray(rows, "<u4").tobytes())
    temporary.replace(target)

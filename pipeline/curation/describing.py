"""Writes what describes a snapshot into its folder: statistics of each new shard, and the dataset card.

A statistics file is made once, with its shard, and kept as long as the shard is; the card is made anew each time. The same
snapshot makes the same bytes. Files in place may be links into the data store's cache, so they are replaced by rename.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from pydantic import Field

from pipeline.curation.card import card
from pipeline.curation.shards import read_quarantine, read_tables, sync
from pipeline.curation.statistics import COLUMNS, Statistics, add_up, count
from pipeline.domain.data import Shard, Snapshot
from pipeline.domain.record import FileDigest, Value, canonical_json, digest_bytes
from pipeline.errors import Broken, Tampered

CARD = "README.md"
FOLDER = "statistics"

_BATCH = 65_536
_THREADS = 4
Kind = TypeVar("Kind", "Statistics", "Refusals")


class Refusals(Value):
    """Of one quarantine file, or of several together: rows by reason code."""

    codes: dict[str, int] = Field(default_factory=dict)


def write_description(folder: Path, snapshot: Snapshot) -> tuple[FileDigest, ...]:
    """Write statistics/ and README.md into the snapshot folder, and return their digests for `Snapshot.described`.

    snapshot: as it will be written, but for `described`, which is still that of the parent: statistics files that it lists, and
    that are what it says, are kept; all others are made from their shards. Statistics of shards that are gone are removed.
    Raises Tampered when a shard is not what was recorded.
    """
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    shards, counted = _each(folder, snapshot.shards, snapshot.described, Statistics, _count)
    refusals, refused = _each(folder, snapshot.quarantine, snapshot.described, Refusals, _count_refusals)
    listed = {file.path for file in (*counted, *refused)}
    for path in sorted((folder / FOLDER).iterdir()):
        if f"{FOLDER}/{path.name}" not in listed:
            path.unlink()
    described = (_put(folder, CARD, card(snapshot, add_up(shards), _sum(refusals))), *counted, *refused)
    sync(folder / FOLDER)
    sync(folder)
    return described


def read_description(folder: Path, snapshot: Snapshot) -> tuple[Statistics, dict[str, int]]:
    """(statistics of all shards together, quarantined rows by code) of a snapshot that was described.

    Raises Tampered when a file is missing or not what was recorded, Broken when a shard has none.
    """
    recorded = {file.path: file for file in snapshot.described}

    def read(shards: Sequence[Shard], kind: type[Kind]) -> list[Kind]:
        found = []
        for shard in shards:
            value = _kept(folder, recorded.get(_path(shard)), kind)
            if value is None:
                known = _path(shard) in recorded
                problem = "is not what was recorded" if known else "was not made with this snapshot"
                error: type[Broken] = Tampered if known else Broken
                raise error(
                    f"the statistics of a shard: the file {problem}",
                    where=str(folder / _path(shard)),
                    fix="run `dvc checkout`" if known else "the next `tuneline run` with fresh data makes it",
                )
            found.append(value)
        return found

    return add_up(read(snapshot.shards, Statistics)), _sum(read(snapshot.quarantine, Refusals))


def read_card(folder: Path, snapshot: Snapshot) -> str | None:
    """The dataset card of a snapshot; None for one that was made before there were any. Raises Tampered when it is not what was
    recorded."""
    file = next((file for file in snapshot.described if file.path == CARD), None)
    if file is None:
        return None
    path = folder / CARD
    content = path.read_bytes() if path.is_file() else b""
    if digest_bytes(content) != file.sha256:
        raise Tampered("the dataset card is not what was recorded", where=str(path), fix="run `dvc checkout`")
    return content.decode("utf-8")


def _each(
    folder: Path,
    shards: Sequence[Shard],
    described: Sequence[FileDigest],
    kind: type[Kind],
    make: Callable[[Path, Shard], Kind],
) -> tuple[list[Kind], list[FileDigest]]:
    """What each file says, kept or made, and the digests of the statistics files that say so."""
    trusted = {file.path: file for file in described}
    kept = [_kept(folder, trusted.get(_path(shard)), kind) for shard in shards]
    values, files = [], []
    # Counting happens in libraries that let other threads run meanwhile.
    with ThreadPoolExecutor(max_workers=min(_THREADS, os.cpu_count() or 1)) as pool:
        made = pool.map(lambda shard, known: known or make(folder, shard), shards, kept)
        for shard, known, value in zip(shards, kept, made, strict=True):
            text = canonical_json(value.model_dump(mode="json")) + "\n"
            files.append(trusted[_path(shard)] if known else _put(folder, _path(shard), text))
            values.append(value)
    return values, files


def _path(shard: Shard) -> str:
    return f"{FOLDER}/{Path(shard.path).stem}.json"


def _kept(folder: Path, file: FileDigest | None, kind: type[Kind]) -> Kind | None:
    """What a recorded statistics file says, or None when it is not there as it was recorded."""
    if file is None:
        return None
    try:
        content = (folder / file.path).read_bytes()
    except OSError:
        return None
    return kind.model_validate_json(content) if digest_bytes(content) == file.sha256 else None


def _put(folder: Path, path: str, text: str) -> FileDigest:
    content, final = text.encode(), folder / path
    temporary = final.with_name(f".{final.name}.tmp")
    temporary.write_bytes(content)
    sync(temporary)
    os.replace(temporary, final)
    return FileDigest(path=path, sha256=digest_bytes(content), bytes=len(content))


def _count(folder: Path, shard: Shard) -> Statistics:
    return count(read_tables(folder, [shard], COLUMNS, batch_rows=_BATCH))


def _count_refusals(folder: Path, shard: Shard) -> Refusals:
    return Refusals(codes=dict(sorted(Counter(row.code for row in read_quarantine(folder, [shard])).items())))


def _sum(parts: Sequence[Refusals]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part.codes)
    return dict(total)

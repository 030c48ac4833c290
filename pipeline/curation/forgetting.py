"""Takes forgotten rows out of a snapshot's files: shards that held one are written anew without it, all others stay as they are.

Nothing in place is changed: new files join the folder under the names of their content, and whoever writes snapshot.json removes
what it lists no more. Which rows are meant is told by keyed digests; who asked, and why, stands in the ledger.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pipeline.curation.formats import level
from pipeline.curation.row_texts import row_texts
from pipeline.curation.shards import SCHEMA, TableWriter, read_quarantine, sync
from pipeline.domain.data import QuarantinedRow, Shard, Snapshot
from pipeline.domain.privacy import digester, text_name
from pipeline.domain.record import canonical_json, digest_file
from pipeline.errors import Tampered

REDACTED = "forgotten on request"
RowsOf = Callable[[Shard], Sequence[int]]
"""The numbers of a shard's rows that are to go, ascending."""


def forgotten_rows(key: bytes, ids: Iterable[str], texts: Iterable[str]) -> Callable[[Any], list[bool]]:
    """A function that says of each row of a pyarrow table of examples whether it was forgotten.

    ids, texts: keyed digests of example ids and of levelled texts. Texts are only looked at when some text was forgotten.
    """
    digest = digester(key)
    gone_ids, gone_texts = ({bytes.fromhex(one) for one in kind} for kind in (ids, texts))

    def by_id(table: Any) -> list[bool]:
        return [digest(id) in gone_ids for id in table["id"].to_pylist()]

    def by_text(table: Any) -> list[bool]:
        columns = (table[name].to_pylist() for name in ("id", "input", "output", "kind"))
        return [
            digest(id) in gone_ids or any(digest(text_name(level(text))) in gone_texts for text in row_texts(*row))
            for id, *row in zip(*columns, strict=True)
        ]

    return by_text if gone_texts else by_id


def drop_forgotten(folder: Path, parent: Snapshot, tombstones: Iterable[str], rows_of: RowsOf) -> Snapshot:
    """`parent` without the rows that `rows_of` names, and with the tombstones; `parent` itself if that changes nothing.

    Shards that hold none of the rows keep their bytes and their place; one that loses all its rows is listed no more. Accepted
    rows of all sources stay rows + forgotten. The record is not written, nor is any file removed.
    Raises Tampered when a shard that is to be written anew is not what was recorded.
    """
    shards: list[Shard] = []
    gone = 0
    for shard in parent.shards:
        rows = list(rows_of(shard))
        gone += len(rows)
        if not rows:
            shards.append(shard)
        elif len(rows) < shard.rows:
            shards.append(_without(folder, shard, set(rows)))
    stones = tuple(sorted({*parent.tombstones, *tombstones}))
    if not gone and stones == parent.tombstones:
        return parent
    forgotten = parent.forgotten + gone
    return parent.model_copy(update={"shards": tuple(shards), "forgotten": forgotten, "tombstones": stones})


def redact_quarantine(folder: Path, snapshot: Snapshot, holds: Callable[[str], bool]) -> Snapshot:
    """`snapshot` with the bytes of those quarantined rows gone whose text `holds` something forgotten; their counts stay.

    The files are written anew below `folder`; those without such a row keep their bytes. Raises Tampered as reading does.
    """
    files = []
    for file in snapshot.quarantine:
        rows = list(read_quarantine(folder, [file]))
        redacted = [_redacted(row) if holds(quarantined_text(row)) else row for row in rows]
        files.append(_rewrite_quarantine(folder, redacted) if redacted != rows else file)
    return snapshot.model_copy(update={"quarantine": tuple(files)})


def quarantined_text(row: QuarantinedRow) -> str:
    """What is kept of a quarantined row, and why it is there, as text; bytes that are not UTF-8 as replacement characters."""
    raw = row.raw if row.raw_encoding == "utf-8" else base64.b64decode(row.raw).decode("utf-8", "replace")
    return f"{raw}\n{row.reason}"


def _without(folder: Path, shard: Shard, rows: set[int]) -> Shard:
    """The shard again, under the name of its new content, less the rows with these numbers. Row groups end where they did."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / shard.path
    if digest_file(path) != shard.sha256:
        raise Tampered(
            f"the shard does not have the recorded digest {shard.sha256[:12]}", where=str(path), fix="run `dvc checkout`"
        )
    writer = TableWriter(folder / "shards" / "forgetting.tmp")
    try:
        with pq.ParquetFile(path) as file:
            start = 0
            for group in range(file.num_row_groups):
                table = file.read_row_group(group).select(SCHEMA.names).cast(SCHEMA)
                writer.add_table(table.filter(pa.array([row not in rows for row in range(start, start + table.num_rows)])))
                start += table.num_rows
    except BaseException:
        writer.abandon()
        raise
    writer.close()
    return _named(writer.path, ".parquet", writer.rows)


def _redacted(row: QuarantinedRow) -> QuarantinedRow:
    return row.model_copy(update={"raw": "", "raw_encoding": "utf-8", "raw_bytes": 0, "reason": REDACTED})


def _rewrite_quarantine(folder: Path, rows: Sequence[QuarantinedRow]) -> Shard:
    path = folder / "quarantine" / "forgetting.tmp"
    with path.open("wb") as file:
        file.writelines(canonical_json(row.model_dump(mode="json")).encode() + b"\n" for row in rows)
    return _named(path, ".jsonl", len(rows))


def _named(path: Path, suffix: str, rows: int) -> Shard:
    """Give a finished file the name of its content, durably."""
    sync(path)
    sha256 = digest_file(path)
    final = path.with_name(sha256[:16] + suffix)
    path.replace(final)
    sync(final.parent)
    return Shard(path=f"{final.parent.name}/{final.name}", sha256=sha256, bytes=final.stat().st_size, rows=rows)

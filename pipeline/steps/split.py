"""Split: a validated snapshot into train, eval and test, by a stable hash of each row's group.

A row's side depends on its group and the salt alone (domain/splitting.py), so it never changes as data grows. Nothing is
shuffled, drawn or filtered here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.curation.shards import SCHEMA, TableWriter, read_tables
from pipeline.domain.data import Snapshot, Split, SplitFile, Splits, Task, ValidationReport
from pipeline.domain.record import digest_file
from pipeline.domain.splitting import assign
from pipeline.errors import Broken, Misuse
from pipeline.params import SplitParams
from pipeline.ports import Progress, silent

_BATCH = 65_536
_ORDER = (Split.TRAIN, Split.EVAL, Split.TEST)


def split(
    snapshot: Snapshot,
    validation: ValidationReport,
    params: SplitParams,
    *,
    folder: Path,
    out: Path,
    progress: Progress = silent,
) -> Splits:
    """Write train.parquet, eval.parquet, test.parquet and splits.json below `out`, from the snapshot in `folder`.

    Rows keep the snapshot's order and columns. The same snapshot and params make the same bytes.
    Raises Misuse when `validation` did not pass or is of another snapshot, or a side with a share gets no rows; Tampered when a
    shard is not what was recorded.
    """
    if validation.snapshot != snapshot.digest:
        raise Misuse("this validation report is of another snapshot", where=str(folder), fix="validate this snapshot first")
    if not validation.passed:
        failed = ", ".join(check.name for check in validation.failures) or "no checks were made"
        raise Misuse(f"the snapshot did not pass validation: {failed}", where=str(folder), fix="see validation.html")
    _clear(out)
    writers = {side: TableWriter(out / f"{side}.parquet.tmp") for side in _ORDER}
    labels: set[str] = set()
    done = 0
    try:
        for batch in read_tables(folder, snapshot.shards, SCHEMA.names, batch_rows=_BATCH):
            for side, table in _sides(batch, params).items():
                writers[side].add_table(table)
            if snapshot.task is Task.CLASSIFY:
                labels.update(batch.column("output").unique().to_pylist())
            done += batch.num_rows
            progress("splitting", done, snapshot.rows)
        if done != snapshot.rows:
            raise Broken(f"the shards hold {done} rows, and the snapshot says {snapshot.rows}", where=str(folder))
        _check_sizes({side: writer.rows for side, writer in writers.items()}, params, where=str(folder))
        files = {side: _finish(writer, out / f"{side}.parquet") for side, writer in writers.items()}
    except BaseException:
        for writer in writers.values():
            writer.abandon()
            writer.path.unlink(missing_ok=True)
        raise
    splits = Splits(
        snapshot=snapshot.digest,
        validation=validation.digest,
        params=params.model_dump(mode="json"),
        train=files[Split.TRAIN],
        eval=files[Split.EVAL],
        test=files[Split.TEST],
        labels=tuple(sorted(labels)),
    )
    splits.write(out / "splits.json")
    return splits


def _clear(out: Path) -> None:
    # Files here may be hard links into the data store's cache: they are unlinked and never written to.
    out.mkdir(parents=True, exist_ok=True)
    for name in ("splits.json", *(f"{side}.parquet{end}" for side in _ORDER for end in ("", ".tmp"))):
        (out / name).unlink(missing_ok=True)


def _sides(batch: Any, params: SplitParams) -> dict[Split, Any]:
    """The rows of a batch by side, in their order."""
    import pyarrow as pa

    table = pa.Table.from_batches([batch]).select(SCHEMA.names).cast(SCHEMA)
    sides = [
        assign(group, salt=params.salt, eval_share=params.eval, test_share=params.test) for group in table["group"].to_pylist()
    ]
    return {side: table.filter(pa.array([found is side for found in sides])) for side in _ORDER}


def _check_sizes(rows: dict[Split, int], params: SplitParams, *, where: str) -> None:
    """A side that was asked for and is empty would make everything measured on it vacuous."""
    shares = {Split.TRAIN: 1 - params.eval - params.test, Split.EVAL: params.eval, Split.TEST: params.test}
    for side, share in shares.items():
        if share > 0 and not rows[side]:
            fix = f"bring more data (groups of equal rows stay together), or change split.{side}"
            raise Misuse(
                f"no row fell to {side}, which should get {share:.0%} of {sum(rows.values())} rows",
                where=where,
                fix=fix if side is not Split.TRAIN else "bring more data, or lower split.eval and split.test",
            )


def _finish(writer: TableWriter, final: Path) -> SplitFile:
    writer.close()
    writer.path.replace(final)
    return SplitFile(path=final.name, sha256=digest_file(final), bytes=final.stat().st_size, rows=writer.rows)

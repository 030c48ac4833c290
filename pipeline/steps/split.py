"""Split: what curation left of a snapshot into train, eval and test. Sides are frozen, and what is held out stays unseen.

A group's side is drawn once (domain/splitting.py) and kept for good. Then rows to train on are compared with all that is held
out: both held sides, benchmarks and edge cases (curation/leaks.py). What leaks is a value in the record, not an exception.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.curation.keys import KEY, Keys, find, hex_keys
from pipeline.curation.leaks import check_leaks
from pipeline.curation.left_rows import BATCH_ROWS, LeftRows, dropped_ids
from pipeline.curation.shards import SCHEMA, TableWriter, read_tables
from pipeline.curation.sides import ORDER, Groups, Sides, draw, read_sides, write_sides
from pipeline.domain.curated import Curation, Frozen, Split, SplitFile, Splits, SplitSide
from pipeline.domain.data import CheckResult, Snapshot, Task
from pipeline.domain.record import digest_file
from pipeline.errors import Broken, Misuse
from pipeline.params import SplitParams
from pipeline.ports import Progress, silent

_HELD = (Split.EVAL, Split.TEST)


def split(
    snapshot: Snapshot,
    curation: Curation,
    params: SplitParams,
    *,
    folder: Path,
    curated: Path,
    out: Path,
    frozen: Frozen,
    frozen_folder: Path,
    reserved: Snapshot,
    reserved_folder: Path,
    progress: Progress = silent,
) -> Splits:
    """Write train/, eval/, test/ (a file for each shard of the snapshot in `folder` that has rows there), sides/, leaks.parquet
    and splits.json below `out`.

    curated: folder of `curation`, whose dropped rows are left out. frozen: the sides that groups have from before. reserved:
    rows that must not be trained on. Rows keep the snapshot's order and columns; the same inputs make the same bytes. When rows
    leak and params say block, the record's checks have failed and nothing may be trained on it.
    Raises Misuse when `curation` did not pass or is of another snapshot, or a side with a share gets no rows; Tampered when a
    file is not what was recorded.
    """
    _check_inputs(snapshot, curation, folder)
    rows = LeftRows(snapshot, folder, dropped_ids(curated, curation))
    _clear(out)
    try:
        progress("drawing sides", 0, snapshot.rows)
        groups = Groups.collect(rows.groups(params.stratify))
        _check_count(int(groups.rows.sum()), snapshot, curation, folder)
        sides, new = draw(groups, read_sides(frozen_folder, frozen.sides), params)
        _check_sizes(groups, sides, params, where=str(folder))
        written = write_sides(out / "sides", new)
        leaks = check_leaks(
            _held_out(rows, sides, reserved, reserved_folder),
            lambda: rows.on(sides, Split.TRAIN),
            params.leaks,
            out=out,
            progress=progress,
        )
        never = _groups_of(reserved, reserved_folder)
        parts, kept_out = _write_parts(rows, sides, leaks.drop, never, out, progress)
        labels = rows.labels() if snapshot.task is Task.CLASSIFY else ()
    except BaseException:
        _clear(out)
        raise
    splits = Splits(
        snapshot=snapshot.digest,
        validation=curation.validation,
        curation=curation.digest,
        frozen=frozen.digest,
        reserved=reserved.digest,
        params=params.model_dump(mode="json"),
        train=parts[Split.TRAIN],
        eval=parts[Split.EVAL],
        test=parts[Split.TEST],
        sides=(written,) if written else (),
        leaks=leaks.file,
        checks=leaks.checks + (_reserved_check(kept_out) if reserved.shards else ()),
        labels=labels,
    )
    splits.write(out / "splits.json")
    return splits


def _check_inputs(snapshot: Snapshot, curation: Curation, folder: Path) -> None:
    if curation.snapshot != snapshot.digest:
        raise Misuse("this curation is of another snapshot", where=str(folder), fix="curate this snapshot first")
    if not curation.passed:
        failed = ", ".join(check.name for check in curation.failures)
        raise Misuse(f"the snapshot did not pass curation: {failed}", where=str(folder), fix="see curation.html")


def _clear(out: Path) -> None:
    # Files here may be hard links into the data store's cache: they are unlinked and never written to.
    out.mkdir(parents=True, exist_ok=True)
    for name in (*(side.value for side in ORDER), "sides"):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in ("splits.json", "leaks.parquet"):
        (out / name).unlink(missing_ok=True)


def _held_out(rows: LeftRows, sides: Sides, reserved: Snapshot, folder: Path) -> Iterator[tuple[str, Any]]:
    """(name of the set, its rows) of everything that may not be trained on."""
    for side in _HELD:
        yield from ((side.value, batch) for batch in rows.on(sides, side))
    for batch in read_tables(folder, reserved.shards, SCHEMA.names, batch_rows=BATCH_ROWS):
        yield "reserved", batch


def _groups_of(reserved: Snapshot, folder: Path) -> Keys:
    """Sorted groups of the reserved rows: equal prompts, case and white space aside."""
    found = [hex_keys(batch.column("group")) for batch in read_tables(folder, reserved.shards, ["group"], batch_rows=BATCH_ROWS)]
    return np.unique(np.concatenate(found)) if found else np.zeros(0, KEY)


def _reserved_check(kept_out: int) -> tuple[CheckResult, ...]:
    """Whatever params say of leaks, a reserved prompt is not trained on; this says how often it would have been."""
    seen = f"{kept_out} more rows were left out of train"
    return (CheckResult(name="reserved", passed=True, expected="no benchmark or edge case is trained on", observed=seen),)


def _check_count(seen: int, snapshot: Snapshot, curation: Curation, folder: Path) -> None:
    if seen != snapshot.rows - curation.dropped.rows:
        said = f"the shards hold {seen} rows that are to be split, and the records say"
        raise Broken(f"{said} {snapshot.rows} less {curation.dropped.rows}", where=str(folder))


def _check_sizes(groups: Groups, sides: Sides, params: SplitParams, *, where: str) -> None:
    """A side that was asked for and is empty would make everything measured on it vacuous."""
    shares = {Split.TRAIN: 1 - params.eval - params.test, Split.EVAL: params.eval, Split.TEST: params.test}
    for side, share in shares.items():
        if share > 0 and not np.any(sides.numbers == ORDER.index(side)):
            fix = f"bring more data (groups of equal rows stay together), or change split.{side}"
            raise Misuse(
                f"no row fell to {side}, which should get {share:.0%} of {int(groups.rows.sum())} rows",
                where=where,
                fix=fix if side is not Split.TRAIN else "bring more data, or lower split.eval and split.test",
            )


def _write_parts(
    rows: LeftRows, sides: Sides, leaked: npt.NDArray[np.int64], never: Keys, out: Path, progress: Progress
) -> tuple[dict[Split, SplitSide], int]:
    """A file for each shard and side that has rows, and how many were kept out of train for being reserved.

    leaked: places among the rows to train on that are left out of them. never: groups that may not be trained on.
    """
    import pyarrow as pa

    parts: dict[Split, list[SplitFile]] = {side: [] for side in ORDER}
    done = trained = kept_out = 0
    for shard in rows.shards:
        name = Path(shard.path).name
        writers: dict[Split, TableWriter] = {}
        try:
            for table in rows.batches(shard):
                for side, part in _by_side(table, sides):
                    if side is Split.TRAIN:
                        places = np.arange(trained, trained + part.num_rows)
                        trained += part.num_rows
                        part = part.filter(pa.array(~np.isin(places, leaked)))
                        allowed = find(never, hex_keys(part["group"])) < 0
                        kept_out += int((~allowed).sum())
                        part = part.filter(pa.array(allowed))
                    if part.num_rows:
                        if side not in writers:
                            (out / side.value).mkdir(exist_ok=True)
                            writers[side] = TableWriter(out / side.value / f"{name}.tmp")
                        writers[side].add_table(part)
                done += table.num_rows
                progress("splitting", done, rows.count)
            for side, writer in writers.items():
                parts[side].append(_finish(writer, out, side, name))
        except BaseException:
            for writer in writers.values():
                writer.abandon()
            raise
    return {side: SplitSide(parts=tuple(files)) for side, files in parts.items()}, kept_out


def _by_side(table: Any, sides: Sides) -> Iterator[tuple[Split, Any]]:
    import pyarrow as pa

    numbers = sides.of(hex_keys(table["group"]))
    for number, side in enumerate(ORDER):
        yield side, table.filter(pa.array(numbers == number))


def _finish(writer: TableWriter, out: Path, side: Split, name: str) -> SplitFile:
    writer.close()
    final = out / side.value / name
    writer.path.replace(final)
    return SplitFile(path=f"{side.value}/{name}", sha256=digest_file(final), bytes=final.stat().st_size, rows=writer.rows)

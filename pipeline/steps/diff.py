"""What changed between two snapshots: rows by their ids, sources, statistics, params. Changes nothing.

Shards are append-only, so two snapshots are compared shard by shard; rows are read only where shards were rewritten.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.curation.describing import read_description
from pipeline.curation.shards import read_tables
from pipeline.curation.statistics import Statistics
from pipeline.domain.data import Shard
from pipeline.domain.snapshots import CountChange, PastSnapshot, SnapshotDiff
from pipeline.ports import Snapshots

_SAMPLES = 5
_NAMES = 20
_BATCH = 65_536


def diff(before: PastSnapshot, after: PastSnapshot, snapshots: Snapshots) -> SnapshotDiff:
    """Compare two snapshots of one model. Raises Tampered when a file that had to be read is not what was recorded."""
    old, new = before.snapshot, after.snapshot
    kept = {shard.sha256 for shard in old.shards} & {shard.sha256 for shard in new.shards}
    gone = [shard for shard in old.shards if shard.sha256 not in kept]
    come = [shard for shard in new.shards if shard.sha256 not in kept]
    names_before, names_after = {source.name for source in old.sources}, {source.name for source in new.sources}
    with snapshots.opened(before) as old_folder, snapshots.opened(after) as new_folder:
        rows = _compare_rows(old_folder, gone, new_folder, come)
        counts: dict[str, Any] = {}
        if old.described and new.described:
            was, refused_then = read_description(old_folder, old)
            now, refused_now = read_description(new_folder, new)
            counts = {**_compare_statistics(was, now), "quarantine": _changes(refused_then, refused_now)}
    return SnapshotDiff(
        before=before.digest,
        after=after.digest,
        rows_before=old.rows,
        rows_after=new.rows,
        shards_kept=len(kept),
        shards_added=len(come),
        shards_removed=len(gone),
        sources_added=tuple(sorted(names_after - names_before)),
        sources_removed=tuple(sorted(names_before - names_after)),
        forgotten=new.forgotten - old.forgotten,
        params=_compare_params(snapshots.params(before), snapshots.params(after)),
        **rows,
        **counts,
    )


def _compare_rows(old_folder: Path, gone: Sequence[Shard], new_folder: Path, come: Sequence[Shard]) -> dict[str, Any]:
    """Rows that only one side has. Where no shard is gone, every row of the new ones is new, and no id need be read."""
    if not gone or not come:
        return {
            "added": sum(shard.rows for shard in come),
            "removed": sum(shard.rows for shard in gone),
            "rewritten": False,
            "samples_added": _first_rows(new_folder, come),
            "samples_removed": _first_rows(old_folder, gone),
        }
    was, now = _ids(old_folder, gone), _ids(new_folder, come)
    lost, won = np.setdiff1d(was, now), np.setdiff1d(now, was)
    return {
        "added": len(won),
        "removed": len(lost),
        "rewritten": True,
        "samples_added": _places(new_folder, come, won[:_SAMPLES]),
        "samples_removed": _places(old_folder, gone, lost[:_SAMPLES]),
    }


def _ids(folder: Path, shards: Sequence[Shard]) -> Any:
    batches = [np.array(b.column(0).to_pylist(), dtype="S32") for b in read_tables(folder, shards, ["id"], batch_rows=_BATCH)]
    return np.concatenate(batches) if batches else np.array([], dtype="S32")


def _first_rows(folder: Path, shards: Sequence[Shard]) -> tuple[str, ...]:
    for batch in read_tables(folder, shards[:1], ["source", "line"], batch_rows=_SAMPLES):
        return tuple(f"{row['source']}:{row['line']}" for row in batch.to_pylist())
    return ()


def _places(folder: Path, shards: Sequence[Shard], ids: Any) -> tuple[str, ...]:
    wanted, found = {id.decode() for id in ids}, []
    for batch in read_tables(folder, shards, ["id", "source", "line"], batch_rows=_BATCH):
        found += [f"{row['source']}:{row['line']}" for row in batch.to_pylist() if row["id"] in wanted]
        if len(found) >= len(wanted):
            break
    return tuple(found)


def _compare_statistics(was: Statistics, now: Statistics) -> dict[str, Any]:
    lengths: dict[str, tuple[float, float]] = {}
    for side in ("input", "output"):
        old, new = getattr(was, side), getattr(now, side)
        lengths[f"{side} median"] = (old.quantile(0.5), new.quantile(0.5))
        lengths[f"{side} mean"] = (round(old.mean, 1), round(new.mean, 1))
    return {
        "kinds": _changes(was.kinds, now.kinds),
        "labels": _changes(was.labels.names, now.labels.names),
        "languages": _changes(was.languages, now.languages),
        "lengths": {name: values for name, values in lengths.items() if values[0] != values[1]},
    }


def _changes(was: Mapping[str, int], now: Mapping[str, int]) -> tuple[CountChange, ...]:
    """Names whose counts differ, those that differ most first."""
    changed = [CountChange(name=name, before=was.get(name, 0), after=now.get(name, 0)) for name in was.keys() | now.keys()]
    changed = [change for change in changed if change.before != change.after]
    return tuple(sorted(changed, key=lambda c: (-abs(c.after - c.before), c.name))[:_NAMES])


def _compare_params(was: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> dict[str, tuple[Any, Any]]:
    if was is None or now is None:
        return {}
    old, new = dict(_leaves(was)), dict(_leaves(now))
    return {key: (old.get(key), new.get(key)) for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)}


def _leaves(value: Mapping[str, Any], path: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, inner in value.items():
        found += _leaves(inner, f"{path}{key}.") if isinstance(inner, Mapping) and inner else [(f"{path}{key}", inner)]
    return found

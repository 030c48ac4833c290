"""Ingest: data files into the next snapshot. Every row ends in exactly one place, and the counts add up.

Only new files are read: one whose bytes an earlier snapshot lists is skipped. What rows mean is curation's knowledge; what is
done with a snapshot is the later steps'. Nothing here knows DVC or git.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import chain
from pathlib import Path

from pipeline.curation.files import Opened, find, open_checked
from pipeline.curation.intake import Intake, Tally
from pipeline.curation.reading import read_rows
from pipeline.curation.shards import BatchWriter, known_ids, sweep, sync
from pipeline.domain.data import Example, Snapshot, SourceFile, Task
from pipeline.errors import Misuse
from pipeline.params import IngestParams
from pipeline.ports import Progress, silent

_REPORT_ROWS = 10_000


def ingest(
    params: IngestParams,
    *,
    dataset: str,
    task: Task,
    sources: Sequence[Path],
    parent: Snapshot | None,
    folder: Path,
    root: Path | None = None,
    as_of: datetime | None = None,
    progress: Progress = silent,
) -> Snapshot:
    """Add the rows of new files below `sources` to the snapshot in `folder`, and return the snapshot that this makes.

    folder: holds the files of `parent`, which stay as they are; new shards and a quarantine file join them, and snapshot.json is
    replaced last, so a killed run changes nothing that counts. root: names in records are relative to it. as_of: files modified
    after this instant are left for later. Without new files `parent` is returned and nothing is touched.
    Raises BadInput for sources that are not readable data, TryLater for a file that is still being written, Misuse when `parent`
    is another dataset's, Tampered when a shard of `parent` is not what was recorded.
    """
    if parent is not None and (parent.dataset, parent.task) != (dataset, task):
        raise Misuse(
            f"the snapshot here is of {parent.dataset} ({parent.task}), not of {dataset} ({task})",
            where=str(folder),
            fix="give the dataset a name of its own, or start in an empty folder",
        )
    sweep(folder, parent)
    base = parent or Snapshot(dataset=dataset, task=task, parent=None, sources=(), shards=(), quarantine=())
    fresh = _fresh_files(sources, root, as_of, {source.sha256 for source in base.sources})
    first = next(fresh, None)
    if first is None:
        return parent or _write_snapshot(folder, base)
    intake = Intake(params, task, known_ids(folder, parent))
    writer = BatchWriter(folder)
    try:
        read = [_read_file(opened, intake, params, writer, progress) for opened in chain([first], fresh)]
        shards, quarantine = writer.publish()
        snapshot = base.model_copy(
            update={
                "parent": parent.digest if parent else None,
                "sources": base.sources + tuple(read),
                "shards": base.shards + shards,
                "quarantine": base.quarantine + quarantine,
                "fresh": len(read),
            }
        )
        return _write_snapshot(folder, snapshot)
    except BaseException:
        first.close()
        writer.abandon()
        sweep(folder, parent)
        raise


def _fresh_files(sources: Sequence[Path], root: Path | None, as_of: datetime | None, seen: set[str]) -> Iterator[Opened]:
    """Files whose bytes are new, opened one at a time; of two files with the same bytes the first."""
    for found in find(sources, root):
        if as_of is not None and found.modified > as_of.timestamp():
            continue
        opened = open_checked(found)
        if opened.sha256 in seen:
            opened.close()
        else:
            seen.add(opened.sha256)
            yield opened


def _read_file(opened: Opened, intake: Intake, params: IngestParams, writer: BatchWriter, progress: Progress) -> SourceFile:
    tally, name = Tally(), opened.found.name
    try:
        for item in intake.take(read_rows(opened, params), source=name, where=opened.found.where, tally=tally):
            if isinstance(item, Example):
                writer.accept(item)
            else:
                writer.reject(item)
            if tally.read % _REPORT_ROWS == 0:
                progress(f"reading {name}", tally.read, 0)
        opened.check_unchanged()
    finally:
        opened.close()
    progress(f"read {name}", tally.read, tally.read)
    return SourceFile(
        name=name,
        sha256=opened.sha256,
        bytes=opened.bytes,
        read=tally.read,
        accepted=tally.accepted,
        duplicate=tally.duplicate,
        quarantined=tally.quarantined,
    )


def _write_snapshot(folder: Path, snapshot: Snapshot) -> Snapshot:
    # The file in place may be a hard link into the data store's cache, so it is replaced and never written to.
    temporary = folder / "snapshot.json.tmp"
    snapshot.write(temporary)
    sync(temporary)
    os.replace(temporary, folder / "snapshot.json")
    sync(folder)
    return snapshot

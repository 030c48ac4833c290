"""Ingest: data files into the next snapshot. Every row ends in exactly one place, and the counts add up.

Only new files are read: one whose bytes an earlier snapshot lists is skipped. What rows mean is curation's knowledge; what is
done with a snapshot is the later steps'. Nothing here knows DVC or git.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import chain
from pathlib import Path

from pipeline.curation.desk import Desk, Forgotten
from pipeline.curation.files import Found, Opened, open_checked
from pipeline.curation.finding import LocalFiles
from pipeline.curation.intake import Intake
from pipeline.curation.row_rules import RowRules
from pipeline.curation.seen import Seen
from pipeline.curation.shards import BatchWriter, known_ids, sweep, sync
from pipeline.curation.workers import Workers
from pipeline.domain.data import Snapshot, Task
from pipeline.domain.licensing import ACCEPTED, check_license, license_fix
from pipeline.domain.record import FileDigest
from pipeline.errors import BadInput, Misuse
from pipeline.params import IngestParams
from pipeline.ports import Engine, Progress, Sources, silent

Forget = Callable[[Path, Snapshot], Snapshot]
"""Takes what was forgotten since out of a snapshot's files (curation/forgetting.py); the snapshot itself if there is nothing."""
Describe = Callable[[Path, Snapshot], tuple[FileDigest, ...]]
"""Writes what describes a snapshot into its folder, before snapshot.json; the snapshot is as it will be, but for this."""


def ingest(
    params: IngestParams,
    *,
    dataset: str,
    task: Task,
    sources: Sources | Sequence[Path],
    parent: Snapshot | None,
    folder: Path,
    root: Path | None = None,
    as_of: datetime | None = None,
    afresh: bool = False,
    rules: RowRules | None = None,
    licenses: Sequence[str] = ACCEPTED,
    forget: Forget | None = None,
    forgotten: Forgotten | None = None,
    describe: Describe | None = None,
    workers: int = 1,
    engine: Engine | None = None,
    progress: Progress = silent,
) -> Snapshot:
    """Add the rows of new files of `sources` to the snapshot in `folder`, and return the snapshot that this makes.

    sources: the port that finds what ingest.sources name; or files, folders and globs alone. folder: holds the files of `parent`,
    which stay as they are; new shards and a quarantine file join them, and snapshot.json is replaced last, so a killed run
    changes nothing that counts. root: names in records are relative to it. as_of: what is newer than this instant is left for
    later. afresh: all sources are read again, under the params of today; nothing of `parent` is kept but its name. rules: what
    each row must meet. licenses: the policy of domain/licensing.py, asked of each entry of `sources` before it is fetched.
    forget, forgotten: what was forgotten leaves the rows of `parent`, and does not come in with new ones. workers: how many
    processes take rows in; what is written does not depend on it. engine: who does so instead of processes of this machine.
    Without new files, or anything new to forget, `parent` is returned and nothing is touched.
    Raises BadInput for sources that are not readable data or whose licence is not accepted, TryLater for a file that is still
    being written, Misuse when `parent` is another dataset's, Tampered when a shard of `parent` is not what was recorded, Broken
    when a worker dies.
    """
    if parent is not None and (parent.dataset, parent.task) != (dataset, task):
        raise Misuse(
            f"the snapshot here is of {parent.dataset} ({parent.task}), not of {dataset} ({task})",
            where=str(folder),
            fix="give the dataset a name of its own, or start in an empty folder",
        )
    _check_licenses(params, licenses)
    sweep(folder, parent)
    base = _base(parent, dataset, task, afresh=afresh)
    if forget is not None:
        base = forget(folder, base)
    ways = LocalFiles(sources) if isinstance(sources, Sequence) else sources
    found = ways.find(params, root=root, as_of=as_of, earlier=base.sources)
    fresh = _fresh_files(found, as_of, {source.sha256 for source in base.sources})
    first = next(fresh, None)
    if first is None and base is parent:
        return parent
    writer = BatchWriter(folder)
    intake = Intake(task, params.max_line_bytes, params.max_depth, rules)
    try:
        with engine.crew(intake) if engine is not None else Workers(intake, workers) as crew:
            files = chain([first] if first else [], fresh)
            desk = Desk(intake, crew, writer, known_ids(folder, base) if first else Seen(), forgotten, progress)
            read = desk.take_in(files, params)
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
        if describe is not None:
            snapshot = snapshot.model_copy(update={"described": describe(folder, snapshot)})
        _write_snapshot(folder, snapshot)
    except BaseException:
        if first is not None:
            first.close()
        writer.abandon()
        sweep(folder, parent)
        raise
    if base is not parent:
        sweep(folder, snapshot)
    return snapshot


def _base(parent: Snapshot | None, dataset: str, task: Task, *, afresh: bool) -> Snapshot:
    """What is added to."""
    if parent is not None and not afresh:
        return parent
    empty = Snapshot(dataset=dataset, task=task, parent=None, sources=(), shards=(), quarantine=())
    return empty if parent is None else empty.model_copy(update={"tombstones": parent.tombstones})


def _check_licenses(params: IngestParams, accepted: Sequence[str]) -> None:
    """Refuse the first entry of ingest.sources that may not be used, before anything of it is fetched."""
    for source in params.sources:
        entry = params.entry_of(source)
        if problem := check_license(entry.license, accepted, public=entry.public):
            raise BadInput(problem, where=f"ingest.sources: {entry.origin}", fix=license_fix(entry.license))


def _fresh_files(found: Iterable[Found], as_of: datetime | None, seen: set[str]) -> Iterator[Opened]:
    """Files whose bytes are new, opened one at a time; of two files with the same bytes the first."""
    for one in found:
        if as_of is not None and one.modified > as_of.timestamp():
            continue
        opened = open_checked(one)
        if opened.sha256 in seen:
            opened.close()
        else:
            seen.add(opened.sha256)
            yield opened


def _write_snapshot(folder: Path, snapshot: Snapshot) -> Snapshot:
    # The file in place may be a hard link into the data store's cache, so it is replaced and never written to.
    temporary = folder / "snapshot.json.tmp"
    snapshot.write(temporary)
    sync(temporary)
    os.replace(temporary, folder / "snapshot.json")
    sync(folder)
    return snapshot

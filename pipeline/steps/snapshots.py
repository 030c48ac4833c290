"""Look at what was taken in: the list of snapshots, one of them whole, the rows that were refused. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from pipeline.curation.describing import read_card, read_description
from pipeline.curation.shards import read_quarantine
from pipeline.curation.statistics import Statistics
from pipeline.domain.data import QuarantinedRow, Snapshot
from pipeline.domain.record import Value, canonical_json
from pipeline.domain.snapshots import PastSnapshot
from pipeline.errors import Misuse
from pipeline.ports import Snapshots


class LogRow(Value):
    """A kept run's snapshot in a line. fresh: files that came with it; added: rows more than in the snapshot it follows, in which
    rows that were forgotten since are missing; verdict: what the run says of itself."""

    number: int
    kind: str
    at: datetime
    snapshot: str
    rows: int
    added: int | None
    fresh: int
    quarantined: int
    forgotten: int
    verdict: str


class Shown(Value):
    """A snapshot, its card, and its statistics; those are None when it was made before there were any."""

    run: str
    number: int
    kind: str
    at: datetime
    digest: str
    snapshot: Snapshot
    card: str | None
    statistics: Statistics | None
    quarantine: dict[str, int]


class QuarantinePage(Value):
    """Some quarantined rows of a snapshot, newest file first. matching: how many in all have the code that was asked for."""

    run: str
    snapshot: str
    matching: int
    skipped: int
    rows: tuple[QuarantinedRow, ...]


def list_snapshots(snapshots: Snapshots) -> tuple[LogRow, ...]:
    """Every kept run's snapshot, the newest first."""
    everything = snapshots.all()
    known = {past.digest: past.snapshot for past in everything}
    return tuple(_log_row(past, known.get(past.snapshot.parent or "")) for past in reversed(everything))


def show_snapshot(past: PastSnapshot, snapshots: Snapshots) -> Shown:
    """One snapshot with its card and statistics. Raises Tampered when a file is not what was recorded."""
    with snapshots.opened(past) as folder:
        text = read_card(folder, past.snapshot)
        statistics, quarantine = read_description(folder, past.snapshot) if text is not None else (None, {})
    return Shown(
        run=past.run,
        number=past.number,
        kind=past.kind,
        at=past.at,
        digest=past.digest,
        snapshot=past.snapshot,
        card=text,
        statistics=statistics,
        quarantine=quarantine,
    )


def page_quarantine(past: PastSnapshot, snapshots: Snapshots, *, code: str | None, skip: int, most: int) -> QuarantinePage:
    """At most `most` quarantined rows after the first `skip`, only those of a reason code if one is given."""
    rows: list[QuarantinedRow] = []
    matching = 0
    with snapshots.opened(past) as folder:
        for row in _refused(folder, past.snapshot, code):
            if skip <= matching < skip + most:
                rows.append(row)
            matching += 1
    return QuarantinePage(run=past.run, snapshot=past.digest, matching=matching, skipped=skip, rows=tuple(rows))


def export_quarantine(past: PastSnapshot, snapshots: Snapshots, *, code: str | None, out: Path) -> int:
    """Write all quarantined rows (of a reason code, if one is given) to a new JSONL file; returns how many.

    Raises Misuse when the file is there already, or cannot be made.
    """
    try:
        file = out.open("x", encoding="utf-8")
    except OSError as error:
        raise Misuse(f"this file cannot be made: {error.strerror}", where=str(out), fix="name a new file") from None
    written = 0
    with file, snapshots.opened(past) as folder:
        for row in _refused(folder, past.snapshot, code):
            file.write(canonical_json(row.model_dump(mode="json")) + "\n")
            written += 1
    return written


def _log_row(past: PastSnapshot, parent: Snapshot | None) -> LogRow:
    snapshot = past.snapshot
    return LogRow(
        number=past.number,
        kind=past.kind,
        at=past.at,
        snapshot=past.digest,
        rows=snapshot.rows,
        added=snapshot.rows - parent.rows if parent else snapshot.rows if snapshot.parent is None else None,
        fresh=len(snapshot.batch),
        quarantined=snapshot.quarantined,
        forgotten=snapshot.forgotten,
        verdict=past.ending,
    )


def _refused(folder: Path, snapshot: Snapshot, code: str | None) -> Iterator[QuarantinedRow]:
    for file in reversed(snapshot.quarantine):
        for row in read_quarantine(folder, [file]):
            if code is None or row.code == code:
                yield row

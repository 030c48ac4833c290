"""Where a record was seen: in which snapshots, on which side of which runs, by which releases. Pure values and their sums.

Finding the rows is steps/who_has.py's work, through ports; what a release is stands in domain/release.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Self

from pydantic import model_validator

from pipeline.domain.record import Value
from pipeline.domain.reigns import reigns
from pipeline.domain.release import Event, EventKind, ModelVersion, holder, revoked


class DataFile(Value):
    """A Parquet or JSONL file of a kept run. name: the first 16 digits of its SHA-256; of a side's file, those of the shard that
    its rows are of. md5: what the data store knows it by; empty when the run does not track it."""

    name: str
    md5: str
    rows: int = 0


class RunData(Value):
    """What a kept run says of its data. kind: run, data or invalid. sources: names of the files that its rows came from.

    sides: train, eval, test → its files, named after the shards that their rows come from. dropped: what curation left out.
    leaked: what decontamination found. A run that ended before a step has nothing of it.
    """

    run: str
    number: int
    kind: str
    tag: str
    commit: str
    snapshot: str
    sources: tuple[str, ...]
    shards: tuple[DataFile, ...]
    quarantine: tuple[DataFile, ...] = ()
    reserved: tuple[DataFile, ...] = ()
    sides: dict[str, tuple[DataFile, ...]]
    dropped: DataFile | None = None
    leaked: DataFile | None = None


class FoundRow(Value):
    """A row that is the record, or holds it. shard: the file's name; place: where it was read from, `source:line`."""

    id: str
    keyed: str
    shard: str
    row: int
    place: str


class RunSighting(Value):
    """How many of the rows a run's data held, and what became of them. left_out: rule or reason → rows.

    reserved: rows kept as benchmark or edge case, which are never trained on.
    """

    run: str
    number: int
    kind: str
    tag: str
    snapshot: str
    rows: int
    train: int = 0
    eval: int = 0
    test: int = 0
    reserved: int = 0
    left_out: dict[str, int]


class ReleaseSighting(Value):
    """A release whose run saw the record. holds: stages it holds now; held: stages it held before."""

    version: str
    run: str
    trained: int
    held_out: int
    holds: tuple[str, ...]
    held: tuple[str, ...]
    revoked: bool


class Tombstone(Value):
    """That a record was forgotten on request. event: of the ledger; runs, versions: which had it then. purged: whether stored
    copies were taken away, so that they can no longer be asked."""

    event: int
    purged: bool
    runs: tuple[str, ...]
    versions: tuple[str, ...]


class WhoHas(Value):
    """The answer to who-has. rows: the first ones found, of `count` in all; quarantined: places of quarantined rows that hold the
    text, when they were asked for. unreadable: files of past runs that could not be searched, and were not taken away on request.
    forgotten: the record's tombstone, if there is one."""

    model: str
    asked: str
    keyed: str
    count: int
    rows: tuple[FoundRow, ...]
    runs: tuple[RunSighting, ...]
    releases: tuple[ReleaseSighting, ...]
    quarantined: tuple[str, ...] = ()
    searched_quarantine: bool = False
    unreadable: tuple[str, ...] = ()
    forgotten: Tombstone | None = None

    @model_validator(mode="after")
    def _check_count(self) -> Self:
        if self.count < len(self.rows):
            raise ValueError("more rows are listed than were found")
        return self

    @property
    def found(self) -> bool:
        return bool(self.count or self.quarantined)


def release_sightings(events: Sequence[Event], runs: Sequence[RunSighting], stages: Sequence[str]) -> Iterator[ReleaseSighting]:
    """The releases among a model's events whose runs are in `runs`, oldest first."""
    by_tag = {run.tag: run for run in runs}
    named = tuple(dict.fromkeys([*stages, *sorted({e.stage for e in events if e.stage})]))
    gone = revoked(events)
    for event in events:
        if event.record is None or event.event is not EventKind.REGISTERED:
            continue
        run = by_tag.get(ModelVersion.from_json(event.record).tag)
        if run is None:
            continue
        holds = tuple(stage for stage in named if holder(events, stage) == event.version)
        held = tuple(s for s in named if s not in holds and any(r.version == event.version for r in reigns(events, s)))
        yield ReleaseSighting(
            version=event.version,
            run=run.run,
            trained=run.train,
            held_out=run.eval + run.test,
            holds=holds,
            held=held,
            revoked=event.version in gone,
        )

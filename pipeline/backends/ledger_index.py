"""What is kept beside a ledger's events so that questions about them need not read them all: an index, and signatures.

All of the index can be made again from the events, and `verify` does so and compares; it is never what a proof rests on. Rows
are written in the transaction of their event. Tables and rows only: SQL connections are ledger_store.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import sqlalchemy as sa

from pipeline.domain.release import TAKING, Event, EventKind, stack

tables = sa.MetaData()
index = sa.Table(
    "event_index",
    tables,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("stage", sa.Text),
    sa.Column("counts_from", sa.BigInteger, nullable=False),
    sa.Index("event_index_by_stage", "model", "stage", "sequence"),
    sa.Index("event_index_by_kind", "model", "kind", "sequence"),
)
holders = sa.Table(
    "holders",
    tables,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("stage", sa.Text, primary_key=True),
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("version", sa.Text),
    sa.Column("counts_from", sa.BigInteger, nullable=False),
    sa.Index("holders_by_time", "model", "stage", "counts_from", "sequence"),
)
signatures = sa.Table(
    "signatures",
    tables,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("signature", sa.Text, nullable=False),
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ENDS_REIGNS = (EventKind.REVOKED, EventKind.ERASED)
"""Events without a stage that belong to the history of each."""


class IndexRow(NamedTuple):
    """Of one event. counts_from: the latest time written so far, in microseconds since 1970; see domain/release.py's `until`."""

    model: str
    sequence: int
    kind: str
    stage: str | None
    counts_from: int


class HolderRow(NamedTuple):
    """From event `sequence` on, `version` holds `stage`; only changes have a row. None: nobody."""

    model: str
    stage: str
    sequence: int
    version: str | None
    counts_from: int


class Derived(NamedTuple):
    """What is written beside one event."""

    listed: IndexRow
    holders: tuple[HolderRow, ...]


def micros(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)


def derive(event: Event, before: int, held: Mapping[str, str | None], earlier: Callable[[], Iterable[Event]]) -> Derived:
    """The rows of one event. before: counts_from of the event before it. held: who holds each stage that has a holder's row.

    earlier: all events before it; asked for only when a version is revoked, which may bring back one from far below.
    """
    counts = max(before, micros(event.at))
    changes: dict[str, str | None] = {}
    if event.stage is not None and (event.event in TAKING or event.event is EventKind.ROLLED_BACK):
        changes[event.stage] = event.version
    if event.event is EventKind.REVOKED and event.version in held.values():
        seen = (*earlier(), event)
        changes = {stage: (stack(seen, stage) or (None,))[-1] for stage, holds in held.items() if holds == event.version}
    rows = tuple(
        HolderRow(event.model, stage, event.sequence, version, counts)
        for stage, version in sorted(changes.items())
        if held.get(stage) != version
    )
    return Derived(IndexRow(event.model, event.sequence, event.event.value, event.stage, counts), rows)


def derive_all(events: Iterable[Event]) -> tuple[list[IndexRow], list[HolderRow]]:
    """The rows of all events of a model."""
    seen: list[Event] = []
    found, changed = list[IndexRow](), list[HolderRow]()
    held: dict[str, str | None] = {}
    before = micros(datetime.min.replace(tzinfo=UTC))
    for event in events:
        made = derive(event, before, held, lambda: seen)
        before = made.listed.counts_from
        held |= {row.stage: row.version for row in made.holders}
        found.append(made.listed)
        changed.extend(made.holders)
        seen.append(event)
    return found, changed

"""The nouns of releases, and who holds a stage. Pure: events in, holders out. Storing events is backends/ledger.py's work.

Promotion pushes onto a stage's stack and rollback pops it, so a second rollback can not ping-pong back to the bad version.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from pydantic import AwareDatetime

from pipeline.domain.record import FileDigest, Record

GENESIS = "0" * 64
"""What the first event of a model names as the event before it."""


class ModelVersion(Record):
    """A registered version: the records that made it and the files that are it. `files` are relative to its artifact folder."""

    kind: ClassVar[str] = "model_version"

    name: str
    version: str
    run_id: str
    training: str
    evaluation: str
    decision: str
    adapter_digest: str
    files: tuple[FileDigest, ...]
    commit: str
    tag: str
    dirty: bool

    @property
    def parents(self) -> tuple[str, ...]:
        return (self.training, self.evaluation, self.decision)


class EventKind(StrEnum):
    REGISTERED = "registered"
    APPROVED = "approved"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    REVOKED = "revoked"
    ERASED = "erased"


class Event(Record):
    """One entry of the release ledger. `subject` is the digest of the ModelVersion that `version` names.

    sequence: 1, 2, 3 … without gaps within a model. previous: digest of the event before, GENESIS for the first.
    stage: for promoted and rolled_back. leaves: the version that held the stage before, where there was one; for a
    rollback it is always named, so that a retry after a crash finds its work done.
    """

    kind: ClassVar[str] = "event"

    model: str
    sequence: int
    previous: str
    event: EventKind
    version: str
    subject: str
    stage: str | None = None
    leaves: str | None = None
    actor: str
    reason: str
    at: AwareDatetime

    @property
    def parents(self) -> tuple[str, ...]:
        return (self.previous, self.subject)


class ReleaseRecord(Record):
    """The outcome of promote or rollback: who now holds the stage, and the event that says so (`changed` False: it already did)."""

    kind: ClassVar[str] = "release_record"

    model: str
    stage: str
    version: str | None
    previous: str | None
    event: str
    sequence: int
    changed: bool


def stack(events: Iterable[Event], stage: str) -> tuple[str, ...]:
    """Versions that hold or held `stage` and can be rolled back to, oldest first; the last one holds it now."""
    versions: list[str] = []
    for event in events:
        if event.event is EventKind.PROMOTED and event.stage == stage:
            versions.append(event.version)
        elif event.event is EventKind.ROLLED_BACK and event.stage == stage:
            while versions and versions[-1] != event.version:
                versions.pop()
        elif event.event is EventKind.REVOKED:
            versions = [v for v in versions if v != event.version]
    return tuple(versions)


def holder(events: Iterable[Event], stage: str, *, at: datetime | None = None) -> str | None:
    """The version that holds `stage` now, or at an instant (timezone-aware), or None."""
    seen = [e for e in events if at is None or e.at <= at]
    return (stack(seen, stage) or (None,))[-1]


def first_broken_link(events: Iterable[Event]) -> str | None:
    """What is wrong with the chain of one model's events, in sequence order; None when it holds."""
    previous, expected = GENESIS, 1
    for event in events:
        if event.sequence != expected:
            return f"event {expected} of {event.model} is missing: {event.sequence} follows"
        if event.previous != previous:
            return f"event {event.sequence} of {event.model} does not follow the event before it"
        previous, expected = event.digest, expected + 1
    return None

"""The nouns of releases, and what a model's events say: who holds a stage, since when, which version a text means.

Pure: events in, answers out. Storing events is backends/ledger.py's work; whether a stage may move is domain/moves.py's.
Promotion pushes onto a stage's stack and rollback pops it, so a second rollback can not ping-pong back to the bad version.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from itertools import takewhile
from typing import ClassVar, Self

from pydantic import AwareDatetime, model_validator

from pipeline.domain.record import FileDigest, Record, canonical_json, digest_bytes
from pipeline.errors import Broken, Misuse, Tampered

GENESIS = "0" * 64
"""What the first event of a model names as the event before it."""


class ModelVersion(Record):
    """A registered version: the records that made it and the files that are it. `files` are relative to its artifact folder.

    reports: what the run itself had logged by then (report page, data docs), relative to the run's artifact folder.
    """

    kind: ClassVar[str] = "model_version"

    name: str
    version: str
    run_id: str
    training: str
    evaluation: str
    decision: str
    adapter_digest: str
    files: tuple[FileDigest, ...]
    reports: tuple[FileDigest, ...] = ()
    commit: str
    tag: str
    dirty: bool

    @property
    def parents(self) -> tuple[str, ...]:
        return (self.training, self.evaluation, self.decision)

    @property
    def tags(self) -> dict[str, str]:
        """What the registry shows of this record; reconcile restores them."""
        return {
            "tuneline.record": self.digest,
            "tuneline.training": self.training,
            "tuneline.evaluation": self.evaluation,
            "tuneline.decision": self.decision,
            "tuneline.adapter": self.adapter_digest,
            "tuneline.commit": self.commit,
            "tuneline.tag": self.tag,
            "tuneline.dirty": str(self.dirty).lower(),
        }


class EventKind(StrEnum):
    REGISTERED = "registered"
    APPROVED = "approved"
    REFUSED = "refused"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    REVOKED = "revoked"
    ERASED = "erased"
    JUDGED = "judged"
    ADOPTED = "adopted"


TAKING = frozenset({EventKind.PROMOTED, EventKind.ADOPTED})
"""Events by which a version takes a stage: by a decision, or by a hand on the registry's alias that a person then stood by."""

OPINIONS = frozenset({EventKind.APPROVED, EventKind.REFUSED})
"""Events by which a person says whether a version should have a stage. They move nothing; the stages' rules count them."""

_OF_NO_VERSION = frozenset({EventKind.ERASED, EventKind.JUDGED})
"""Events that are not about a version: a record may be behind many or none, a candidate that is judged is none yet."""


class Event(Record):
    """One entry of the release ledger. `subject` is the digest of the ModelVersion that `version` names.

    sequence: 1, 2, 3 … without gaps within a model. previous: digest of the event before, GENESIS for the first.
    stage: for promoted, adopted, approved, refused and rolled_back. leaves: the version that held the stage before, where there
    was one; for a rollback it is always named, so that a retry after a crash finds its work done.
    record: for registered, the ModelVersion's JSON itself, so that the ledger alone knows every version; for erased, that of the
    Erasure (domain/erasure.py), for judged that of the HoldoutUse (domain/measured.py), which is the subject then.
    signer: id of the key that signed the event; the signature, which is over this record's JSON, is kept beside it.
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
    record: str | None = None
    signer: str | None = None

    def to_json(self) -> str:
        """As every record's; an unsigned event says nothing of a signer, as those did that were written before there were any."""
        said = {"kind": self.kind, **self.model_dump(mode="json")}
        if self.signer is None:
            del said["signer"]
        return canonical_json(said) + "\n"

    @classmethod
    def from_json(cls, text: str, *, where: str = "record", digest: str | None = None) -> Self:
        """As every record's, in one pass: ledgers are long, and all that is in an event is plain."""
        if digest is not None and digest_bytes(text.encode()) != digest:
            raise Tampered(f"the event does not have the digest {digest[:12]} it was filed under", where=where)
        try:
            said = json.loads(text)
            if not isinstance(said, dict) or said.pop("kind", None) != cls.kind:
                raise Broken("this is not an event record", where=where)
            return cls.model_validate(said)
        except (ValueError, RecursionError) as error:
            raise Broken(f"the event record cannot be read: {error}", where=where) from error

    @model_validator(mode="after")
    def _check_record(self) -> Self:
        if self.record is not None and digest_bytes(self.record.encode()) != self.subject:
            raise ValueError("the record in the event is not the one that its subject names")
        if self.of_no_version != (not self.version):
            raise ValueError("an event names a version, unless it says what was erased or that test rows were looked at")
        return self

    @property
    def of_no_version(self) -> bool:
        return self.event in _OF_NO_VERSION

    @property
    def parents(self) -> tuple[str, ...]:
        return (self.previous, self.subject)


class ReleaseRecord(Record):
    """The outcome of promote or rollback: who now holds the stage, by which event, and whether this call `changed` that."""

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
    for _, versions in moves_of(events, stage):  # noqa: B007 - the last one counts
        pass
    return tuple(versions)


def holder(events: Iterable[Event], stage: str, *, at: datetime | None = None) -> str | None:
    """The version that holds `stage` now, or at an instant (timezone-aware), or None."""
    seen = events if at is None else until(events, at)
    return (stack(seen, stage) or (None,))[-1]


def until(events: Iterable[Event], at: datetime) -> tuple[Event, ...]:
    """What had happened by an instant: always the first n events, whatever the clocks did.

    An event counts from the latest time written so far, so a clock that was set back puts no event before an earlier one.
    """
    return tuple(takewhile(lambda event: event.at <= at, events))


def registrations(events: Iterable[Event]) -> dict[str, Event]:
    """Version → the event that registered it, oldest first."""
    return {e.version: e for e in events if e.event is EventKind.REGISTERED}


def revoked(events: Iterable[Event]) -> frozenset[str]:
    return frozenset(e.version for e in events if e.event is EventKind.REVOKED)


def version_record(events: Sequence[Event], version: str) -> ModelVersion:
    """The ModelVersion that the ledger keeps for a version number. Raises Misuse, listing what there is, if there is none."""
    event = registrations(events).get(version)
    if event is None or event.record is None:
        raise Misuse(f"there is no version {version!r}", fix=_what_there_is(events))
    return ModelVersion.from_json(event.record, where=f"ledger, event {event.sequence}", digest=event.subject)


def resolve(events: Sequence[Event], text: str, stages: Sequence[str] = ()) -> str:
    """The version number that a person means by `3`, `v3`, a stage, or the first 8 or more digits of a record or adapter digest.

    Raises Misuse, listing what there is, when it means none or more than one.
    """
    known = registrations(events)
    number = re.fullmatch(r"v?([1-9][0-9]{0,17})", text)
    if number and number[1] in known:
        return number[1]
    if text in {*stages, *(e.stage for e in events if e.stage)}:
        held = holder(events, text)
        if held is None:
            raise Misuse(f"no version holds {text}", fix=_what_there_is(events))
        return held
    if re.fullmatch(r"[0-9a-f]{8,64}", text):
        found = [version for version, event in known.items() if _names(event, text)]
        if len(found) > 1:
            raise Misuse(f"{text!r} could be any of the versions {', '.join(found)}", fix="give more digits, or the version")
        if found:
            return found[0]
    raise Misuse(f"there is no version {text[:100]!r}", fix=_what_there_is(events))


def moves_of(events: Iterable[Event], stage: str) -> Iterator[tuple[Event, list[str]]]:
    """Each event that may touch the stage's stack, with the stack after it."""
    versions: list[str] = []
    for event in events:
        if event.event in TAKING and event.stage == stage:
            versions.append(event.version)
        elif event.event is EventKind.ROLLED_BACK and event.stage == stage:
            while versions and versions[-1] != event.version:
                versions.pop()
            versions = versions or [event.version]
        elif event.event is EventKind.REVOKED and event.version in versions:
            left = [v for v in versions if v != event.version]
            # What stood on both sides of the revoked version is now one entry: rolling back to oneself means nothing.
            versions = [v for i, v in enumerate(left) if i == 0 or v != left[i - 1]]
        else:
            continue
        yield event, versions


def _names(event: Event, prefix: str) -> bool:
    if event.subject.startswith(prefix):
        return True
    return event.record is not None and ModelVersion.from_json(event.record).adapter_digest.startswith(prefix)


def _what_there_is(events: Sequence[Event]) -> str:
    versions = list(registrations(events))
    stages = sorted({e.stage for e in events if e.stage and holder(events, e.stage)})
    shown = ", ".join(versions[-10:]) or "none"
    held = f"; stages held: {', '.join(stages)}" if stages else ""
    return f"versions: {'… ' if len(versions) > 10 else ''}{shown}{held}"

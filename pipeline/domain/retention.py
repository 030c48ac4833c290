"""What is kept when room is made: which runs, and which versions must lie at hand. Pure: events, runs, instants in, reasons out.

Every registered version is kept for ever with all that proves it. The rollback window only says whose bytes must lie here, and
not in the remote alone. Sizes, folders and removal are pipeline/collecting.py's work.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import ClassVar

from pydantic import AwareDatetime

from pipeline.domain.record import Record, Value
from pipeline.domain.reigns import reigns
from pipeline.domain.release import TAKING, Event, EventKind, registrations, revoked, stack, version_record


class RunMark(Value):
    """A kept run as its tag says it. kind: run, data or invalid. at: when it was kept."""

    tag: str
    kind: str
    number: int
    commit: str
    at: AwareDatetime


class KeptMark(Value):
    """Why a run is kept, and whether its bytes must lie at hand."""

    why: str
    near: bool


class Freed(Value):
    """One thing that was, or would be, removed. sort: of what kind it is; what: its name; bytes: the room that it gives back."""

    sort: str
    what: str
    bytes: int = 0


class Collected(Record):
    """What making room came to. dry: nothing was removed. kept: tag of each run that stays → why. left: what could not be
    looked at, a sentence each."""

    kind: ClassVar[str] = "collected"

    model: str
    dry: bool
    freed: tuple[Freed, ...]
    kept: dict[str, str]
    left: tuple[str, ...] = ()

    @property
    def totals(self) -> dict[str, tuple[int, int]]:
        """Sort → (how many, bytes)."""
        found: dict[str, tuple[int, int]] = {}
        for one in self.freed:
            count, size = found.get(one.sort, (0, 0))
            found[one.sort] = (count + 1, size + one.bytes)
        return found


def window(events: Sequence[Event], count: int) -> dict[str, str]:
    """Version → why its bytes must lie at hand: it is among the last `count` that held a stage, or can still come to hold one."""
    found: dict[str, str] = {}
    gone = revoked(events)
    for stage in sorted({event.stage for event in events if event.stage}):
        past = [reign.version for reign in reigns(events, stage)]
        for versions in (list(reversed(past)), list(reversed(stack(events, stage)))):
            for place, version in enumerate(list(dict.fromkeys(v for v in versions if v not in gone))[:count]):
                said = f"holds {stage}" if version in stack(events, stage)[-1:] else f"held {stage}, {place} before the last"
                found.setdefault(version, said)
    for version in _waiting(events):
        if version not in gone:
            found.setdefault(version, "waits to be approved or promoted")
    return found


def kept_marks(
    marks: Iterable[RunMark], events: Sequence[Event], *, newest: int, since: datetime, holders: int
) -> dict[str, KeptMark]:
    """Tag → why it stays, for each run that does: it made a version, is where the next one begins, is new, or young.

    newest: how many of a model's newest runs stay, whatever came of them; 1 at least. since: what was kept later stays. holders:
    how many holders of each stage lie at hand.
    """
    ordered = sorted(marks, key=lambda mark: mark.number)
    near, tags = window(events, holders), _tags(events)
    last = {mark.tag for mark in ordered[-max(newest, 1) :]}
    heads = _heads(ordered)
    found: dict[str, KeptMark] = {}
    for mark in ordered:
        if version := tags.get(mark.tag):
            said = near.get(version)
            young = mark.tag in last or mark.at >= since or mark.tag in heads
            why = f"made version {version}" + (f", which {said}" if said else "")
            found[mark.tag] = KeptMark(why=why, near=bool(said) or young)
        elif mark.tag in heads:
            found[mark.tag] = KeptMark(why=heads[mark.tag], near=True)
        elif mark.tag in last:
            found[mark.tag] = KeptMark(why="among the newest", near=True)
        elif mark.at >= since:
            found[mark.tag] = KeptMark(why=f"of {mark.at:%Y-%m-%d}", near=True)
    return found


def _waiting(events: Sequence[Event]) -> list[str]:
    """Versions newer than all that took a stage, and those approved for a stage that they have not taken since."""
    taken = {(event.version, event.stage): event.sequence for event in events if event.event in TAKING}
    made = {version: event.sequence for version, event in registrations(events).items()}
    newest = max((made[version] for version, _ in taken if version in made), default=0)
    approved = [
        event.version
        for event in events
        if event.event is EventKind.APPROVED and taken.get((event.version, event.stage), 0) < event.sequence
    ]
    return [*(version for version, sequence in made.items() if sequence > newest), *approved]


def _tags(events: Sequence[Event]) -> Mapping[str, str]:
    """Tag → the version that its run made."""
    return {version_record(events, version).tag: version for version in registrations(events)}


def _heads(ordered: Sequence[RunMark]) -> dict[str, str]:
    """The newest run that was gated, and the newest whose data was valid: what the next run looks at."""
    found: dict[str, str] = {}
    for kinds, why in ((("run", "data"), "the next run begins from it"), (("run",), "the newest that was gated")):
        of_kind = [mark for mark in ordered if mark.kind in kinds]
        if of_kind:
            found.setdefault(of_kind[-1].tag, why)
    return found

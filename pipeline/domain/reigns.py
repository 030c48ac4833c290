"""Times during which a version held a stage, and which events belong to a stage's history. Pure: events in, answers out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from pipeline.domain.record import Value
from pipeline.domain.release import Event, EventKind, moves_of, until


class Reign(Value):
    """A time during which one version held a stage: the event that began it, and the one that ended it (None: still holds)."""

    version: str
    since: Event
    until: Event | None = None


def reigns(events: Iterable[Event], stage: str) -> tuple[Reign, ...]:
    """Who held `stage`, one after the other, oldest first. Times in which nobody did lie between an end and the next start."""
    past: list[Reign] = []
    begun: tuple[str, Event] | None = None
    for event, versions in moves_of(events, stage):
        now = versions[-1] if versions else None
        if now == (begun[0] if begun else None):
            continue
        if begun:
            past.append(Reign(version=begun[0], since=begun[1], until=event))
        begun = (now, event) if now is not None else None
    if begun:
        past.append(Reign(version=begun[0], since=begun[1]))
    return tuple(past)


def reign_at(events: Sequence[Event], stage: str, when: datetime | None = None) -> Reign | None:
    """The reign in which an instant (default: now) falls."""
    seen = events if when is None else until(events, when)
    begun = [reign for reign in reigns(events, stage) if reign.since.sequence <= len(seen)]
    if not begun or (begun[-1].until is not None and begun[-1].until.sequence <= len(seen)):
        return None
    return begun[-1]


def of_stage(event: Event, stage: str | None) -> bool:
    """Whether an event belongs to the history of a stage: it names it, or ends reigns of any."""
    return stage is None or event.stage == stage or event.event in (EventKind.REVOKED, EventKind.ERASED)


def latest_of(events: Sequence[Event], stage: str | None, count: int) -> tuple[Event, ...]:
    """The last `count` events of a stage's history, oldest first."""
    return tuple(e for e in events if of_stage(e, stage))[-count:]

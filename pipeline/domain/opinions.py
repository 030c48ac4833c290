"""What people said about a version and a stage: each person's last word counts. Pure: events in, answers out.

A veto stands until whoever gave it approves of the same version for the same stage: nobody overrules another, nor does time.
"""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.domain.release import OPINIONS, Event, EventKind, registrations


def opinions(events: Iterable[Event], version: str, stage: str) -> dict[str, Event]:
    """Person → the last that they said of this very version (its record's digest) for `stage`, by the order of first words."""
    known = tuple(events)
    made = registrations(known).get(version)
    return {
        event.actor: event
        for event in known
        if event.event in OPINIONS
        and (event.version, event.stage) == (version, stage)
        and (made is None or event.subject == made.subject)
    }


def vetoes(events: Iterable[Event], version: str, stage: str) -> tuple[Event, ...]:
    """The vetoes that stand, oldest first."""
    said = opinions(events, version, stage).values()
    return tuple(sorted((event for event in said if event.event is EventKind.REFUSED), key=lambda event: event.sequence))

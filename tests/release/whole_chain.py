"""What is wrong with a model's chain of events, told by a reading of the rules that shares no code with the ledger's own."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.domain.release import GENESIS, Event


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

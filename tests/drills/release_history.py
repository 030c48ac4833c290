"""Whether what many processes did to a ledger, and saw of it, can have happened one after the other. Nothing is run here.

Each process writes down what it asked for, when, and what it was told. The ledger's order is the only order that may explain all
of it: every move that was told to have won is there once and where it was told, none that was told to have lost is, each decided
on what the one before it left, and no one saw a state from before something that had ended when it began to look.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "release"))

from whole_chain import first_broken_link

from pipeline.domain.release import OPINIONS, TAKING, Event, EventKind

Outcome = Literal["won", "held already", "lost", "unknown", "refused", "saw", "broken"]


@dataclass(frozen=True)
class Deed:
    """What one process did. began, ended: of a clock that all share. sequence: of the event that it was told of, or saw last.

    stage and version: for "saw", who was seen holding the stage ("" nobody), and for moves, what was moved.
    """

    name: str
    outcome: Outcome
    began: int
    ended: int
    stage: str = ""
    version: str = ""
    sequence: int = 0


def violations(events: Sequence[Event], deeds: Sequence[Deed]) -> list[str]:
    """Everything that cannot have happened one after the other, a sentence each; empty when all can."""
    return [
        *([broken] if (broken := first_broken_link(events)) else []),
        *(f"{deed.name} found the ledger broken: {deed.version}" for deed in deeds if deed.outcome == "broken"),
        *_lost_or_doubled(events, deeds),
        *_decided_on_something_else(events),
        *_out_of_order(events, deeds),
        *_seen_wrongly(events, deeds),
        *_lost_to_nobody(events, deeds),
    ]


def _lost_or_doubled(events: Sequence[Event], deeds: Sequence[Deed]) -> Iterator[str]:
    at: dict[str, list[int]] = {}
    for event in events:
        if event.event in TAKING or event.event is EventKind.ROLLED_BACK:
            at.setdefault(event.reason, []).append(event.sequence)
    told = {deed.name: deed for deed in deeds if deed.outcome != "saw"}
    for name, deed in told.items():
        there = at.get(name, [])
        if deed.outcome == "won" and there != [deed.sequence]:
            yield f"{name} was told that it won as event {deed.sequence}; it is at {there or 'no place'}"
        if deed.outcome in ("lost", "held already", "refused") and there:
            yield f"{name} was told that nothing was changed; it is at {there}"
        if deed.outcome == "unknown" and len(there) > 1:
            yield f"{name} was asked for once, and is at {there}"
    for name in at.keys() - told.keys():
        yield f"{name} is in the ledger, and nobody asked for it"


def _decided_on_something_else(events: Sequence[Event]) -> Iterator[str]:
    """Each move names what it leaves; that must be what the moves before it left."""
    stacks: dict[str, list[str]] = {}
    for event in events:
        if event.stage is None or event.event in OPINIONS:
            continue
        held = stacks.setdefault(event.stage, [])
        if event.leaves != (held[-1] if held else None):
            yield f"event {event.sequence} leaves {event.leaves}, while {held[-1] if held else None} held {event.stage}"
        if event.event is EventKind.ROLLED_BACK:
            if event.version not in held[:-1]:
                yield f"event {event.sequence} goes back to {event.version}, which {event.stage} had not held before"
                held[:] = [event.version]
                continue
            held.pop()
            while held[-1] != event.version:
                held.pop()
        else:
            if held and held[-1] == event.version:
                yield f"event {event.sequence} gives {event.stage} to {event.version}, which held it"
            held.append(event.version)


def _out_of_order(events: Sequence[Event], deeds: Sequence[Deed]) -> Iterator[str]:
    """A move that had ended before another began must come before it."""
    won = sorted((deed for deed in deeds if deed.outcome == "won"), key=lambda deed: deed.sequence, reverse=True)
    earliest = None
    for deed in won:
        if earliest is not None and earliest.ended < deed.began:
            yield f"{earliest.name} (event {earliest.sequence}) had ended before {deed.name} (event {deed.sequence}) began"
        if earliest is None or deed.ended < earliest.ended:
            earliest = deed


def _seen_wrongly(events: Sequence[Event], deeds: Sequence[Deed]) -> Iterator[str]:
    """What was seen must be what the events up to the one seen last say, and that must be neither too old nor yet to come."""
    holders = _holders(events)
    won = {deed.sequence: deed for deed in deeds if deed.outcome == "won"}
    ended = sorted((deed.ended, deed.sequence) for deed in won.values())
    newest, latest = list[tuple[int, int]](), 0
    for end, sequence in ended:
        latest = max(latest, sequence)
        newest.append((end, latest))
    for deed in deeds:
        if deed.outcome not in ("saw", "held already"):
            continue
        if deed.sequence > len(events):
            yield f"{deed.name} saw event {deed.sequence}, and there are {len(events)}"
            continue
        if deed.sequence in won and won[deed.sequence].began > deed.ended:
            yield f"{deed.name} saw event {deed.sequence} before it was asked for"
        if deed.outcome == "saw":
            must = _newest_before(newest, deed.began)
            if deed.sequence < must:
                yield f"{deed.name} saw event {deed.sequence} last, when event {must} had ended before"
            seen = {holders[at].get(deed.stage, "") for at in range(deed.sequence, _first_after(deed, events, won) + 1)}
            if deed.version not in seen:
                yield f"{deed.name} saw {deed.version or 'nobody'} hold {deed.stage}, as event {deed.sequence} was last: {seen}"


def _first_after(deed: Deed, events: Sequence[Event], won: dict[int, Deed]) -> int:
    """The last event that may have happened before `deed` had ended: a look at the head and one at the holder are two looks."""
    at = deed.sequence
    while at < len(events) and (at + 1 not in won or won[at + 1].began <= deed.ended):
        at += 1
    return at


def _newest_before(newest: Sequence[tuple[int, int]], began: int) -> int:
    from bisect import bisect_left

    at = bisect_left(newest, (began, 0))
    return newest[at - 1][1] if at else 0


def _lost_to_nobody(events: Sequence[Event], deeds: Sequence[Deed]) -> Iterator[str]:
    """Who lost must have lost to a move of the same stage that was under way at the same time."""
    moved: dict[str, list[tuple[int, int]]] = {}
    won = {deed.sequence: deed for deed in deeds if deed.outcome == "won"}
    sure = {event.sequence for event in events if event.sequence in won}
    unsure = {event.stage for event in events if event.sequence not in sure}
    for event in events:
        if event.stage and event.sequence in won:
            moved.setdefault(event.stage, []).append((won[event.sequence].began, won[event.sequence].ended))
    for deed in deeds:
        rivals = moved.get(deed.stage, [])
        if (
            deed.outcome == "lost"
            and deed.stage not in unsure
            and not any(b <= deed.ended and e >= deed.began for b, e in rivals)
        ):
            yield f"{deed.name} lost {deed.stage}, which nobody moved meanwhile"


def _holders(events: Sequence[Event]) -> list[dict[str, str]]:
    """Who holds each stage after 0, 1, 2 … events. Moves alone: nothing is revoked in a race."""
    found: list[dict[str, str]] = [{}]
    for event in events:
        now = found[-1]
        if event.stage and event.event not in OPINIONS:
            now = {**now, event.stage: event.version}
        found.append(now)
    return found

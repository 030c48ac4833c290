"""What becomes of a version that waits for people: wait on, take the stage, or end. Pure: events and instants in, answers out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import AwareDatetime

from pipeline.domain.notices import Notice, NoticeKind
from pipeline.domain.opinions import vetoes
from pipeline.domain.record import Value
from pipeline.domain.reigns import reigns
from pipeline.domain.release import Event, holder, registrations, revoked
from pipeline.domain.stage_rules import StageRules


class Turn(StrEnum):
    """What to do about a version that waits."""

    WAIT = "waiting"
    READY = "ready"
    HELD = "promoted"
    REFUSED = "refused"
    REVOKED = "revoked"
    OVERTAKEN = "overtaken"
    EXPIRED = "expired"


class Waiting(Value):
    """A version that waits for a stage. missing: all that the stage still asks for, a sentence each."""

    model: str
    version: str
    stage: str
    since: AwareDatetime
    missing: tuple[str, ...]
    refused: bool = False

    @property
    def how(self) -> str:
        return f"tuneline approve {self.version} --to {self.stage} --reason …, or tuneline refuse with the same words"


def turn_of(
    events: Sequence[Event], version: str, stage: str, missing: Sequence[str], *, now: datetime, expires: datetime
) -> tuple[Turn, str]:
    """What to do, and why, in a sentence. missing: what the stage's rules still ask for.

    All that is asked for being there comes before the end of the wait: nobody's approval is lost by a look that comes late.
    """
    held = holder(events, stage)
    made = registrations(events)
    if version in revoked(events):
        return Turn.REVOKED, f"version {version} was revoked"
    if held == version:
        return Turn.HELD, f"version {version} holds {stage}"
    against = vetoes(events, version, stage)
    if against:
        last = against[-1]
        return Turn.REFUSED, f"{last.actor} refused version {version} for {stage}: {last.reason}"
    if held in made and version in made and made[held].sequence > made[version].sequence:
        return Turn.OVERTAKEN, f"the newer version {held} holds {stage} by now"
    if not missing:
        return Turn.READY, f"all that {stage} asks of version {version} is there"
    if now >= expires:
        return Turn.EXPIRED, f"nobody is waited for after {expires:%Y-%m-%d %H:%M} UTC; still missing: {'; '.join(missing)}"
    return Turn.WAIT, "; ".join(missing)


def candidates(events: Sequence[Event], stages: Mapping[str, StageRules]) -> tuple[tuple[str, str], ...]:
    """(version, stage) of those that wait for people.

    For each stage that asks for approvals: of the versions that are newer than who holds it and have not held it, the newest, and
    every one of which somebody said something.
    """
    made, gone = registrations(events), revoked(events)
    found: list[tuple[str, str]] = []
    for stage, rules in stages.items():
        if not rules.approvals.count:
            continue
        held = holder(events, stage)
        after = made[held].sequence if held in made else 0
        had = {reign.version for reign in reigns(events, stage)}
        named = {e.version for e in events if e.stage == stage}
        newer = [v for v, event in made.items() if event.sequence > after and v not in gone and v not in had]
        found += [(v, stage) for v in newer if v in named or v == newer[-1]]
    return tuple(found)


def reminder(since: datetime, now: datetime, hours: float) -> int:
    """Which telling is due: 0 when the wait begins, then one more every `hours`. A clock that was set back gives none anew."""
    return max(int((now - since) / timedelta(hours=hours)), 0)


def awaiting(wait: Waiting, *, number: int, key: str, expires: datetime, where: str | None = None) -> Notice:
    """The notice that somebody is waited for. key: names the wait. where: the page on which it can be answered."""
    again = f" (told {number + 1} times)" if number else ""
    lines = [f"missing: {said}" for said in wait.missing]
    lines.append(f"answer with {wait.how}" + (f", or on {where}" if where else ""))
    lines.append(f"nobody is waited for after {expires:%Y-%m-%d %H:%M} UTC")
    title = f"{wait.model}: version {wait.version} waits for {wait.stage}{again}"
    return Notice(
        kind=NoticeKind.AWAITING_APPROVAL, model=wait.model, title=title, lines=tuple(lines), id=f"waiting-{key}-{number}"
    )


def ended(wait: Waiting, turn: Turn, why: str, *, key: str) -> Notice | None:
    """The notice that a wait ended without a promotion, unless an event of the ledger tells of that."""
    if turn not in (Turn.EXPIRED, Turn.OVERTAKEN):
        return None
    title = f"{wait.model}: version {wait.version} no longer waits for {wait.stage}"
    return Notice(kind=NoticeKind.REFUSED, model=wait.model, title=title, lines=(why, "nothing was promoted"), id=f"ended-{key}")

"""Whether a stage may move: promotion and rollback as pure decisions over a model's events.

What is decided here is carried out by pipeline/moving.py. Nothing here reads files, aliases or clocks. `events` are all
of a model's, or those that concern the move and the last one (ports.Ledger.concerning): a decision comes out the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from pipeline.domain.record import Value
from pipeline.domain.reigns import reigns
from pipeline.domain.release import TAKING, Event, EventKind, revoked, stack, version_record
from pipeline.errors import Conflict, Misuse, RulesUnmet

CLEAN_STAGE = "production"
"""The stage that no version from a dirty tree may reach: what ran there must be rebuildable from a commit."""


class Move(Value):
    """What is to be appended as sequence `expected` + 1. `done`: the event that already did it, when there is nothing to do."""

    stage: str
    version: str
    leaves: str | None
    expected: int
    done: Event | None = None


def plan_promotion(
    events: Sequence[Event], version: str, stage: str, *, unmet: Callable[[Sequence[Event]], Sequence[str]] = lambda _: ()
) -> Move:
    """Push `version` onto `stage`. Raises Misuse when it is unknown, revoked, or dirty and bound for production.

    unmet: what the stage's rules miss of it (domain/stage_rules.py); all of it is said in one RulesUnmet. Who holds the stage
    already is not asked again.
    """
    record = version_record(events, version)
    if version in revoked(events):
        raise Misuse(f"version {version} was revoked and can hold no stage", fix="promote another version")
    if record.dirty and stage == CLEAN_STAGE:
        raise Misuse(
            f"version {version} was made from uncommitted changes and cannot reach {stage}",
            where=record.tag,
            fix="commit the changes, run again, and promote the version that this makes",
        )
    current = (stack(events, stage) or (None,))[-1]
    done = reigns(events, stage)[-1].since if current == version else None
    if done is None and (missing := tuple(unmet(events))):
        raise RulesUnmet("\n".join([f"{stage} does not take version {version} yet:", *(f"  - {said}" for said in missing)]))
    return Move(stage=stage, version=version, leaves=current, expected=_head(events), done=done)


def plan_rollback(events: Sequence[Event], stage: str, *, to: str | None, leaving: str) -> Move:
    """Pop `leaving` off `stage`, down to `to` or to the version before it.

    Done already, when `leaving` was rolled back since it last took the stage and no promotion followed. Raises Conflict when
    another version holds the stage, Misuse when `leaving` never held it or there is nothing to go back to.
    """
    held = stack(events, stage)
    current = held[-1] if held else None
    if current != leaving or current == to:
        last = _last_move(events, stage)
        if last and current is not None and _did(last, leaving=leaving, to=to, current=current):
            return Move(stage=stage, version=current, leaves=leaving, expected=_head(events), done=last)
        raise _not_held(events, stage, leaving, current)
    below = held[:-1]
    if not below:
        raise Misuse(
            f"{stage} has held no version before {leaving}, so there is nothing to roll back to",
            fix="promote another version",
        )
    if to is not None and to not in below:
        raise Misuse(
            f"version {to} has not held {stage} before {leaving}",
            fix=f"roll back to one of {', '.join(dict.fromkeys(reversed(below)))}, or promote {to}",
        )
    return Move(stage=stage, version=to or below[-1], leaves=leaving, expected=_head(events))


def touched(events: Iterable[Event], stage: str) -> Event | None:
    """The first of `events` after which a decision about `stage` has to be taken anew, or None."""
    unsettling = {EventKind.REVOKED, EventKind.ERASED}
    return next((e for e in events if (e.stage == stage and e.event in _MOVING) or e.event in unsettling), None)


def _head(events: Sequence[Event]) -> int:
    return events[-1].sequence if events else 0


_MOVING = TAKING | {EventKind.ROLLED_BACK}


def _did(last: Event, *, leaving: str, to: str | None, current: str) -> bool:
    if current == to and leaving == current:
        # Going back to where one is: nothing to do, whoever brought it there.
        return True
    return last.event is EventKind.ROLLED_BACK and last.leaves == leaving and to in (None, last.version)


def _last_move(events: Sequence[Event], stage: str) -> Event | None:
    return next((e for e in reversed(events) if e.stage == stage and e.event in _MOVING), None)


def _not_held(events: Sequence[Event], stage: str, leaving: str, current: str | None) -> Misuse | Conflict:
    if not any(e.stage == stage and e.version == leaving for e in events):
        return Misuse(f"version {leaving} has never held {stage}", fix=f"{current or 'no version'} holds it now")
    return Conflict(
        f"{stage} is held by {current or 'no version'}, not by {leaving} which was to be rolled back; nothing was changed",
        fix="look at tuneline history, and decide again",
    )

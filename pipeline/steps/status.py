"""Tell who holds what since when, and which versions wait for people: looked up, rather than all events read. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from pipeline.domain.opinions import vetoes
from pipeline.domain.release import Event, EventKind, registrations
from pipeline.domain.stage_rules import StageRules
from pipeline.domain.standing import Held
from pipeline.domain.waiting import Waiting, candidates
from pipeline.ports import Ledger

NEWEST = 200
"""How far back a version is looked for that waits."""

_HOW = {EventKind.PROMOTED: "promoted", EventKind.ADOPTED: "adopted", EventKind.ROLLED_BACK: "rolled back to"}


def holders(model: str, stages: Sequence[str], *, ledger: Ledger) -> dict[str, Held | None]:
    """Stage → who holds it."""
    return {stage: _held(model, stage, ledger) for stage in dict.fromkeys([*stages, *ledger.stages(model)])}


def waiting(
    model: str, rules: Mapping[str, StageRules], *, ledger: Ledger, missing: Callable[[str, str], tuple[str, ...]]
) -> tuple[Waiting, ...]:
    """The versions that wait for a stage which asks for people. missing: what (version, stage) still lack."""
    events = newest_events(model, ledger)
    made = registrations(events)
    return tuple(
        Waiting(
            model=model,
            version=version,
            stage=stage,
            since=made[version].at,
            missing=missing(version, stage),
            refused=bool(vetoes(events, version, stage)),
        )
        for version, stage in candidates(events, rules)
    )


def differing(model: str, stages: Sequence[str], aliases: Mapping[str, str], *, ledger: Ledger) -> Iterator[str]:
    """Where the registry's aliases do not say what the ledger says, a sentence each."""
    for stage in dict.fromkeys([*stages, *ledger.stages(model)]):
        named, right = aliases.get(stage), ledger.holder(model, stage)
        if named != right:
            yield f"MLflow's alias {stage} names {named or 'nothing'}; the ledger says {right or 'nobody'}: tuneline reconcile"


def newest_events(model: str, ledger: Ledger) -> tuple[Event, ...]:
    """The newest events of all and of each stage, and those by which holders were registered: on them candidates come out as on
    all, unless somebody waits for longer than they reach back."""
    events = {event.sequence: event for event in ledger.latest(model, count=NEWEST)}
    for stage in ledger.stages(model):
        events |= {event.sequence: event for event in ledger.latest(model, stage, count=NEWEST)}
        held = ledger.holder(model, stage)
        if held and (made := ledger.registration(model, held)):
            events[made.sequence] = made
    return tuple(events[sequence] for sequence in sorted(events))


def _held(model: str, stage: str, ledger: Ledger) -> Held | None:
    reign = ledger.reign(model, stage)
    if reign is None or reign.until is not None:
        return None
    event = reign.since
    how = _HOW.get(event.event, f"{event.event.value} {event.version}, which gave it back to")
    return Held(version=reign.version, since=event.at, how=how, by=event.actor, why=event.reason, event=event.sequence)

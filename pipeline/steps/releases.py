"""List a model's versions: when each was registered, by whom, which stages it holds, what it measured. Changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pipeline.domain.opinions import opinions
from pipeline.domain.record import Value
from pipeline.domain.release import OPINIONS, Event, EventKind, holder, registrations, revoked, version_record
from pipeline.errors import Misuse
from pipeline.moving import known_events
from pipeline.ports import Ledger, Registry

METRIC_TAG = "tuneline.metric."


class ReleaseRow(Value):
    """A version. metrics: metric → value and interval, from the registry's tags. missing: the registry has lost the version."""

    version: str
    registered_at: datetime
    registered_by: str
    reason: str
    stages: tuple[str, ...]
    approvals: tuple[str, ...]
    vetoes: tuple[str, ...] = ()
    revoked: bool
    dirty: bool
    missing: bool
    run_id: str
    tag: str
    subject: str
    metrics: dict[str, str]


def releases(model: str, *, ledger: Ledger, registry: Registry | None = None) -> tuple[ReleaseRow, ...]:
    """All versions of a model, newest first; without `registry`, metrics stay empty. Raises Misuse for an unknown model."""
    events = known_events(model, ledger)
    held = {stage: holder(events, stage) for stage in _stages(events)}
    said: dict[tuple[str, EventKind], list[str]] = {}
    for (version, stage), whose in _opinions(events).items():
        for event in whose:
            said.setdefault((version, event.event), []).append(f"{event.actor} for {stage}")
    withdrawn = revoked(events)
    rows = []
    for version, event in reversed(registrations(events).items()):
        record = version_record([event], version)
        tags = _tags(model, version, registry)
        rows.append(
            ReleaseRow(
                version=version,
                registered_at=event.at,
                registered_by=event.actor,
                reason=event.reason,
                stages=tuple(stage for stage, holds in held.items() if holds == version),
                approvals=tuple(said.get((version, EventKind.APPROVED), ())),
                vetoes=tuple(said.get((version, EventKind.REFUSED), ())),
                revoked=version in withdrawn,
                dirty=record.dirty,
                missing=tags is None,
                run_id=record.run_id,
                tag=record.tag,
                subject=event.subject,
                metrics={k.removeprefix(METRIC_TAG): v for k, v in (tags or {}).items() if k.startswith(METRIC_TAG)},
            )
        )
    return tuple(rows)


def _opinions(events: Sequence[Event]) -> dict[tuple[str, str], tuple[Event, ...]]:
    """(version, stage) → each person's last word on it, in the ledger's order."""
    named = dict.fromkeys((e.version, e.stage) for e in events if e.event in OPINIONS and e.stage)
    return {(version, stage): tuple(opinions(events, version, stage).values()) for version, stage in named if stage}


def _stages(events: tuple[Event, ...]) -> list[str]:
    return sorted({e.stage for e in events if e.stage})


def _tags(model: str, version: str, registry: Registry | None) -> dict[str, str] | None:
    """None when the registry does not know the version."""
    if registry is None:
        return {}
    try:
        return registry.version_tags(model, version)
    except Misuse:
        return None

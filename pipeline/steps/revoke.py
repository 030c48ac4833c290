"""Revoke a version: one event takes it off every stage at once, for good; the stages go back to what they held before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from pipeline.domain.record import Value
from pipeline.domain.release import Event, EventKind, resolve, revoked, stack, version_record
from pipeline.domain.stage_rules import Roles, StageRules
from pipeline.domain.wording import check_words
from pipeline.errors import Conflict, Stale, Tampered, TryLater
from pipeline.moving import ATTEMPTS, Anchor, known_events, no_anchor, refuse_damaged, refuse_others, show_or_tell, utc_now
from pipeline.ports import Ledger, Registry


class Revocation(Value):
    """What a revocation changed. stages: each stage that the version held → who holds it now (None: nobody)."""

    model: str
    version: str
    event: str
    sequence: int
    stages: dict[str, str | None]
    changed: bool


def revoke(
    version: str,
    by: str,
    reason: str,
    *,
    model: str,
    registry: Registry,
    ledger: Ledger,
    stages: Sequence[str] = (),
    rules: Mapping[str, StageRules] | None = None,
    roles: Roles | None = None,
    anchor: Anchor = no_anchor,
    now: Callable[[], datetime] = utc_now,
) -> Revocation:
    """Take `version` off every stage, and out of every rollback. Safe to repeat; there is no way back.

    Raises RulesUnmet when `by` has no role for a stage that it holds, Tampered when the files of the version that would hold a
    stage then are not those that were registered: nothing was changed, and another is to be promoted first.
    """
    check_words(actor=by, reason=reason)
    for _ in range(ATTEMPTS):
        events = known_events(model, ledger)
        record = version_record(events, resolve(events, version, stages))
        held = {stage: stack(events, stage) for stage in dict.fromkeys([*stages, *(e.stage for e in events if e.stage)])}
        touched = {stage: below for stage, below in held.items() if record.version in below}
        if record.version in revoked(events):
            done = next(e for e in events if e.event is EventKind.REVOKED and e.version == record.version)
            return _settled(done, tuple(held), events[: done.sequence - 1], registry, ledger, anchor, changed=False)
        for stage in touched:
            refuse_others(stage, rules, by, roles)
        for stage, below in touched.items():
            _refuse_damaged_heir(stage, [v for v in below if v != record.version], events, below[-1] == record.version, registry)
        try:
            event = ledger.append(
                model,
                EventKind.REVOKED,
                expected=len(events),
                version=record.version,
                subject=record.digest,
                stage=None,
                leaves=None,
                actor=by,
                reason=reason,
                at=now(),
            )
        except Stale:
            raise
        except Conflict:
            continue
        return _settled(event, tuple(held), events, registry, ledger, anchor, changed=True)
    raise TryLater(f"the ledger of {model} is busier than {ATTEMPTS} tries", fix="try again")


def _refuse_damaged_heir(stage: str, left: list[str], events: Sequence[Event], holds: bool, registry: Registry) -> None:
    if not (holds and left):
        return
    try:
        refuse_damaged(version_record(events, left[-1]), registry)
    except Tampered as error:
        raise Tampered(
            f"{stage} would go back to version {left[-1]}, whose files are not those that were registered; nothing was changed",
            where=error.where,
            fix=f"promote another version to {stage} first, or restore the files",
        ) from error


def _settled(
    event: Event,
    stages: tuple[str, ...],
    before: Sequence[Event],
    registry: Registry,
    ledger: Ledger,
    anchor: Anchor,
    *,
    changed: bool,
) -> Revocation:
    anchor(event)
    for stage in stages:
        show_or_tell(event, stage, registry=registry, ledger=ledger)
    lost = [stage for stage in stages if stack(before, stage)[-1:] == (event.version,)]
    return Revocation(
        model=event.model,
        version=event.version,
        event=event.digest,
        sequence=event.sequence,
        stages={stage: ledger.holder(event.model, stage) for stage in lost},
        changed=changed,
    )

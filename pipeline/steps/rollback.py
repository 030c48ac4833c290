"""Roll a stage back to the version that held it before: an event in the ledger, then the registry's alias. Safe to repeat."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from pipeline.domain.moves import plan_rollback
from pipeline.domain.release import EventKind, ReleaseRecord
from pipeline.domain.stage_rules import Roles, StageRules
from pipeline.domain.wording import check_words
from pipeline.errors import Misuse
from pipeline.moving import Anchor, carry_out, known_events, no_anchor, refuse_others, resolved, utc_now
from pipeline.ports import Ledger, Registry


def rollback(
    stage: str,
    by: str,
    reason: str,
    *,
    model: str,
    registry: Registry,
    ledger: Ledger,
    to: str | None = None,
    leaving: str | None = None,
    rules: Mapping[str, StageRules] | None = None,
    roles: Roles | None = None,
    anchor: Anchor = no_anchor,
    now: Callable[[], datetime] = utc_now,
) -> ReleaseRecord:
    """Take `stage` from the version `leaving` back to `to`, or to the one before it. Of its rules, only roles are asked.

    leaving: default the holder now. Who retries must name it: then a retry after a crash finds its work done (`changed`
    False) instead of going back one more. The version gone back to is re-hashed first. Raises Misuse (nothing to go back to),
    Tampered (its files are not those registered), Conflict (another version holds the stage; nothing was changed), RulesUnmet
    (`by` has no role that may move the stage).
    """
    check_words(actor=by, reason=reason)
    refuse_others(stage, rules, by, roles)
    held = ledger.holder(model, stage)
    if leaving is None and held is None:
        events = known_events(model, ledger)
        stages = sorted({e.stage for e in events if e.stage})
        raise Misuse(f"no version holds {stage[:60]!r}", fix=f"stages that were held: {', '.join(stages) or 'none'}")
    left = resolved(leaving, model, ledger) if leaving is not None else str(held)
    target = resolved(to, model, ledger) if to is not None else None
    return carry_out(
        lambda seen: plan_rollback(seen, stage, to=target, leaving=left),
        EventKind.ROLLED_BACK,
        model=model,
        stage=stage,
        by=by,
        reason=reason,
        registry=registry,
        ledger=ledger,
        now=now,
        anchor=anchor,
    )

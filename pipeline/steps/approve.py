"""Record that a person approves of a version for a stage. An approval moves nothing; it says who looked, at what, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from pipeline.domain.release import Event, EventKind, revoked
from pipeline.domain.stage_rules import StageRules
from pipeline.domain.wording import check_words
from pipeline.errors import Conflict, Misuse, Stale, TryLater
from pipeline.moving import ATTEMPTS, Anchor, no_anchor, registered, resolved, utc_now
from pipeline.ports import Ledger


def approve(
    version: str,
    to: str,
    by: str,
    reason: str,
    *,
    model: str,
    stages: Sequence[str],
    ledger: Ledger,
    rules: Mapping[str, StageRules] | None = None,
    anchor: Anchor = no_anchor,
    now: Callable[[], datetime] = utc_now,
) -> Event:
    """Append `by`'s approval of `version` for the stage `to`; the one that stands, if the same person gave it before.

    It names the digest of the version's record, so it is of no use for any other version. One that has expired by the stage's
    rules is given anew.
    """
    check_words(actor=by, reason=reason)
    if to not in stages:
        raise Misuse(f"there is no stage {to[:60]!r}", fix=f"stages are {', '.join(stages)} (params.yaml, release.stages)")
    valid = timedelta(days=(rules or {}).get(to, StageRules()).approvals.valid_days)
    for _ in range(ATTEMPTS):
        number = resolved(version, model, ledger, stages)
        record = registered(model, number, ledger)
        events = ledger.concerning(model, to, version=number)
        if record.version in revoked(events):
            raise Misuse(f"version {record.version} was revoked", fix="approve another version")
        at = now()
        wanted = (EventKind.APPROVED, record.version, to, by)
        given = [e for e in events if (e.event, e.version, e.stage, e.actor) == wanted and e.at + valid > at]
        if given:
            anchor(given[0])
            return given[0]
        try:
            event = ledger.append(
                model,
                EventKind.APPROVED,
                expected=events[-1].sequence,
                version=record.version,
                subject=record.digest,
                stage=to,
                leaves=None,
                actor=by,
                reason=reason,
                at=at,
            )
        except Stale:
            raise
        except Conflict:
            continue
        anchor(event)
        return event
    raise TryLater(f"the ledger of {model} is busier than {ATTEMPTS} tries", fix="try again")

"""Record that a person approves of a version for a stage. An approval moves nothing; it says who looked, and when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from pipeline.domain.release import Event, EventKind, resolve, revoked, version_record
from pipeline.domain.wording import check_words
from pipeline.errors import Conflict, Misuse, TryLater
from pipeline.moving import ATTEMPTS, known_events, utc_now
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
    now: Callable[[], datetime] = utc_now,
) -> Event:
    """Append `by`'s approval of `version` for the stage `to`; the one that stands, if the same person gave it before."""
    check_words(actor=by, reason=reason)
    if to not in stages:
        raise Misuse(f"there is no stage {to[:60]!r}", fix=f"stages are {', '.join(stages)} (params.yaml, release.stages)")
    for _ in range(ATTEMPTS):
        events = known_events(model, ledger)
        record = version_record(events, resolve(events, version, stages))
        if record.version in revoked(events):
            raise Misuse(f"version {record.version} was revoked", fix="approve another version")
        wanted = (EventKind.APPROVED, record.version, to, by)
        if given := next((e for e in events if (e.event, e.version, e.stage, e.actor) == wanted), None):
            return given
        try:
            return ledger.append(
                model,
                EventKind.APPROVED,
                expected=len(events),
                version=record.version,
                subject=record.digest,
                stage=to,
                leaves=None,
                actor=by,
                reason=reason,
                at=now(),
            )
        except Conflict:
            continue
    raise TryLater(f"the ledger of {model} is busier than {ATTEMPTS} tries", fix="try again")

"""Promote a version to a stage: an event in the ledger, then the registry's alias. Safe to repeat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from pipeline.domain.gating import GateDecision, Outcome
from pipeline.domain.moves import plan_promotion
from pipeline.domain.release import EventKind, ModelVersion, ReleaseRecord, resolve
from pipeline.domain.wording import check_words
from pipeline.errors import Misuse, Tampered
from pipeline.moving import carry_out, known_events, utc_now
from pipeline.ports import Archive, Ledger, Registry


def promote(
    version: str,
    to: str,
    by: str,
    reason: str,
    *,
    model: str,
    stages: Sequence[str],
    registry: Registry,
    ledger: Ledger,
    archive: Archive | None = None,
    now: Callable[[], datetime] = utc_now,
) -> ReleaseRecord:
    """Let `version` (`3`, `v3`, another stage, or the first digits of a digest) hold the stage `to`.

    Its files are re-hashed first; with `archive`, its gate decision is read back too. Already the holder: `changed` is False,
    no event is made, and the alias is repaired if need be. Raises Misuse (unknown, revoked, or dirty and bound for
    production), Tampered (files are not those registered), Conflict (the stage moved meanwhile; nothing was changed).
    """
    check_words(actor=by, reason=reason)
    if to not in stages:
        raise Misuse(f"there is no stage {to[:60]!r}", fix=f"stages are {', '.join(stages)} (params.yaml, release.stages)")
    number = resolve(known_events(model, ledger), version, stages)
    return carry_out(
        lambda events: plan_promotion(events, number, to),
        EventKind.PROMOTED,
        model=model,
        by=by,
        reason=reason,
        registry=registry,
        ledger=ledger,
        now=now,
        also_check=lambda record: _refuse_ungated(record, archive),
    )


def _refuse_ungated(record: ModelVersion, archive: Archive | None) -> None:
    if archive is None:
        return
    text, where = archive.record(record, record.decision)
    decision = GateDecision.from_json(text, where=where, digest=record.decision)
    if decision.verdict is not Outcome.PASSED or decision.adapter_digest != record.adapter_digest:
        raise Tampered(f"version {record.version} was not passed by the gate decision it names", where=where)

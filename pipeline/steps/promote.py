"""Promote a version to a stage: its rules asked, an event in the ledger, then the registry's alias. Safe to repeat."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from pipeline.domain.gating import GateDecision, Outcome
from pipeline.domain.moves import plan_promotion
from pipeline.domain.release import Event, EventKind, ModelVersion, ReleaseRecord
from pipeline.domain.stage_rules import Roles, StageRules, decide_promotion, refused
from pipeline.domain.wording import check_words
from pipeline.errors import Misuse, Tampered
from pipeline.moving import Anchor, carry_out, no_anchor, resolved, utc_now
from pipeline.ports import Archive, Ledger, Registry, Traffic


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
    rules: Mapping[str, StageRules] | None = None,
    archive: Archive | None = None,
    traffic: Traffic | None = None,
    roles: Roles | None = None,
    anchor: Anchor = no_anchor,
    adopting: bool = False,
    now: Callable[[], datetime] = utc_now,
) -> ReleaseRecord:
    """Let `version` (`3`, `v3`, another stage, or the first digits of a digest) hold the stage `to`.

    rules: what each stage asks (params.yaml, release.rules); traffic and roles: what they may ask about. Its files are re-hashed
    first; with `archive`, its gate decision is read back too. adopting: a hand had moved the alias, and a person stands by
    it; the event says so.
    Already the holder: `changed` is False, no event is made, and the alias is repaired if need be. Raises RulesUnmet (all that
    is missing), Misuse (unknown, revoked, or dirty and bound for production), Tampered (files are not those registered),
    Conflict (the stage moved meanwhile; nothing was changed).
    """
    check_words(actor=by, reason=reason)
    if to not in stages:
        raise Misuse(f"there is no stage {to[:60]!r}", fix=f"stages are {', '.join(stages)} (params.yaml, release.stages)")
    number = resolved(version, model, ledger, stages)
    asked = (rules or {}).get(to, StageRules())

    def unmet(events: Sequence[Event]) -> list[str]:
        if asked == StageRules():
            return list(refused(events, number, to))
        answered = traffic.answered(model, number) if traffic and asked.requests else None
        return decide_promotion(events, number, to, asked, actor=by, now=now(), traffic=answered, roles=roles)

    return carry_out(
        lambda events: plan_promotion(events, number, to, unmet=unmet),
        EventKind.ADOPTED if adopting else EventKind.PROMOTED,
        model=model,
        stage=to,
        version=number,
        after=asked.after,
        by=by,
        reason=reason,
        registry=registry,
        ledger=ledger,
        now=now,
        also_check=lambda record: _refuse_ungated(record, archive if asked.gate else None),
        anchor=anchor,
    )


def _refuse_ungated(record: ModelVersion, archive: Archive | None) -> None:
    if archive is None:
        return
    text, where = archive.record(record, record.decision)
    decision = GateDecision.from_json(text, where=where, digest=record.decision)
    if decision.verdict is not Outcome.PASSED or decision.adapter_digest != record.adapter_digest:
        raise Tampered(f"version {record.version} was not passed by the gate decision it names", where=where)

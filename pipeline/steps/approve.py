"""Record that a person approves of a version for a stage, or refuses it. Neither moves anything: it says who looked, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from pipeline.domain.opinions import opinions
from pipeline.domain.release import Event, EventKind, holder, revoked
from pipeline.domain.stage_rules import Roles, StageRules
from pipeline.domain.wording import check_words
from pipeline.errors import Conflict, Misuse, RulesUnmet, Stale, TryLater
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
    rules is given anew, and so is one that its giver has followed by a veto, which it takes back.
    """
    valid = timedelta(days=(rules or {}).get(to, StageRules()).approvals.valid_days)

    def check(events: Sequence[Event], number: str) -> None:
        if number in revoked(events):
            raise Misuse(f"version {number} was revoked", fix="approve another version")

    return _say(
        EventKind.APPROVED,
        version,
        to,
        by,
        reason,
        model,
        stages,
        ledger,
        anchor,
        now,
        check=check,
        stands=lambda e, at: e.at + valid > at,
    )


def refuse(
    version: str,
    to: str,
    by: str,
    reason: str,
    *,
    model: str,
    stages: Sequence[str],
    ledger: Ledger,
    rules: Mapping[str, StageRules] | None = None,
    roles: Roles | None = None,
    anchor: Anchor = no_anchor,
    now: Callable[[], datetime] = utc_now,
) -> Event:
    """Append `by`'s veto on `version` for the stage `to`; the one that stands, if the same person gave it before.

    The stage does not take the version until the same person approves of it. Raises RulesUnmet where the stage's rules name roles
    and `by` has none of them, Misuse where the version holds the stage by now, or was revoked.
    """
    asked = (rules or {}).get(to, StageRules())
    wanted = {*asked.approvals.roles, *asked.roles}
    if wanted and roles is not None and not roles.get(by, frozenset()) & wanted:
        raise RulesUnmet(f"{to} is refused by {' or '.join(sorted(wanted))} only, which {by} is not: let one of them do it")

    def check(events: Sequence[Event], number: str) -> None:
        if number in revoked(events):
            raise Misuse(f"version {number} was revoked", fix="there is nothing left to refuse")
        if holder(events, to) == number:
            raise Misuse(f"version {number} holds {to} already", fix=f"tuneline rollback --stage {to} --reason …")

    return _say(
        EventKind.REFUSED, version, to, by, reason, model, stages, ledger, anchor, now, check=check, stands=lambda *_: True
    )


def _say(
    kind: EventKind,
    version: str,
    to: str,
    by: str,
    reason: str,
    model: str,
    stages: Sequence[str],
    ledger: Ledger,
    anchor: Anchor,
    now: Callable[[], datetime],
    *,
    check: Callable[[Sequence[Event], str], None],
    stands: Callable[[Event, datetime], bool],
) -> Event:
    check_words(actor=by, reason=reason)
    if to not in stages:
        raise Misuse(f"there is no stage {to[:60]!r}", fix=f"stages are {', '.join(stages)} (params.yaml, release.stages)")
    for _ in range(ATTEMPTS):
        number = resolved(version, model, ledger, stages)
        record = registered(model, number, ledger)
        events = ledger.concerning(model, to, version=number)
        check(events, number)
        at = now()
        last = opinions(events, number, to).get(by)
        if last is not None and last.event is kind and stands(last, at):
            anchor(last)
            return last
        try:
            event = ledger.append(
                model,
                kind,
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

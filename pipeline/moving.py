"""How a stage moves: files checked, event appended, then the alias pointed. Deciding is domain/moves.py's work.

The ledger is written first and is the truth; the registry's alias is its projection, so a crash in between is repaired by
repeating the step or by reconcile. Steps share this; nothing else calls it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial

from pipeline.domain.moves import Move, touched
from pipeline.domain.proof import differences
from pipeline.domain.release import Event, EventKind, ModelVersion, ReleaseRecord, resolve, version_record
from pipeline.domain.stage_rules import Roles, StageRules, role_missing
from pipeline.domain.wording import no_such_model
from pipeline.errors import Conflict, Misuse, RulesUnmet, Stale, Tampered, TryLater
from pipeline.ports import Ledger, Registry

ATTEMPTS = 20

Plan = Callable[[tuple[Event, ...]], Move]

Anchor = Callable[[Event], None]
"""Told of each event once it is committed, to note the head of the ledger outside of it. Safe to repeat."""


def no_anchor(_: Event) -> None:
    """The Anchor that notes nothing."""


def utc_now() -> datetime:
    return datetime.now(UTC)


def known_events(model: str, ledger: Ledger) -> tuple[Event, ...]:
    """A model's events. Raises Misuse, listing the models there are, when it has none."""
    events = ledger.events(model)
    if not events:
        raise no_such_model(model, ledger.models())
    return events


def resolved(text: str, model: str, ledger: Ledger, stages: Sequence[str] = ()) -> str:
    """The version number that a person means; see domain/release.py's `resolve`. A plain number or a stage is looked up."""
    number = text.removeprefix("v")
    if number.isascii() and number.isdigit() and number[0] != "0" and ledger.registration(model, number):
        return number
    held = ledger.holder(model, text) if text in stages and not number.isdigit() else None
    return held or resolve(known_events(model, ledger), text, stages)


def planned(plan: Plan, model: str, stage: str, ledger: Ledger, *, version: str | None = None, after: str | None = None) -> Move:
    """What `plan` decides on the events that concern it. Refusals name what else there is, and so are taken from all of them."""
    part = ledger.concerning(model, stage, version=version, after=after)
    if part:
        try:
            return plan(part)
        except (Misuse, Conflict):
            pass
    return plan(known_events(model, ledger))


def registered(model: str, version: str, ledger: Ledger) -> ModelVersion:
    """The record of a version. Raises Misuse, listing what there is, for one that was never registered."""
    event = ledger.registration(model, version)
    return version_record((event,) if event else known_events(model, ledger), version)


def carry_out(
    plan: Plan,
    kind: EventKind,
    *,
    model: str,
    stage: str,
    by: str,
    reason: str,
    registry: Registry,
    ledger: Ledger,
    now: Callable[[], datetime],
    version: str | None = None,
    after: str | None = None,
    also_check: Callable[[ModelVersion], None] = lambda _: None,
    anchor: Anchor = no_anchor,
) -> ReleaseRecord:
    """Do what `plan` decides about the model's events, once, however often this is called.

    Events that do not concern the stage may come in between; a move of the same stage makes this raise Conflict, with nothing
    changed, unless it was the very same move. Raises Tampered when the files of the version that is to hold the stage are not
    those that were registered. version and after: what is asked of the ledger, see Ledger.concerning. anchor: told of the
    event, again when it is found done, as a kill may have come before.
    """
    decide = partial(planned, plan, model, stage, ledger, version=version, after=after)
    for _ in range(ATTEMPTS):
        move = decide()
        if move.done is not None:
            anchor(move.done)
            return _settled(move, move.done, changed=False, registry=registry, ledger=ledger)
        record = registered(model, move.version, ledger)
        refuse_damaged(record, registry)
        also_check(record)
        try:
            event = ledger.append(
                model,
                kind,
                expected=move.expected,
                version=move.version,
                subject=record.digest,
                stage=move.stage,
                leaves=move.leaves,
                actor=by,
                reason=reason,
                at=now(),
            )
        except Stale:
            raise
        except Conflict:
            _refuse_if_moved(decide, move, model, ledger)
            continue
        anchor(event)
        return _settled(move, event, changed=True, registry=registry, ledger=ledger)
    raise TryLater(f"the ledger of {model} is busier than {ATTEMPTS} tries", fix="try again")


def show(model: str, stage: str, *, registry: Registry, ledger: Ledger) -> str | None:
    """Point the alias `stage` at whom the ledger says; the version it named before if that was another, else None.

    Looks again after pointing: of two processes that moved the stage one after the other, the slower must not leave its own.
    """
    said = registry.aliases(model).get(stage)
    shown = said
    for _ in range(ATTEMPTS):
        held = ledger.holder(model, stage)
        if held == shown:
            break
        registry.point(model, stage, held)
        shown = held
    return (said or "nothing") if shown != said else None


def show_or_tell(event: Event, stage: str, *, registry: Registry, ledger: Ledger) -> None:
    """Point the alias. Raises TryLater, saying that the event stands, when the registry does not answer."""
    try:
        show(event.model, stage, registry=registry, ledger=ledger)
    except TryLater as error:
        raise TryLater(
            f"the ledger has it (event {event.sequence}: {event.event.value} {event.version}), but the registry's alias {stage} "
            f"could not follow: {error.what}",
            where=error.where,
            fix="tuneline reconcile, once the registry answers, or repeat this; nothing is done twice",
        ) from error


def refuse_others(stage: str, rules: Mapping[str, StageRules] | None, actor: str, roles: Roles | None) -> None:
    """Raise RulesUnmet unless `actor` may move the stage."""
    missing = list(role_missing(stage, (rules or {}).get(stage, StageRules()), actor, roles))
    if missing:
        raise RulesUnmet("; ".join(missing), unmet=tuple(missing))


def refuse_damaged(record: ModelVersion, registry: Registry) -> None:
    """Raise Tampered unless the version's files are those that were registered."""
    wrong = differences(registry.artifacts(record.name, record.version), record.files)
    if wrong:
        raise Tampered(
            f"the files of {record.name} version {record.version} are not those that were registered",
            where=wrong[0],
            fix="restore them from a backup, or take another version",
        )


def _refuse_if_moved(decide: Callable[[], Move], move: Move, model: str, ledger: Ledger) -> None:
    since = ledger.latest(model, count=ledger.head(model)[0] - move.expected)
    other = touched((event for event in since if event.sequence > move.expected), move.stage)
    if other is not None and decide().done is None:
        raise Conflict(
            f"{other.actor} moved {move.stage} in the meantime (event {other.sequence}: {other.event.value} {other.version}); "
            "nothing was changed",
            fix="look at tuneline history, and decide again",
        )


def _settled(move: Move, event: Event, *, changed: bool, registry: Registry, ledger: Ledger) -> ReleaseRecord:
    show_or_tell(event, move.stage, registry=registry, ledger=ledger)
    return ReleaseRecord(
        model=event.model,
        stage=move.stage,
        version=move.version,
        previous=event.leaves,
        event=event.digest,
        sequence=event.sequence,
        changed=changed,
    )

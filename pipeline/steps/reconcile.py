"""Bring the registry's aliases and tags back to what the ledger says. The ledger is never changed here.

To stand by an alias that a hand has moved is a promotion like any other: see steps/promote.py, `adopting`.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.domain.release import Event, registrations, stack, version_record
from pipeline.errors import Broken, Misuse
from pipeline.moving import known_events, show
from pipeline.ports import Ledger, Registry


def reconcile(model: str, stages: Sequence[str], *, registry: Registry, ledger: Ledger) -> tuple[str, ...]:
    """Repair what a crash, a hand or a deletion left wrong; what was changed, a sentence each.

    `stages` and every stage that the ledger names are looked at; other aliases are not ours and stay. Raises Broken, after
    repairing the rest, when the registry has lost versions that the ledger knows.
    """
    events = known_events(model, ledger)
    present = set(registry.versions(model))
    changed: list[str] = []
    lost: list[str] = []
    for version in registrations(events):
        if version not in present:
            lost.append(f"version {version}")
            continue
        expected = version_record(events, version).tags
        there = registry.version_tags(model, version)
        wrong = {key: value for key, value in expected.items() if there.get(key) != value}
        if wrong:
            registry.set_version_tags(model, version, wrong)
            changed.append(f"version {version}: restored the tags {', '.join(sorted(wrong))}")
    for stage in _all_stages(events, stages):
        held = stack(events, stage)
        lost += [
            f"version {version}, which {'holds' if version == held[-1] else 'could be rolled back to in'} {stage}"
            for version in dict.fromkeys(reversed(held))
            if version not in present
        ]
        if held and held[-1] not in present:
            continue
        before = show(model, stage, registry=registry, ledger=ledger)
        if before is not None:
            now = held[-1] if held else "nothing"
            changed.append(f"the alias {stage} named {before}; it names {now} again, as the ledger says")
    if lost:
        raise Broken(
            f"the registry has lost {'; '.join(lost)}" + (f" (repaired: {'; '.join(changed)})" if changed else ""),
            where=model,
            fix="restore the registry from a backup; until then roll the stage back to a version that is there",
        )
    return tuple(changed)


def drift(model: str, stages: Sequence[str], *, registry: Registry, ledger: Ledger) -> tuple[str, ...]:
    """Where the registry does not say what the ledger says, a sentence each. Changes nothing."""
    events = ledger.events(model)
    aliases, present = registry.aliases(model), set(registry.versions(model)) if events else set()
    found = []
    for stage in _all_stages(events, stages):
        held = stack(events, stage)
        named, right = aliases.get(stage), held[-1] if held else None
        if named != right:
            found.append(f"the alias {stage} names {named or 'nothing'}; the ledger says {right or 'nobody'}: tuneline reconcile")
        gone = [version for version in dict.fromkeys(held) if version not in present]
        found += [f"version {version}, which {stage} needs, is gone from the registry: restore it" for version in gone]
    return tuple(found)


def named_by_hand(model: str, stage: str, *, registry: Registry, ledger: Ledger) -> str:
    """The version that a moved alias names. Raises Misuse when there is nothing to adopt."""
    named, held = registry.aliases(model).get(stage), ledger.holder(model, stage)
    if named == held:
        raise Misuse(f"the alias {stage[:60]} names {held or 'nothing'}, as the ledger says", fix="there is nothing to adopt")
    if named is None:
        raise Misuse(
            f"the alias {stage[:60]} was taken away, and nobody can be made holder by that",
            fix="tuneline reconcile puts it back; tuneline revoke or rollback takes a version off the stage",
        )
    return named


def _all_stages(events: Sequence[Event], stages: Sequence[str]) -> list[str]:
    return list(dict.fromkeys([*stages, *(e.stage for e in events if e.stage)]))

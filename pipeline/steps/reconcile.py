"""Bring the registry's aliases and tags back to what the ledger says. The ledger is never changed here."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.domain.release import holder, registrations, version_record
from pipeline.errors import Broken
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
    for stage in dict.fromkeys([*stages, *(e.stage for e in events if e.stage)]):
        held = holder(events, stage)
        if held is not None and held not in present:
            lost.append(f"version {held}, which holds {stage}")
            continue
        before = show(model, stage, registry=registry, ledger=ledger)
        if before is not None:
            changed.append(f"the alias {stage} named {before}; it names {held or 'nothing'} again, as the ledger says")
    if lost:
        raise Broken(
            f"the registry has lost {'; '.join(lost)}" + (f" (repaired: {'; '.join(changed)})" if changed else ""),
            where=model,
            fix="restore the registry from a backup; until then roll the stage back to a version that is there",
        )
    return tuple(changed)

"""What was found of a record, and what became of it, as lines for people. Nothing is printed or decided here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.terminal import table

if TYPE_CHECKING:
    from pipeline.domain.sightings import ReleaseSighting, RunSighting, WhoHas

_ROWS = 10


def who_has_lines(found: WhoHas) -> list[str]:
    lines = [f"keyed:{found.keyed}"]
    if found.forgotten is not None:
        lines.append(f"forgotten on request: event {found.forgotten} of the ledger keeps it out of later snapshots")
    if not found.found:
        lines.append(f"no kept run of {found.model} has this record")
    else:
        lines.append(f"{found.count} row{'' if found.count == 1 else 's'} of {found.model}")
        lines += [f"  {row.place}  id {row.id}" for row in found.rows[:_ROWS]]
        if found.count > _ROWS:
            lines.append(f"  … and {found.count - _ROWS} more (--json lists up to {len(found.rows)})")
    if found.runs:
        lines += ["", *table([_run(run) for run in found.runs])]
    if found.releases:
        lines += ["", *table([_release(release) for release in found.releases])]
    elif found.runs:
        lines += ["", "no release was made of these runs"]
    if found.searched_quarantine:
        lines += [
            "",
            f"quarantined rows that hold the text: {len(found.quarantined)}",
            *(f"  {place}" for place in found.quarantined),
        ]
    if found.unreadable:
        lines.append(f"not searched, since they are gone from cache and remote: {', '.join(found.unreadable)}")
    return lines


def _run(run: RunSighting) -> dict[str, str]:
    parts = {"trained on": run.train, "eval": run.eval, "test": run.test, "kept apart": run.reserved, **run.left_out}
    said = ", ".join(f"{name} {count}" for name, count in parts.items() if count)
    return {
        "run": run.run,
        "kind": run.kind,
        "snapshot": run.snapshot[:12],
        "rows": str(run.rows),
        "what became of them": said or "nothing yet: the run ended with its data",
    }


def _release(release: ReleaseSighting) -> dict[str, str]:
    marks = [*(f"holds {stage}" for stage in release.holds), *(f"held {stage}" for stage in release.held)]
    return {
        "version": release.version,
        "of run": release.run,
        "trained on": str(release.trained),
        "measured on": str(release.held_out),
        "stages": ", ".join(marks) or "-",
        "marks": "revoked" if release.revoked else "-",
    }

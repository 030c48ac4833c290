"""What was found of a record, and what became of it, as lines for people. Nothing is printed or decided here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.terminal import table

if TYPE_CHECKING:
    from pipeline.domain.erasure import Forgotten
    from pipeline.domain.sightings import ReleaseSighting, RunSighting, WhoHas

_ROWS = 10


def who_has_lines(found: WhoHas) -> list[str]:
    lines = [f"keyed:{found.keyed}"]
    if (stone := found.forgotten) is not None:
        lines.append(f"forgotten on request: event {stone.event} of the ledger keeps it out of later snapshots")
        had = [*stone.runs, *(f"version {version}" for version in stone.versions)]
        lines.append(f"  had it then: {', '.join(had) or 'nothing'}{'; stored copies were purged' if stone.purged else ''}")
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


def forgotten_lines(done: Forgotten) -> list[str]:
    found = done.found
    verb = "forgotten" if done.fresh else "forgotten before"
    lines = [*who_has_lines(found.model_copy(update={"forgotten": None})), "", f"{verb}: event {done.event} of the ledger"]
    if done.purged is not None:
        search, run = done.purged.search, done.purged.run
        lines.append(
            f"purged: {done.purged.files} stored files and {done.purged.cells} database cells (event {done.purged.event})"
        )
        if run is not None:
            lines.append(f"  the next run begins from {run}, which has the data without it")
        if done.purged.shared:
            lines.append(f"  {done.purged.shared} of its texts are also in other records, and stay there")
        went_through = ", ".join(f"{count} {name}" for name, count in search.counts.items())
        lines.append(f"  searched for {search.texts} texts in {search.bytes / 1e6:.1f} MB: {went_through}")
        lines.append(f"  found in {len(search.places)} places" if search.hits else "  found nothing")
    for source in done.sources:
        lines.append(f"still in {source.name}, line {', '.join(map(str, source.lines))}")
    return [*lines, *(["", "What remains to be done:"] if done.remains else []), *(f"  - {what}" for what in done.remains)]


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

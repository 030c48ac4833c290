"""Forgetting a record, bound to the stores of a project: the tombstone, what it reached, and what a person has left to do.

Deciding is the domain's and the steps'; taking stored copies away is purging.py's. No backend is picked here that wiring.py does
not pick, but for the search of bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pipeline.domain.erasure import LIMIT, Forgotten, Purged, Sought, SourceLeft
from pipeline.domain.sightings import WhoHas
from pipeline.errors import Misuse
from pipeline.ports import Progress, silent
from pipeline.steps.who_has import StoredOrLeft, read_rows, who_has
from pipeline.wiring import World

if TYPE_CHECKING:
    from pipeline.params import Params


def look_up(world: World, params: Params, record: str, *, quarantine: bool = False, progress: Progress = silent) -> WhoHas:
    """Who has a record; see steps/who_has.py."""
    return who_has(
        record,
        model=params.model.name,
        key=world.record_key,
        past=world.past_runs,
        index=world.record_index,
        ledger=world.ledger,
        stages=params.release.stages,
        quarantine=quarantine,
        progress=progress,
    )


def forget_record(
    world: World,
    params: Params,
    record: str,
    *,
    by: str,
    reason: str,
    limit: int = LIMIT,
    purge: bool = False,
    progress: Progress = silent,
) -> Forgotten:
    """Forget a record for good, and purge it if that is asked for; safe to repeat, and a killed purge is finished by the next.

    Raises Misuse when more than `limit` rows would go, or when no kept run and no tombstone knows an example id.
    """
    from pipeline.purging import purge as take_away
    from pipeline.steps.forget import forget

    found = look_up(world, params, record, progress=progress)
    if found.asked != "text" and not found.count and found.forgotten is None:
        raise Misuse(
            f"no kept run of {found.model} has this record",
            where=f"keyed:{found.keyed}",
            fix="tuneline who-has finds records by text too; a text that never came may be forgotten beforehand",
        )
    event, fresh = forget(found, by=by, reason=reason, key=world.record_key, ledger=world.ledger, limit=limit)
    sought = _sought(world, found, record)
    purged = take_away(world, params, found, sought, by=by, reason=reason, limit=limit, progress=progress) if purge else None
    sources = tuple(_sources(world, found, sought, progress))
    return Forgotten(
        model=found.model,
        event=event.sequence,
        fresh=fresh,
        found=found,
        sources=sources,
        remains=tuple(_remains(world, found, sources, purged)),
        purged=purged,
    )


def _sought(world: World, found: WhoHas, record: str) -> Sought:
    """The texts and ids of the rows that were found, and the text that was asked for."""
    from pipeline.curation.row_texts import row_texts

    texts = {record: None} if found.asked == "text" else {}
    for input, output, kind in _contents(world, found):
        texts |= dict.fromkeys(row_texts(input, output, kind))
    return Sought(texts=tuple(texts), ids=tuple(dict.fromkeys(row.id for row in found.rows)))


def _contents(world: World, found: WhoHas) -> Iterator[tuple[str, str, str]]:
    stored = _stored_shards(world, found.model)
    for row in found.rows:
        for _, values in read_rows(stored[row.shard], [row.row], ("input", "output", "kind")):
            yield values


def _stored_shards(world: World, model: str) -> dict[str, Path]:
    stored = StoredOrLeft(world.past_runs, world.ledger.events(model))
    files = {file.name: file.md5 for run in world.past_runs.runs(model) for file in (*run.shards, *run.reserved)}
    return {name: path for name, md5 in files.items() if md5 and (path := stored(md5))}


def _sources(world: World, found: WhoHas, sought: Sought, progress: Progress) -> Iterator[SourceLeft]:
    """Source files of the model's snapshots that are still where they were, and hold one of the texts. They are the user's."""
    from pipeline.backends.byte_search import lines_with
    from pipeline.backends.needles import Needles

    needles = Needles(sought.texts)
    names = sorted({name for run in world.past_runs.runs(found.model) for name in run.sources})
    for done, name in enumerate(names, start=1):
        place = _inside(world.git.root, name)
        if place is not None and (lines := lines_with(place, needles)):
            yield SourceLeft(name=name, lines=tuple(lines))
        progress("searching source files", done, len(names))


def _inside(root: Path, name: str) -> Path | None:
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts:
        return None
    place = root / parts
    return place if place.is_file() and not place.is_symlink() else None


def _remains(world: World, found: WhoHas, sources: tuple[SourceLeft, ...], purged: Purged | None) -> Iterator[str]:
    """What a person has left to do, most urgent first."""
    for release in found.releases:
        if release.trained and not release.revoked:
            held = f", which holds {', '.join(release.holds)}," if release.holds else ""
            yield f"version {release.version}{held} was trained on it, and its weights stay what they are: retrain, and retire it"
    if sources:
        yield f"take it out of {len(sources)} source file{'' if len(sources) == 1 else 's'}, or it stays where it came from"
    if purged is None:
        if found.count:
            yield "the next run begins without it; earlier snapshots, caches and remotes keep it until forget --purge"
        return
    yield from (f"the model {name} has it too: forget it there, with its --params" for name in purged.others)
    yield from (f"still held by {place}" for place in purged.search.places)
    if not purged.search.texts:
        yield "none of its texts is known here any more, so only its id was searched for: give the text itself to search for that"
    settings = world.settings
    for address, what in (
        (settings.mlflow_uri, "the MLflow server's tables and artifacts"),
        (settings.prefect_api, "the Prefect server's database"),
        (settings.ledger_url, "the ledger's database (it holds what people wrote as reasons)"),
        (settings.dvc_remote, "objects that only the DVC remote has"),
    ):
        if address is not None:
            yield f"not searched, since this project only has an address of it: {what}"
    yield "backups, clones of the repository with pulled data, and copies that people made are out of reach"

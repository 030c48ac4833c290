"""Purging a record: out of the snapshot that the next run begins from, out of cache, remote and derived files, and proof of it.

The order makes it safe to kill: what is sought is written down, the head is made again without the record, the ledger says what
will be taken away, then it is taken away, then all is searched. A purge that is started again finds where it stopped.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.backends.byte_search import Needles, search_files, search_git
from pipeline.backends.dvc import DvcStore
from pipeline.backends.erasing import carry_out, clear_passing, plan
from pipeline.backends.git import REFS
from pipeline.backends.past_runs import GitDvcPastRuns
from pipeline.backends.run_folder import KeptRun, RunFolder, discard, head_data, keep_run, one_run_at_a_time, open_run
from pipeline.curation.describing import write_description
from pipeline.curation.forgetting import redact_quarantine
from pipeline.curation.shards import sweep
from pipeline.domain.data import Snapshot
from pipeline.domain.erasure import Purged, SearchReport, Sought, Tombstones, tombstones
from pipeline.domain.sightings import WhoHas
from pipeline.placing import place_frozen
from pipeline.ports import Progress, silent
from pipeline.steps.forget import forget, take_out
from pipeline.wiring import World, index_records
from pipeline.workspace import Project, Workspace

if TYPE_CHECKING:
    from pipeline.params import Params

_HEAD = 60
"""Longer texts are also sought by their beginning, of so many characters: pages and messages show rows cut short."""


def purge(
    world: World,
    params: Params,
    found: WhoHas,
    sought: Sought,
    *,
    by: str,
    reason: str,
    limit: int,
    progress: Progress = silent,
) -> Purged:
    """Take a forgotten record out of everything that this project stores, and search all of it for what is left.

    found, sought: what who-has said, and the texts and ids of its rows. A text that other records hold too is theirs as well: it
    is neither removed nor searched for. Raises TryLater while a run of the model is under way or a database is in use.
    """
    with one_run_at_a_time(world.project, found.model):
        sought = _remembered(world.project, found, sought)
        stones = tombstones(world.ledger.events(found.model), world.record_key)
        made, needles, shared = _clean_head(world, params, stones, sought, progress)
        report = _search(world.project, world.git.root, needles, progress)
        if _head_holds(world, found.model, report):
            made, needles, shared = _clean_head(world, params, stones, sought, progress, even_if_clean=True)
        planned = plan(map(Path, report.places), world.project, found.model, _owners(world))
        files = planned.erased
        event, _ = forget(
            found, by=by, reason=reason, key=world.record_key, ledger=world.ledger, limit=limit, purge=True, files=files
        )
        clear_passing(world.project)
        cells = carry_out(planned, world.project, world.git, needles)
        _erase_pushed(world, found.model, planned.objects)
        for name in {Path(file.path).stem for file in files}:
            (world.project.index / f"{name}.idx").unlink(missing_ok=True)
        proof = _search(world.project, world.git.root, needles, progress)
        if not proof.hits:
            _journal(world.project, found).unlink()
    return Purged(
        event=event.sequence,
        files=len(files),
        cells=cells,
        run=made.key if made else None,
        shared=shared,
        search=proof,
    )


def _journal(project: Project, found: WhoHas) -> Path:
    return project.erasing / f"{found.keyed}.json"


def _remembered(project: Project, found: WhoHas, sought: Sought) -> Sought:
    """What is sought now and was sought by a purge that did not end, written down before anything that tells it is removed."""
    path = _journal(project, found)
    if path.exists():
        before = Sought.model_validate(json.loads(path.read_bytes()))
        merged = {name: tuple(dict.fromkeys((*getattr(before, name), *getattr(sought, name)))) for name in ("texts", "ids")}
        sought = Sought(**merged)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(sought.model_dump_json())
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    return sought


def _clean_head(
    world: World, params: Params, stones: Tombstones, sought: Sought, progress: Progress, *, even_if_clean: bool = False
) -> tuple[KeptRun | None, Needles, int]:
    """Make the run that later ones begin from: the head's data without the record, nothing else of the head.

    Returns the kept run (None when the head has nothing of the record), what is to be sought from now on, and how many texts are
    not, since other records hold them.
    """
    if head_data(world.git, params.model.name) is None:
        return None, _needles(sought, ()), 0
    run = open_run(world.git, world.project, params, remote=world.settings.dvc_remote)
    try:
        clean = {}
        for folder, parent in _snapshots(run.workspace):
            clean[folder] = (parent, take_out(folder, parent, stones=stones, index=world.record_index))
        shards = [folder / shard.path for folder, (_, snapshot) in clean.items() for shard in snapshot.shards]
        theirs = {hit.text for hit in search_files(shards, _needles(sought, ()), progress=progress).hits if hit.text >= 0}
        needles = _needles(sought, theirs)
        for folder, (parent, snapshot) in clean.items():
            clean[folder] = (parent, redact_quarantine(folder, snapshot, _holds(needles)))
        if not even_if_clean and all(parent == snapshot for parent, snapshot in clean.values()):
            discard(world.git, world.project, run)
            return None, needles, len(theirs)
        return _keep(world, run, clean, progress), needles, len(theirs)
    finally:
        run.store.close()


def _snapshots(workspace: Workspace) -> list[tuple[Path, Snapshot]]:
    """The folders of rows that a run begins from, and their records: its data, and what is kept apart."""
    records = (workspace.snapshot_record, workspace.reserved_record)
    return [(path.parent, Snapshot.read(path)) for path in records if path.exists()]


def _needles(sought: Sought, theirs: set[int] | Sequence[int]) -> Needles:
    """Of all texts and beginnings of long ones, those whose numbers are not in `theirs`."""
    every = Needles([*sought.texts, *(text[:_HEAD] for text in sought.texts if len(text) > 1.5 * _HEAD)])
    return Needles([text for number, text in enumerate(every.texts) if number not in theirs], sought.ids)


def _holds(needles: Needles) -> Callable[[str], bool]:
    return lambda text: bool(needles.among(text.encode("utf-8", "replace")))


def _keep(world: World, run: RunFolder, clean: dict[Path, tuple[Snapshot, Snapshot]], progress: Progress) -> KeptRun:
    place_frozen(run)
    for folder, (parent, snapshot) in clean.items():
        if snapshot != parent:
            mine = snapshot.model_copy(update={"parent": parent.digest, "fresh": 0} if folder == run.workspace.snapshot else {})
            if parent.described:
                mine = mine.model_copy(update={"described": write_description(folder, mine)})
            mine.write(folder / "snapshot.json")
            sweep(folder, mine)
            run.store.add(folder)
    run.store.close()
    # What the head made of its data speaks of rows that are no more: the next run makes it anew.
    (run.workspace.root / "dvc.lock").unlink(missing_ok=True)
    shutil.rmtree(run.workspace.root / "work", ignore_errors=True)
    kept = keep_run(world.git, run, "data", f"{run.key}: a record was purged")
    run.store.push()
    index_records(world, run.workspace.snapshot, Snapshot.read(run.workspace.snapshot_record), progress)
    return kept


def _search(project: Project, root: Path, needles: Needles, progress: Progress) -> SearchReport:
    """Everything that this project stores: the state folder, DVC's cache and temporary files, and what our tags keep in git."""
    roots = [project.state, project.root / ".dvc", *([] if project.remote.is_relative_to(project.state) else [project.remote])]
    return search_files(roots, needles, skip=[project.erasing], progress=progress) + search_git(root, REFS, needles)


def _owners(world: World) -> dict[str, list[tuple[str, str]]]:
    """MD5 → (model, path in the run's folder) of every data file of every kept run of all models."""
    past = GitDvcPastRuns(world.git, world.project)
    found: dict[str, list[tuple[str, str]]] = {}
    for name, commit in world.git.refs("").items():
        for path, md5 in past.files(commit):
            found.setdefault(md5, []).append((name.split("/", 1)[0], path))
    return found


def _head_holds(world: World, model: str, report: SearchReport) -> bool:
    """Whether an object that the head tracks would have to go: then no run could begin from it."""
    head = head_data(world.git, model)
    if head is None:
        return False
    tracked = {md5 for _, md5 in GitDvcPastRuns(world.git, world.project).files(head.commit)}
    return any(Path(place).parent.name + Path(place).name in tracked for place in report.places)


def _erase_pushed(world: World, model: str, objects: set[str]) -> None:
    """Remove objects from a remote that is not a folder of ours; the folder was searched and emptied with the cache."""
    head = head_data(world.git, model)
    if world.settings.dvc_remote is None or head is None or not objects:
        return
    folder = Workspace(world.project.runs / head.key)
    if not folder.snapshot_record.exists():
        world.git.add_worktree(folder.root, head.commit)
    store = DvcStore(folder, world.project, remote=world.settings.dvc_remote)
    try:
        store.erase_pushed(objects)
    finally:
        store.close()

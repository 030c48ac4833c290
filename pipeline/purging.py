"""Purging a record: out of the snapshot that the next run begins from, out of cache, remote and derived files, and proof of it.

The order makes it safe to kill: what is sought is written down, the head is made again without the record, the ledger says what
will be taken away, then it is taken away, then all is searched. A purge that is started again finds where it stopped.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.backends.byte_search import search_files, search_git
from pipeline.backends.dvc import DvcStore
from pipeline.backends.erasing import Plan, carry_out, clear_passing, keep_remains, plan
from pipeline.backends.git import REFS
from pipeline.backends.needles import Needles
from pipeline.backends.past_runs import GitDvcPastRuns
from pipeline.backends.run_folder import (
    KINDS,
    KeptRun,
    RunFolder,
    discard,
    head_data,
    head_run,
    keep_run,
    open_run,
)
from pipeline.backends.run_locks import one_run_at_a_time
from pipeline.curation.describing import write_description
from pipeline.curation.forgetting import redact_quarantine
from pipeline.curation.shards import sweep
from pipeline.domain.data import Snapshot
from pipeline.domain.erasure import Purged, SearchReport, Sought, tombstones
from pipeline.domain.gating import GateDecision, Outcome
from pipeline.domain.release import registrations, version_record
from pipeline.domain.sightings import WhoHas
from pipeline.errors import TryLater
from pipeline.placing import place_frozen
from pipeline.ports import Progress, silent
from pipeline.steps.forget import forget, take_out
from pipeline.ticking import leased
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
    is neither removed nor searched for. Raises TryLater while a run of the model is under way, here or on another machine, or was
    not finished, or a database is in use.
    """
    with one_run_at_a_time(world.project, found.model), leased(world, found.model, "purge") as world:
        _refuse_unfinished(world, found.model)
        sought = _remembered(world.project, found, sought)
        head = _Head.open(world, params, sought, progress)
        try:
            needles = head.needles if head else _needles(sought)
            skip = [head.run.workspace.root] if head else []
            report = _search(world.project, world.git.root, needles, progress, skip)
            planned = plan(map(Path, report.places), world.project, found.model, _owners(world))
            made = head.keep(world, planned, progress) if head else None
        finally:
            if head:
                head.run.store.close()
        files = planned.erased
        event, _ = forget(
            found, by=by, reason=reason, key=world.record_key, ledger=world.ledger, limit=limit, purge=True, files=files
        )
        clear_passing(world.project)
        cells = carry_out(planned, world.project, world.git, needles)
        _erase_pushed(world, found.model, list(planned.objects))
        for name in planned.names:
            (world.project.index / f"{name}.idx").unlink(missing_ok=True)
        proof = _search(world.project, world.git.root, needles, progress)
        if not proof.hits:
            _journal(world.project, found).unlink()
    shared = sum(text not in needles.texts for text in Needles(sought.texts).texts)
    run = made.key if made else None
    others = tuple(sorted(set(planned.elsewhere.values())))
    return Purged(event=event.sequence, files=len(files), cells=cells, run=run, shared=shared, others=others, search=proof)


def _refuse_unfinished(world: World, model: str) -> None:
    """A run that passed its gate and died before it was registered is registered by the next run, from the data it kept."""
    kept = head_run(world.git, model)
    verdict = world.git.show(kept.commit, "work/release/decision.json") if kept else None
    if kept is None or verdict is None:
        return
    passed = GateDecision.from_json(verdict.decode(), where=kept.tag).verdict is Outcome.PASSED
    events = world.ledger.events(model)
    if passed and kept.tag not in {version_record(events, version).tag for version in registrations(events)}:
        raise TryLater(
            f"{kept.key} passed its gate and was not registered, since it was killed",
            where=kept.tag,
            fix="tuneline run registers it first of all; purge then",
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


@dataclass(frozen=True, slots=True)
class _Head:
    """The run that later ones are to begin from: the head's data without the record, and nothing else of the head.

    clean: folder of rows → its record at the head, and as it will be. needles: what is to be sought in all that is stored; a text
    that the rows left over hold too is not.
    """

    run: RunFolder
    clean: dict[Path, tuple[Snapshot, Snapshot]]
    needles: Needles

    @classmethod
    def open(cls, world: World, params: Params, sought: Sought, progress: Progress) -> _Head | None:
        """None when the model has no data yet."""
        if head_data(world.git, params.model.name) is None:
            return None
        stones = tombstones(world.ledger.events(params.model.name), world.record_key)
        run = open_run(world.git, world.project, params, remote=world.settings.dvc_remote)
        clean = {}
        for folder, parent in _snapshots(run.workspace):
            clean[folder] = (parent, take_out(folder, parent, stones=stones, index=world.record_index))
        shards = [folder / shard.path for folder, (_, snapshot) in clean.items() for shard in snapshot.shards]
        theirs = {hit.text for hit in search_files(shards, _needles(sought), progress=progress).hits}
        needles = _needles(sought, theirs)
        for folder, (parent, snapshot) in clean.items():
            clean[folder] = (parent, redact_quarantine(folder, snapshot, _holds(needles)))
        return cls(run, clean, needles)

    def keep(self, world: World, planned: Plan, progress: Progress) -> KeptRun | None:
        """Keep it, with what is left of the tables that are to go; None, and no trace, when the head has to lose nothing."""
        run = self.run
        before = head_data(world.git, run.model)
        tracked = {md5 for _, md5 in GitDvcPastRuns(world.git, world.project).files(before.commit)} if before else set()
        remains = keep_remains(planned, run.workspace.remains, self.needles)
        if not remains and not tracked.intersection(planned.objects) and all(old == new for old, new in self.clean.values()):
            discard(world.git, world.project, run)
            return None
        place_frozen(run)
        for folder, (parent, snapshot) in self.clean.items():
            if snapshot != parent:
                _write(folder, parent if folder == run.workspace.snapshot else None, snapshot)
                run.store.add(folder)
        if remains:
            run.store.add(run.workspace.remains)
        run.store.close()
        # What the head made of its data speaks of rows that are no more: the next run makes it anew.
        (run.workspace.root / "dvc.lock").unlink(missing_ok=True)
        shutil.rmtree(run.workspace.root / "work", ignore_errors=True)
        kept = keep_run(world.git, run, "data", f"{run.key}: a record was purged")
        run.store.push()
        index_records(world, run.workspace.snapshot, Snapshot.read(run.workspace.snapshot_record), progress)
        return kept


def _write(folder: Path, parent: Snapshot | None, snapshot: Snapshot) -> None:
    """Put a record and what describes it into its folder, and remove the files that it lists no more."""
    made = snapshot.model_copy(update={"parent": parent.digest, "fresh": 0}) if parent else snapshot
    if made.described:
        made = made.model_copy(update={"described": write_description(folder, made)})
    made.write(folder / "snapshot.json")
    sweep(folder, made)


def _snapshots(workspace: Workspace) -> list[tuple[Path, Snapshot]]:
    """The folders of rows that a run begins from, and their records: its data, and what is kept apart."""
    records = (workspace.snapshot_record, workspace.reserved_record)
    return [(path.parent, Snapshot.read(path)) for path in records if path.exists()]


def _needles(sought: Sought, theirs: Collection[int] = ()) -> Needles:
    """Of all texts and beginnings of long ones, those whose numbers are not in `theirs`."""
    every = Needles([*sought.texts, *(text[:_HEAD] for text in sought.texts if len(text) > 1.5 * _HEAD)])
    return Needles([text for number, text in enumerate(every.texts) if number not in theirs], sought.ids)


def _holds(needles: Needles) -> Callable[[str], bool]:
    return lambda text: bool(needles.among(text.encode("utf-8", "replace")))


def _search(project: Project, root: Path, needles: Needles, progress: Progress, skip: Sequence[Path] = ()) -> SearchReport:
    """Everything that this project stores: the state folder, DVC's cache and temporary files, and what our tags keep in git."""
    roots = [project.state, project.root / ".dvc", *([] if project.remote.is_relative_to(project.state) else [project.remote])]
    return search_files(roots, needles, skip=[project.erasing, *skip], progress=progress) + search_git(root, REFS, needles)


def _owners(world: World) -> dict[str, list[tuple[str, str]]]:
    """MD5 → (model, path in the run's folder) of every data file of every kept run of all models."""
    past = GitDvcPastRuns(world.git, world.project)
    found: dict[str, list[tuple[str, str]]] = {}
    for name, commit in world.git.refs("").items():
        if name.split("/")[1] not in KINDS:  # an anchor of the ledger holds no data
            continue
        for path, md5 in past.files(commit):
            found.setdefault(md5, []).append((name.split("/", 1)[0], path))
    return found


def _erase_pushed(world: World, model: str, objects: Sequence[str]) -> None:
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

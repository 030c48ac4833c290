"""What a run needs beside its data, put there as tracked files, so that every stage is a function of files.

Benchmarks and edge cases, the rows that a person wants left out, the sides that earlier runs gave to groups, the champion. What
is made of them is the stages'. No backend is picked here (see wiring.py).
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from pipeline.domain.curated import Frozen, Splits
from pipeline.domain.data import Snapshot, empty_snapshot
from pipeline.domain.model import Champion, TrainingRun
from pipeline.domain.record import describe_files
from pipeline.domain.release import holder, version_record
from pipeline.errors import Misuse, Tampered
from pipeline.ports import Progress, silent
from pipeline.wiring import World, take_in

if TYPE_CHECKING:
    from pipeline.backends.run_folder import RunFolder
    from pipeline.params import Params


def place_reserved(world: World, run: RunFolder, params: Params, progress: Progress = silent) -> Snapshot:
    """Put benchmarks and edge cases beside the data, read by the same parser: looking for leaks is then a function of files."""
    entries, folder = (*params.split.benchmarks, *params.split.edge_cases), run.workspace.reserved
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    if not entries:
        reserved = empty_snapshot(params.model.name, params.model.task)
        reserved.write(run.workspace.reserved_record)
    else:
        # Whatever its licence: what is held against the data is not learned from.
        reserved = take_in(world, params, folder, entries, licenses=("any",), progress=progress)
    run.store.add(folder)
    return reserved


def place_reviewed(world: World, run: RunFolder, params: Params) -> None:
    """Put the list of rows that a person wants left out beside the data, so that curation is a function of files."""
    folder, listed = run.workspace.reviewed, params.curate.leave_out
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if listed is None:
        run.workspace.reviewed_list.write_text("id,reason\n", encoding="utf-8")
    else:
        source = world.git.root / listed
        if not source.is_file() or source.is_symlink():
            raise Misuse(f"{listed} is no file", where="curate.leave_out", fix="name a CSV of the project, or drop the key")
        shutil.copyfile(source, run.workspace.reviewed_list)
    run.store.add(folder)


def place_frozen(run: RunFolder) -> Frozen:
    """Put the sides that earlier runs gave to groups beside the data: those the last run began from, and those it drew."""
    workspace, frozen = run.workspace, Frozen()
    fresh = workspace.frozen.with_name("frozen.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    (fresh / "sides").mkdir(parents=True)
    if run.parent is not None:
        frozen = Frozen.read(workspace.frozen_record)
        parts = [(workspace.frozen, frozen.sides)]
        # A run that purged a record was never split: what it began from holds all sides.
        if workspace.splits_record.exists():
            drawn = Splits.read(workspace.splits_record)
            parts.append((workspace.splits, drawn.sides))
            frozen = Frozen(splits=drawn.digest, sides=(*frozen.sides, *drawn.sides))
        for folder, files in parts:
            for file in files:
                shutil.copyfile(folder / file.path, fresh / file.path)
    frozen.write(fresh / workspace.frozen_record.name)
    shutil.rmtree(workspace.frozen, ignore_errors=True)
    fresh.rename(workspace.frozen)
    run.store.add(workspace.frozen)
    return frozen


def place_champion(world: World, run: RunFolder, params: Params) -> Champion:
    """Put what holds the last stage beside the data, verified, so that evaluation is a function of files."""
    model, stage = params.model.name, params.release.stages[-1]
    events = world.ledger.events(model)
    version = holder(events, stage)
    folder = run.workspace.champion
    if folder.exists():
        shutil.rmtree(folder)
    champion = Champion()
    if version is not None:
        record = version_record(events, version)
        source = world.registry.artifacts(model, version) / "artifacts" / "adapter"
        shutil.copytree(source, folder / "adapter")
        text, where = world.archive.record(record, record.training)
        training = TrainingRun.from_json(text, where=where, digest=record.training)
        if describe_files(folder / "adapter") != training.adapter:
            raise Tampered(f"the adapter of {model} version {version} is not the one that was trained", where=str(source))
        champion = Champion(version=version, training=record.training, adapter_digest=record.adapter_digest)
    champion.write(run.workspace.champion_record)
    run.store.add(folder)
    return champion

"""Looks at a project's data, bound to its stores: what is it about, will tuning pay, what will it take. Only pages are written.

No backend is picked here (see wiring.py), and nothing that a run depends on is made here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.domain.curated import Splits
from pipeline.domain.data import Snapshot, Task
from pipeline.ports import Embedder, Progress
from pipeline.wiring import World, find_base, find_encoder, take_in
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from pipeline.domain.advice import Advice
    from pipeline.domain.exploration import Exploration
    from pipeline.domain.planning import Plan
    from pipeline.domain.simulation import Foresight
    from pipeline.modeling.hardware.work import Sides
    from pipeline.params import Params


def look_at(
    world: World, params: Params, number: int | None, out: Path | None, pool: tuple[str, ...], *, progress: Progress
) -> tuple[Exploration, Path]:
    """Explore a kept run's snapshot, picking from the files in `pool` if any; returns what was found and its folder."""
    from pipeline.steps.explore import explore

    workspace, snapshot = _kept_snapshot(world, params, number)
    folder = out or world.project.looks / f"{params.model.name}-{snapshot.digest[:12]}"
    with world.scratch() as scratch:
        candidates = None
        if pool:
            # Rows to label have no label yet, so they are read as what generate knows: prompts and texts.
            unlabelled = params.model_copy(update={"model": params.model.model_copy(update={"task": Task.GENERATE})})
            candidates = take_in(world, unlabelled, scratch, pool), scratch
        found = explore(
            snapshot,
            params.explore,
            folder=workspace.snapshot,
            out=folder,
            embedder=_embedder(world, workspace, params),
            pool=candidates,
            progress=progress,
        )
    return found, folder


def advise_on(world: World, params: Params, number: int | None, out: Path | None, *, progress: Progress) -> tuple[Advice, Path]:
    """Advise on a kept run's snapshot; returns the advice and the folder of its page."""
    from pipeline.steps.advise import advise

    workspace, snapshot = _kept_snapshot(world, params, number)
    folder = out or world.project.looks / f"{params.model.name}-{snapshot.digest[:12]}"
    found = advise(
        snapshot,
        params.advise,
        folder=workspace.snapshot,
        out=folder,
        embedder=_embedder(world, workspace, params),
        cost=lambda: _planned(world, workspace, params, snapshot, folder=workspace.snapshot, trying=False, progress=progress),
        progress=progress,
    )
    return found, folder


def plan_for(world: World, params: Params, number: int | None, *, trying: bool, progress: Progress) -> Plan:
    """What a training by `params` would take on a kept run's data; where none is kept, on the sources, read into a scratch
    folder. trying: see steps.plan."""
    from pipeline.backends.run_folder import kept_runs

    if number is not None or any(kept_runs(world.git, params.model.name, kind) for kind in ("run", "data")):
        workspace, snapshot = _kept_snapshot(world, params, number)
        folder = workspace.snapshot
        return _planned(world, workspace, params, snapshot, folder=folder, trying=trying, progress=progress)
    with world.scratch() as folder:
        snapshot = take_in(world, params, folder, params.ingest.sources, progress=progress)
        here = Workspace(world.git.root)
        return _planned(world, here, params, snapshot, folder=folder, trying=trying, progress=progress)


def _kept_snapshot(world: World, params: Params, number: int | None) -> tuple[Workspace, Snapshot]:
    from pipeline.backends.run_folder import find_kept, open_kept

    kept = find_kept(world.git, params.model.name, number)
    workspace = open_kept(world.git, world.project, kept, remote=world.settings.dvc_remote)
    return workspace, Snapshot.read(workspace.snapshot_record)


def _embedder(world: World, workspace: Workspace, params: Params) -> Embedder:
    from pipeline.modeling.answering.embedding import TextEncoder

    return TextEncoder(find_encoder(world, workspace, params))


def _sides(workspace: Workspace, params: Params, snapshot: Snapshot) -> Sides:
    """What the run's split made of the snapshot, or where there is none what params would make of it."""
    from pipeline.modeling.hardware.work import Sides

    if workspace.splits_record.exists():
        splits = Splits.read(workspace.splits_record)
        if splits.snapshot == snapshot.digest:
            return Sides(splits.train.rows, splits.eval.rows, splits.labels, f"the splits of {workspace.root.name}")
    share = params.split
    train, held = round(snapshot.rows * (1 - share.eval - share.test)), round(snapshot.rows * share.eval)
    return Sides(train, held, (), f"the shares of params' split of {snapshot.rows:,} rows")


def _planned(
    world: World, workspace: Workspace, params: Params, snapshot: Snapshot, *, folder: Path, trying: bool, progress: Progress
) -> Plan:
    from pipeline.steps.plan import plan

    with world.scratch() as scratch:
        return plan(
            snapshot,
            params.train,
            params.model,
            folder=folder,
            sides=_sides(workspace, params, snapshot),
            base=find_base(world, workspace, params),
            scratch=scratch,
            root=workspace.root,
            trying=trying,
            progress=progress,
        )


def sight_of(world: World, params: Params, rows: tuple[int, ...]) -> Foresight:
    """What tests of `rows` rows can show; without any, one as large as the newest run's, and larger ones. Nothing is run."""
    from pipeline.backends.run_folder import head_run
    from pipeline.domain.gating import GateDecision
    from pipeline.steps.simulate import foresee

    last: dict[str, float] = {}
    kept = head_run(world.git, params.model.name)
    held: list[int] = []
    if kept is not None:
        told = {name: world.git.show(kept.commit, f"work/{name}") for name in ("release/decision.json", "split/splits.json")}
        if (text := told["release/decision.json"]) is not None:
            last = GateDecision.from_json(text.decode(), where=kept.tag).detectable
        if (text := told["split/splits.json"]) is not None:
            held = [Splits.from_json(text.decode(), where=kept.tag).test.rows]
    start = (held[0] if held and held[0] else 0) or params.gate.min_test_rows
    sizes = rows or tuple(start * times for times in (1, 2, 4, 10))
    return foresee(params.evaluate, params.gate, sizes, last=last, last_run=kept.key if kept else None)

"""Looks at a project's data, bound to its stores: what is it about, will tuning on it pay. Only their own pages are written.

No backend is picked here (see wiring.py), and nothing that a run depends on is made here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.domain.data import Snapshot, Task
from pipeline.ports import Embedder, Progress
from pipeline.wiring import World, find_base, find_encoder, take_in
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from pipeline.domain.advice import Advice
    from pipeline.domain.exploration import Exploration, Shown
    from pipeline.exploring.costs import Cost
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
        cost=lambda rows: _cost(find_base(world, workspace, params), params, snapshot.rows, rows),
        progress=progress,
    )
    return found, folder


def _kept_snapshot(world: World, params: Params, number: int | None) -> tuple[Workspace, Snapshot]:
    from pipeline.backends.run_folder import find_kept, open_kept

    kept = find_kept(world.git, params.model.name, number)
    workspace = open_kept(world.git, world.project, kept, remote=world.settings.dvc_remote)
    return workspace, Snapshot.read(workspace.snapshot_record)


def _embedder(world: World, workspace: Workspace, params: Params) -> Embedder:
    from pipeline.modeling.embedding import TextEncoder

    return TextEncoder(find_encoder(world, workspace, params))


def _cost(base: Path, params: Params, rows: int, sample: Sequence[Shown]) -> Cost:
    import psutil

    from pipeline.exploring.costs import Cost, measure_flops
    from pipeline.modeling.base import count_parameters, count_tokens

    seen = [f"{row.text} {row.output}" for row in sample]
    per_row = count_tokens(seen, base / "tokenizer.json") / max(len(seen), 1)
    parameters, train = count_parameters(base), params.train
    passes = train.epochs
    if train.max_steps is not None:
        passes = train.max_steps * train.batch_size * train.gradient_accumulation / max(rows, 1)
    longest = min(per_row * 4, train.max_length) * train.batch_size
    return Cost(
        parameters=parameters,
        tokens=int(min(per_row, train.max_length) * rows),
        passes=passes,
        flops=measure_flops(),
        # Weights, and for each token of a batch a few dozen numbers as wide as the base (its width from its size).
        memory_gib=(4 * parameters + 4 * longest * 40 * (parameters / 12) ** 0.4) / 2**30 + 0.5,
        available_gib=psutil.virtual_memory().available / 2**30,
    )

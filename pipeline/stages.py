"""The stages of dvc.yaml, bound to a run's folder: `dvc repro` and the flow call the same functions on the same files.

What a stage does is its step's knowledge (pipeline/steps/); what lies beside the data was put there by placing.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.domain.curated import Curation, Frozen, Splits
from pipeline.domain.data import Snapshot, ValidationReport
from pipeline.domain.measured import SuiteFiles
from pipeline.domain.model import Champion, Starts, TrainingRun
from pipeline.errors import Misuse
from pipeline.ports import Embedder, Progress, Tracker, silent
from pipeline.wiring import World, find_base, find_detector, find_encoder, find_engine, find_judge
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from pipeline.params import Params

STEPS = ("validate", "drift", "curate", "split", "train", "evaluate")


def run_step(
    world: World, name: str, workspace: Workspace, params: Params, tracker: Tracker | None = None, progress: Progress = silent
) -> None:
    """Run one stage of dvc.yaml on the files of a run's folder. train opens a tracked run of its own unless it is given one."""
    if name == "validate":
        _validate(world, workspace, params, progress)
    elif name == "drift":
        _drift(world, workspace, params, progress)
    elif name == "curate":
        _curate(world, workspace, params, progress)
    elif name == "split":
        _split(workspace, params, progress)
    elif name == "train" and tracker is not None:
        train_in(world, workspace, params, tracker, progress)
    elif name == "train":
        splits = Splits.read(workspace.splits_record)
        with world.tracked(params.model.name, f"{params.model.name}-repro-{splits.digest[:12]}") as own:
            train_in(world, workspace, params, own, progress)
    elif name == "evaluate":
        _evaluate(world, workspace, params, progress)
    else:
        raise Misuse(f"there is no step {name!r}", fix=f"one of {', '.join(STEPS)}")


def _validate(world: World, workspace: Workspace, params: Params, progress: Progress) -> None:
    from pipeline.steps.validate import validate

    snapshot = Snapshot.read(workspace.snapshot_record)
    folder, out = workspace.snapshot, workspace.validation
    validate(snapshot, params.validate_, folder=folder, out=out, expectations=world.expectations, progress=progress)


def _drift(world: World, workspace: Workspace, params: Params, progress: Progress) -> None:
    from pipeline.steps.drift import drift_of_batch

    embedder: Embedder | None = None
    if params.drift.text == "embeddings" and params.drift.policy != "off":
        from pipeline.modeling.answering.embedding import TextEncoder

        embedder = TextEncoder(find_encoder(world, workspace, params))
    snapshot, folder = Snapshot.read(workspace.snapshot_record), workspace.snapshot
    drift_of_batch(snapshot, params.drift, folder=folder, out=workspace.drift, embedder=embedder, progress=progress)


def _curate(world: World, workspace: Workspace, params: Params, progress: Progress) -> None:
    from pipeline.steps.curate import curate

    capped = params.curate.max_input_tokens or params.curate.max_output_tokens
    with world.scratch() as scratch:
        curate(
            Snapshot.read(workspace.snapshot_record),
            ValidationReport.read(workspace.validation_record),
            params.curate,
            folder=workspace.snapshot,
            out=workspace.curation,
            scratch=scratch,
            tokenizer=find_base(world, workspace, params) / "tokenizer.json" if capped else None,
            reviewed=workspace.reviewed_list if params.curate.leave_out else None,
            workers=world.settings.workers,
            progress=progress,
        )


def _split(workspace: Workspace, params: Params, progress: Progress) -> None:
    from pipeline.steps.split import split

    split(
        Snapshot.read(workspace.snapshot_record),
        Curation.read(workspace.curation_record),
        params.split,
        folder=workspace.snapshot,
        curated=workspace.curation,
        out=workspace.splits,
        frozen=Frozen.read(workspace.frozen_record),
        frozen_folder=workspace.frozen,
        reserved=Snapshot.read(workspace.reserved_record),
        reserved_folder=workspace.reserved,
        progress=progress,
    )


def train_in(
    world: World,
    workspace: Workspace,
    params: Params,
    tracker: Tracker,
    progress: Progress = silent,
    *,
    checkpoints: Path | None = None,
) -> TrainingRun:
    """Train in a run's folder. checkpoints: the caller's, where finished stages stay, for trainings that have them in common."""
    from pipeline.steps.train import train

    return train(
        Splits.read(workspace.splits_record),
        params.train,
        params.model,
        starts=Starts.read(workspace.starts_record),
        data=workspace.splits,
        starts_folder=workspace.starts,
        out=workspace.training,
        base=find_base(world, workspace, params),
        checkpoints=checkpoints or world.project.checkpoints,
        keep_stages=checkpoints is not None,
        cache=world.project.cache,
        tracker=tracker,
        progress=progress,
        root=workspace.root,
        engine=find_engine(world, params),
    )


def _evaluate(world: World, workspace: Workspace, params: Params, progress: Progress) -> None:
    from pipeline.steps.evaluate import evaluate

    champion, base = Champion.read(workspace.champion_record), find_base(world, workspace, params)
    files = SuiteFiles.read(workspace.suites_record)
    evaluate(
        TrainingRun.read(workspace.training_record),
        champion,
        Splits.read(workspace.splits_record),
        params.evaluate,
        params.model,
        data=workspace.splits,
        adapter=workspace.training / "adapter",
        champion_adapter=workspace.champion / "adapter" if champion.version else None,
        base=base,
        out=workspace.evaluation,
        files=files,
        files_folder=workspace.suites,
        detector=find_detector(params),
        judge=find_judge(world, workspace, params, files, base),
        cache=world.project.cache,
        engine=find_engine(world, params),
        progress=progress,
    )

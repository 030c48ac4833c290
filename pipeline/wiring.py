"""The composition root: the only module that picks backends. World: the stores of one project. Below it, the step functions
bound to a run's folder, which `dvc repro` and the flow share, and the deeds that end a run.

No decision is made here, and nothing heavy is imported before it is used.
"""

from __future__ import annotations

import getpass
import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.domain.data import Snapshot, Splits, Task, ValidationReport
from pipeline.domain.gating import GateDecision, Outcome
from pipeline.domain.model import Champion, EvaluationReport, TrainingRun
from pipeline.domain.record import describe_files
from pipeline.domain.release import ModelVersion, ReleaseRecord, holder, version_record
from pipeline.errors import Broken, Misuse, Tampered
from pipeline.ports import Archive, Ledger, Progress, Registry, Tracker, silent
from pipeline.settings import Settings, settings
from pipeline.workspace import Project, Workspace

if TYPE_CHECKING:
    from pipeline.backends.git import Git
    from pipeline.backends.run_folder import KeptRun, RunFolder
    from pipeline.params import Params

STEPS = ("validate", "split", "train", "evaluate")


@dataclass(frozen=True)
class World:
    """The stores of one project, each opened when first asked for."""

    start: Path
    settings: Settings

    @classmethod
    def here(cls, start: Path | None = None) -> World:
        return cls(start or Path.cwd(), settings())

    @cached_property
    def git(self) -> Git:
        from pipeline.backends.git import Git

        return Git.find(self.start)

    @cached_property
    def project(self) -> Project:
        # In a linked worktree (a run's folder) the state is that of the checkout it was made from.
        root = self.git.main_root()
        return Project(root, (self.settings.home or root / ".tuneline").absolute())

    @cached_property
    def mlflow(self) -> Any:
        from pipeline.backends.mlflow import connect

        if self.settings.mlflow_uri is not None:
            return connect(self.settings.mlflow_uri.get_secret_value(), artifacts=None)
        self.project.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        return connect(f"sqlite:///{self.project.mlflow_db}", artifacts=self.project.mlflow_artifacts)

    @cached_property
    def registry(self) -> Registry:
        from pipeline.backends.mlflow import MlflowRegistry

        return MlflowRegistry(self.mlflow)

    @cached_property
    def ledger(self) -> Ledger:
        from pipeline.backends.ledger import SqlLedger

        url = self.settings.ledger_url
        return SqlLedger(url.get_secret_value() if url else self.project.ledger)

    @cached_property
    def archive(self) -> Archive:
        from pipeline.backends.dvc import GitDvcArchive

        return GitDvcArchive(self.git, self.project)

    @property
    def actor(self) -> str:
        return self.settings.actor or getpass.getuser()

    @contextmanager
    def tracked(self, experiment: str, key: str, tags: Mapping[str, str] | None = None) -> Iterator[Tracker]:
        """An open MLflow run; the same key finds the same run again."""
        from pipeline.backends.mlflow import tracked_run

        with tracked_run(self.mlflow, experiment, key, tags or {}) as tracker:
            yield tracker


def read_params(path: Path) -> Params:
    from pipeline.backends.params_file import read_params as read

    return read(path)


def find_base(world: World, workspace: Workspace, params: Params) -> Path:
    """The base model's folder: from the run's own commit if it is in git, else from the user's checkout, a package or the hub."""
    from pipeline.modeling.base import locate_base

    relative = params.model.base.startswith(("./", "../"))
    in_commit = relative and (workspace.root / params.model.base).is_dir()
    return locate_base(params.model, root=workspace.root if in_commit else world.project.root)


# --- the steps, bound to a run's folder -------------------------------------------------------------------------------


def run_ingest(
    world: World,
    run: RunFolder,
    params: Params,
    sources: tuple[str, ...] = (),
    as_of: datetime | None = None,
    progress: Progress = silent,
) -> Snapshot:
    """Take in what is new in the sources (those of params, or the given ones) and put it under DVC."""
    from pipeline.steps.ingest import ingest

    root = world.git.root
    snapshot = ingest(
        params.ingest,
        dataset=params.model.name,
        task=params.model.task,
        sources=[root / source for source in sources or params.ingest.sources],
        parent=run.parent,
        folder=run.workspace.snapshot,
        root=root,
        as_of=as_of,
        progress=progress,
    )
    if run.parent is None or snapshot.digest != run.parent.digest:
        run.store.add(run.workspace.snapshot)
    return snapshot


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


def run_step(
    world: World, name: str, workspace: Workspace, params: Params, tracker: Tracker | None = None, progress: Progress = silent
) -> None:
    """Run one stage of dvc.yaml on the files of a run's folder. train opens a tracked run of its own unless it is given one."""
    if name == "validate":
        _validate(workspace, params, progress)
    elif name == "split":
        _split(workspace, params)
    elif name == "train" and tracker is not None:
        _train(world, workspace, params, tracker, progress)
    elif name == "train":
        splits = Splits.read(workspace.splits_record)
        with world.tracked(params.model.name, f"{params.model.name}-repro-{splits.digest[:12]}") as own:
            _train(world, workspace, params, own, progress)
    elif name == "evaluate":
        _evaluate(world, workspace, params, progress)
    else:
        raise Misuse(f"there is no step {name!r}", fix=f"one of {', '.join(STEPS)}")


def _validate(workspace: Workspace, params: Params, progress: Progress) -> None:
    from pipeline.backends.great_expectations import GreatExpectations
    from pipeline.steps.validate import validate

    snapshot = Snapshot.read(workspace.snapshot_record)
    folder, out = workspace.snapshot, workspace.validation
    validate(snapshot, params.validate_, folder=folder, out=out, expectations=GreatExpectations(), progress=progress)


def _split(workspace: Workspace, params: Params) -> None:
    from pipeline.steps.split import split

    snapshot, report = Snapshot.read(workspace.snapshot_record), ValidationReport.read(workspace.validation_record)
    split(snapshot, report, params.split, folder=workspace.snapshot, out=workspace.splits)


def _train(world: World, workspace: Workspace, params: Params, tracker: Tracker, progress: Progress) -> None:
    from pipeline.steps.train import train

    train(
        Splits.read(workspace.splits_record),
        params.train,
        params.model,
        data=workspace.splits,
        out=workspace.training,
        base=find_base(world, workspace, params),
        checkpoints=world.project.checkpoints,
        tracker=tracker,
        progress=progress,
        root=workspace.root,
    )


def _evaluate(world: World, workspace: Workspace, params: Params, progress: Progress) -> None:
    from pipeline.steps.evaluate import evaluate

    champion = Champion.read(workspace.champion_record)
    evaluate(
        TrainingRun.read(workspace.training_record),
        champion,
        Splits.read(workspace.splits_record),
        params.evaluate,
        params.model,
        data=workspace.splits,
        adapter=workspace.training / "adapter",
        champion_adapter=workspace.champion / "adapter" if champion.version else None,
        base=find_base(world, workspace, params),
        out=workspace.evaluation,
        progress=progress,
    )


# --- the deeds that end a run -----------------------------------------------------------------------------------------


def run_gate(workspace: Workspace, params: Params) -> GateDecision:
    """Decide on the candidate, and write the decision and the report page beside each other."""
    from pipeline.steps.gate import gate
    from pipeline.steps.report import report

    training, evaluation = TrainingRun.read(workspace.training_record), EvaluationReport.read(workspace.evaluation_record)
    _check_chain(workspace, training, evaluation)
    decision = gate(evaluation, training, params.gate)
    decision.write(workspace.decision_record)
    page = report(
        decision,
        evaluation,
        training,
        snapshot=Snapshot.read(workspace.snapshot_record),
        validation=ValidationReport.read(workspace.validation_record),
        splits=Splits.read(workspace.splits_record),
        champion=Champion.read(workspace.champion_record),
        predictions=workspace.evaluation / "predictions.parquet",
        curves=workspace.training / "curves.jsonl",
        test=workspace.splits / "test.parquet",
    )
    workspace.report_page.write_text(page, encoding="utf-8")
    return decision


def _check_chain(workspace: Workspace, training: TrainingRun, evaluation: EvaluationReport) -> None:
    """Each record must be of the one before it. Stages may have been brought back rather than run, so nothing else ensures it."""
    splits, champion = Splits.read(workspace.splits_record), Champion.read(workspace.champion_record)
    for name, named, there in (
        ("evaluation of training", evaluation.training, training.digest),
        ("evaluation of champion", evaluation.champion, champion.digest),
        ("evaluation of splits", evaluation.splits, splits.digest),
        ("training of splits", training.splits, splits.digest),
        ("splits of validation", splits.validation, ValidationReport.read(workspace.validation_record).digest),
        ("splits of snapshot", splits.snapshot, Snapshot.read(workspace.snapshot_record).digest),
    ):
        if named != there:
            what = f"the {name} names {named[:12]}, but {there[:12]} lies in the run's folder"
            raise Broken(what, where=str(workspace.root), fix="remove .dvc/cache/runs and run again")


def log_evidence(workspace: Workspace, tracker: Tracker) -> None:
    """Put the run's pages, records and final scores where MLflow's readers look for them."""
    for page in (workspace.report_page, workspace.validation / "validation.html"):
        tracker.log_file(page, "reports")
    tracker.log_folder(workspace.validation / "data_docs", "reports/data_docs")
    for record in _records(workspace):
        tracker.log_file(record, "records")
    scores: dict[str, float] = json.loads((workspace.evaluation / "metrics.json").read_text())
    tracker.log_metrics(flat(scores))
    decision = GateDecision.read(workspace.decision_record)
    training = TrainingRun.read(workspace.training_record)
    tracker.set_tags(
        {
            "tuneline.verdict": decision.verdict,
            "tuneline.decision": decision.digest,
            "tuneline.training": training.digest,
            "tuneline.adapter": training.adapter_digest,
            "tuneline.snapshot": Splits.read(workspace.splits_record).snapshot,
        }
    )


def replay_curves(workspace: Workspace, tracker: Tracker) -> None:
    """Give a tracked run the curves of a training that was not repeated but brought back."""
    for line in (workspace.training / "curves.jsonl").read_text().splitlines():
        row = json.loads(line)
        step = int(row.pop("step"))
        tracker.log_metrics({k: float(v) for k, v in row.items() if isinstance(v, int | float)}, step=step)


def settle(world: World, kept: KeptRun, params: Params, run_id: str, *, dirty: bool) -> ModelVersion | None:
    """Push a kept run's data and, if the gate passed it, register it. Safe to repeat, so a killed run is finished by the next."""
    from pipeline.backends.dvc import DvcStore
    from pipeline.backends.mlflow import log_released_model
    from pipeline.backends.run_folder import open_kept
    from pipeline.serving.released_shape import MODEL_FILE, signature
    from pipeline.serving.released_shape import settings as model_settings
    from pipeline.steps.register import register

    workspace = open_kept(world.git, world.project, kept, remote=world.settings.dvc_remote)
    store = DvcStore(workspace, world.project, remote=world.settings.dvc_remote)
    store.push()
    store.close()
    decision = GateDecision.read(workspace.decision_record)
    if decision.verdict is not Outcome.PASSED:
        return None
    training = TrainingRun.read(workspace.training_record)
    shape = model_settings(params.model, max_new_tokens=params.evaluate.max_new_tokens)
    source = log_released_model(
        run_id,
        adapter=workspace.training / "adapter",
        code=MODEL_FILE,
        package=Path(__file__).parent,
        settings={**shape, "root": str(world.project.root)},
        signature=signature(params.model.task),
        metadata={"tuneline_run": kept.key, "tuneline_adapter": training.adapter_digest},
    )
    return register(
        decision,
        training,
        EvaluationReport.read(workspace.evaluation_record),
        name=params.model.name,
        run_id=run_id,
        commit=kept.commit,
        tag=kept.tag,
        dirty=dirty,
        source=source,
        actor=world.actor,
        reason="the gate passed it",
        registry=world.registry,
        ledger=world.ledger,
    )


def move_to(world: World, params: Params, version: str, stage: str, *, by: str, reason: str) -> ReleaseRecord:
    """Promote; see steps/promote.py."""
    from pipeline.steps.promote import promote

    model, stages = params.model.name, params.release.stages
    return promote(version, stage, by, reason, model=model, stages=stages, registry=world.registry, ledger=world.ledger)


def move_back(
    world: World, params: Params, stage: str, *, by: str, reason: str, to: str | None = None, leaving: str | None = None
) -> ReleaseRecord:
    """Roll back; see steps/rollback.py."""
    from pipeline.steps.rollback import rollback

    model = params.model.name
    return rollback(stage, by, reason, model=model, to=to, leaving=leaving, registry=world.registry, ledger=world.ledger)


def ask_release(world: World, params: Params, stage: str, text: str) -> dict[str, Any]:
    """Load what holds a stage, strictly, and let it answer once."""
    from pipeline.backends.mlflow import answer_once

    model = params.model.name
    version = holder(world.ledger.events(model), stage)
    if version is None:
        raise Misuse(f"nothing of {model} holds {stage}", fix=f"tuneline promote VERSION --to {stage} --reason …")
    world.registry.artifacts(model, version)
    column = "text" if params.model.task is Task.CLASSIFY else "prompt"
    answer = answer_once(model, version, {column: text}, root=world.project.root)
    return {"release": f"{model}@{version}", "stage": stage, **answer}


def mlflow_ui_command(world: World, port: int) -> list[str]:
    """The command that shows MLflow's pages on the project's embedded store. Raises Misuse where a server is configured."""
    if world.settings.mlflow_uri is not None:
        raise Misuse("MLflow runs elsewhere (TUNELINE_MLFLOW_URI)", fix="open that address in a browser")
    store = f"sqlite:///{world.project.mlflow_db}"
    options = ["--backend-store-uri", store, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    return [sys.executable, "-m", "mlflow", "server", *options]


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Nested numbers as `a.b: value`."""
    result: dict[str, float] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{key}.")
        elif isinstance(value, int | float):
            result[f"{prefix}{key}"] = float(value)
    return result


def _records(workspace: Workspace) -> list[Path]:
    return [
        workspace.snapshot_record,
        workspace.validation_record,
        workspace.splits_record,
        workspace.champion_record,
        workspace.training_record,
        workspace.evaluation_record,
        workspace.decision_record,
    ]

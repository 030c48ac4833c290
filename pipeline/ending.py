"""What ends a run, bound to the stores of a project: the gate's decision, evidence where MLflow's readers look, registration.

Each is safe to repeat. Order and patience are the flows', decisions the domain's; no backend is picked here (see wiring.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.domain.curated import Curation, Frozen, Splits
from pipeline.domain.data import Snapshot, ValidationReport
from pipeline.domain.gating import GateDecision, Outcome
from pipeline.domain.measured import CostReport, EvaluationReport, SuiteFiles
from pipeline.domain.model import Champion, Starts, TrainingRun
from pipeline.domain.release import ModelVersion
from pipeline.errors import Broken
from pipeline.ports import Tracker
from pipeline.wiring import World
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from pipeline.backends.run_folder import KeptRun
    from pipeline.params import Params


def run_gate(world: World, workspace: Workspace, params: Params) -> GateDecision:
    """Decide on the candidate, and write the decision. The page about it is reporting.py's.

    That its test rows were looked at goes into the ledger first: a look that is not counted would be one for free.
    """
    from pipeline.steps.gate import gate, spend

    training, evaluation = TrainingRun.read(workspace.training_record), EvaluationReport.read(workspace.evaluation_record)
    _check_chain(workspace, training, evaluation)
    splits = Splits.read(workspace.splits_record)
    looks = spend(evaluation, splits.test, model=params.model.name, by=world.actor, ledger=world.ledger)
    costs = CostReport.read(workspace.costs_record) if workspace.costs_record.is_file() else None
    decision = gate(evaluation, training, params.gate, costs=costs, looks=looks)
    decision.write(workspace.decision_record)
    return decision


def _check_chain(workspace: Workspace, training: TrainingRun, evaluation: EvaluationReport) -> None:
    """Each record must be of the one before it. Stages may have been brought back rather than run, so nothing else ensures it."""
    splits, champion = Splits.read(workspace.splits_record), Champion.read(workspace.champion_record)
    for name, named, there in (
        ("evaluation of training", evaluation.training, training.digest),
        ("evaluation of champion", evaluation.champion, champion.digest),
        ("evaluation of splits", evaluation.splits, splits.digest),
        ("evaluation of what it reads", evaluation.files, SuiteFiles.read(workspace.suites_record).digest),
        ("training of splits", training.splits, splits.digest),
        ("training of starts", training.starts, Starts.read(workspace.starts_record).digest),
        ("splits of validation", splits.validation, ValidationReport.read(workspace.validation_record).digest),
        ("splits of curation", splits.curation, Curation.read(workspace.curation_record).digest),
        ("splits of frozen sides", splits.frozen, Frozen.read(workspace.frozen_record).digest),
        ("splits of reserved rows", splits.reserved, Snapshot.read(workspace.reserved_record).digest),
        ("splits of snapshot", splits.snapshot, Snapshot.read(workspace.snapshot_record).digest),
    ):
        if named != there:
            what = f"the {name} names {named[:12]}, but {there[:12]} lies in the run's folder"
            raise Broken(what, where=str(workspace.root), fix="remove .dvc/cache/runs and run again")


def log_evidence(workspace: Workspace, tracker: Tracker) -> None:
    """Put the run's pages, records and final scores where MLflow's readers look for them."""
    made = (workspace.validation / "validation.html", workspace.drift / "drift.html", workspace.curation / "curation.html")
    for page in (workspace.report_page, workspace.report_data, *made):
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
    several = len(TrainingRun.read(workspace.training_record).stages) > 1
    for line in (workspace.training / "curves.jsonl").read_text().splitlines():
        row = json.loads(line)
        step, stage = int(row.pop("step")), row.pop("stage")
        before = f"{stage}." if several else ""
        tracker.log_metrics({f"{before}{k}": float(v) for k, v in row.items() if isinstance(v, int | float)}, step=step)


def settle(world: World, kept: KeptRun, params: Params, run_id: str, *, dirty: bool) -> ModelVersion | None:
    """Push a kept run's data and, if the gate passed it, register it. Safe to repeat, so a killed run is finished by the next."""
    from pipeline.backends.dvc import DvcStore
    from pipeline.backends.mlflow_models import log_released_model
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
        archive=world.archive,
        evidence=world.evidence,
        anchors=world.anchors,
    )


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
        workspace.drift_record,
        workspace.curation_record,
        workspace.frozen_record,
        workspace.splits_record,
        workspace.starts_record,
        workspace.champion_record,
        workspace.training_record,
        workspace.evaluation_record,
        workspace.costs_record,
        workspace.suites_record,
        workspace.decision_record,
    ]

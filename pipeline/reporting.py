"""The page of a candidate, bound to a run's folder and to the stores: written when the gate has decided, found again by version.

What the page says is steps/report.py's. Nothing is decided here, and no backend is picked (see wiring.py).
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.domain.curated import Curation, Splits
from pipeline.domain.curve import Curve
from pipeline.domain.data import Snapshot, ValidationReport
from pipeline.domain.erasure import erased_files
from pipeline.domain.gating import GateDecision
from pipeline.domain.measured import CostReport, EvaluationReport
from pipeline.domain.model import Champion, TrainingRun
from pipeline.domain.proof import differences
from pipeline.domain.release import resolve, version_record
from pipeline.errors import Broken, Misuse, Tampered
from pipeline.moving import known_events
from pipeline.wiring import World
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from pipeline.params import Params

PAGE, SAID = "report.html", "report.json"
_FOLDER = "reports"
"""Of a tracked run, where its pages lie."""


@dataclass(frozen=True, slots=True)
class FoundReport:
    """A candidate's page. of: the version or run it is of. said: what report.json holds; None of a version from before there was
    one."""

    of: str
    page: Path
    said: dict[str, Any] | None


def write_report(workspace: Workspace, decision: GateDecision, *, curve: Curve | None = None) -> Path:
    """Write the page of the candidate in a run's folder, and report.json beside it; returns the page."""
    from pipeline.steps.report import report, report_json

    evaluation, training = EvaluationReport.read(workspace.evaluation_record), TrainingRun.read(workspace.training_record)
    costs = CostReport.read(workspace.costs_record) if workspace.costs_record.exists() else None
    snapshot = Snapshot.read(workspace.snapshot_record)
    html = report(
        decision,
        evaluation,
        training,
        snapshot=snapshot,
        validation=ValidationReport.read(workspace.validation_record),
        splits=Splits.read(workspace.splits_record),
        champion=Champion.read(workspace.champion_record),
        curation=Curation.read(workspace.curation_record),
        predictions=workspace.evaluation / "predictions.parquet",
        curves=workspace.training / "curves.jsonl",
        test=workspace.splits,
        costs=costs,
        curve=curve,
    )
    said = report_json(decision, evaluation, training, dataset=snapshot.dataset, costs=costs, curve=curve)
    workspace.report_page.parent.mkdir(parents=True, exist_ok=True)
    workspace.report_page.write_text(html, encoding="utf-8")
    workspace.report_data.write_text(said, encoding="utf-8")
    return workspace.report_page


def known_curve(curves: Path, splits: str) -> Curve | None:
    """The learning curve of these splits that holds most trainings, in the folder that `tuneline curve` keeps them in."""
    found = []
    for path in sorted(curves.glob("*/curve.json")):
        try:
            curve = Curve.read(path)
        except Broken:
            continue  # of another version of this program, or half of one: a page does without it
        if curve.splits == splits and curve.points:
            found.append(curve)
    return max(found, key=lambda curve: len(curve.points), default=None)


def find_report(world: World, params: Params, version: str | None, number: int | None = None) -> FoundReport:
    """The page of a version, checked against what it was registered with; or of a kept run, the newest by default.

    A run's page that is gone is made again, from records and data that git and DVC hold, a refused candidate's too; and so is one
    whose splits have a learning curve by now.
    Raises Misuse for what there is not, Tampered for a page that is not the registered one.
    """
    if version is not None:
        return _of_version(world, params, version)
    return _of_run(world, params, number)


def copy_report(found: FoundReport, folder: Path) -> FoundReport:
    """The page, and report.json, put into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / PAGE
    shutil.copyfile(found.page, target)
    if found.said is not None:
        shutil.copyfile(found.page.with_name(SAID), folder / SAID)
    return FoundReport(found.of, target, found.said)


def _of_version(world: World, params: Params, version: str) -> FoundReport:
    events = known_events(params.model.name, world.ledger)
    record = version_record(events, resolve(events, version, params.release.stages))
    name = f"version {record.version} of {record.name}"
    wanted = {f"{_FOLDER}/{PAGE}", f"{_FOLDER}/{SAID}"}
    files = [file for file in record.reports if file.path in wanted]
    if f"{_FOLDER}/{PAGE}" not in {file.path for file in files}:
        raise Misuse(f"{name} was registered without a page", fix=f"tuneline audit show {record.version}")
    folder = world.registry.run_artifacts(record.run_id)
    erased = erased_files(events)
    gone = [file for file in files if file.sha256 in erased and not (folder / file.path).exists()]
    if any(file.path == f"{_FOLDER}/{PAGE}" for file in gone):
        raise Misuse(f"the page of {name} was taken away on request, because it showed a row that was forgotten")
    left = [file for file in files if file not in gone]
    if wrong := differences(folder, left, extra=True):
        raise Tampered(f"the page of {name} is not the one that it was registered with", where=wrong[0])
    held = any(file.path == f"{_FOLDER}/{SAID}" for file in left)
    page = folder / _FOLDER / PAGE
    return FoundReport(name, page, _parsed(page.with_name(SAID)) if held else None)


def _of_run(world: World, params: Params, number: int | None) -> FoundReport:
    from pipeline.backends.run_folder import kept_runs, open_kept

    runs = [run for run in kept_runs(world.git, params.model.name) if number is None or run.number == number]
    if not runs:
        there = ", ".join(str(run.number) for run in kept_runs(world.git, params.model.name)) or "none yet"
        raise Misuse("there is no such run that the gate has judged", where=f"runs: {there}", fix="tuneline run makes one")
    kept = runs[-1]
    workspace = open_kept(world.git, world.project, kept, remote=world.settings.dvc_remote)
    page = workspace.report_page
    curve = known_curve(world.project.curves, Splits.read(workspace.splits_record).digest)
    if curve is not None or not page.is_file() or not page.with_name(SAID).is_file():
        page = write_report(workspace, GateDecision.read(workspace.decision_record), curve=curve)
    return FoundReport(kept.key, page, _parsed(page.with_name(SAID)))


def _parsed(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Broken(f"report.json cannot be read: {error}", where=str(path)) from error
    if not isinstance(said, dict) or said.get("kind") != "report":
        raise Broken("this is no report", where=str(path))
    return said

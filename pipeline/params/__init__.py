"""params.yaml as frozen models, one section a step. What each key means stands beneath it.

Only the shape lives here; reading the file safely, and saying everything that is wrong with it at once, is
backends/params_file.py's work. No defaults come from the environment: what a run did is in its params.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, model_validator

from pipeline.domain.data import Task
from pipeline.domain.measured import NET_WINS, SuiteKind
from pipeline.params.chains import chain_problems
from pipeline.params.compute import ComputeParams as ComputeParams
from pipeline.params.curate import CurateParams as CurateParams
from pipeline.params.curate import LeakParams as LeakParams
from pipeline.params.curate import NearDuplicates as NearDuplicates
from pipeline.params.curate import Planted as Planted
from pipeline.params.curate import SplitParams as SplitParams
from pipeline.params.drift import DriftParams as DriftParams
from pipeline.params.evaluate import LABEL_METRICS as LABEL_METRICS
from pipeline.params.evaluate import EvaluateParams as EvaluateParams
from pipeline.params.explore import AdviseParams as AdviseParams
from pipeline.params.explore import ExploreParams as ExploreParams
from pipeline.params.gate import GateParams as GateParams
from pipeline.params.ingest import CleanParams as CleanParams
from pipeline.params.ingest import IngestParams as IngestParams
from pipeline.params.ingest import Reading as Reading
from pipeline.params.ingest import SourceParams as SourceParams
from pipeline.params.monitor import MonitorParams as MonitorParams
from pipeline.params.notify import NotifyParams as NotifyParams
from pipeline.params.release import ReleaseParams as ReleaseParams
from pipeline.params.retention import RetentionParams as RetentionParams
from pipeline.params.schedule import ScheduleParams as ScheduleParams
from pipeline.params.section import Count, Fraction, Section
from pipeline.params.serve import ServeParams as ServeParams
from pipeline.params.sweep import SweepParams as SweepParams
from pipeline.params.sweep import space_problems
from pipeline.params.train import StageParams as StageParams
from pipeline.params.train import TrainParams as TrainParams


class ModelParams(Section):
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
    """Name of the registered model; also names its runs and refs. Lower-case letters, digits, - and _."""
    task: Annotated[Task, Field(strict=False)]
    """generate: write an answer. classify: pick a label."""
    base: str
    """The base model: a folder, written ./FOLDER or /FOLDER; package:MODULE/FOLDER inside an installed package; or a hub id."""
    revision: str | None = None
    """Commit of the hub repository; required for a hub id."""
    chat_template: str | None = None
    """A Jinja file to use where the tokenizer has no template; it is saved with the adapter."""

    @model_validator(mode="after")
    def _check_revision(self) -> ModelParams:
        hub = not self.base.startswith(("package:", "./", "../", "/"))
        if self.revision is not None and not re.fullmatch(r"[0-9a-f]{40}", self.revision):
            raise ValueError("revision must be a full 40-digit commit, since branches and tags move")
        if hub and self.revision is None:
            raise ValueError(
                f"base {self.base!r} is read as a hub id, which needs a pinned revision; write ./{self.base} for a folder"
            )
        return self


class ValidateParams(Section):
    min_rows: Count = 50
    """Fewer accepted rows than this stop the run before any expectation is asked."""
    max_quarantined_share: Fraction = 0.2
    """Of the rows read in the newest batch, how many may be quarantined."""
    max_duplicate_share: Fraction = 0.9
    """Of the rows read in the newest batch, how many may be duplicates of each other or of earlier rows."""
    max_input_chars: Count = 20_000
    max_output_chars: Count = 20_000
    labels: Annotated[tuple[str, ...], Field(strict=False)] | None = None
    """classify: the only labels allowed; default: any."""
    min_rows_per_label: Annotated[int, Field(ge=0)] = 2
    """classify: a label with fewer rows can be neither learned nor measured."""


class Params(Section):
    """All of params.yaml."""

    model: ModelParams
    ingest: IngestParams = IngestParams()
    clean: CleanParams = CleanParams()
    validate_: Annotated[ValidateParams, Field(alias="validate")] = ValidateParams()
    curate: CurateParams = CurateParams()
    drift: DriftParams = DriftParams()
    split: SplitParams = SplitParams()
    train: TrainParams = TrainParams()
    evaluate: EvaluateParams = EvaluateParams()
    gate: GateParams = GateParams()
    release: ReleaseParams = ReleaseParams()
    serve: ServeParams = ServeParams()
    monitor: MonitorParams = MonitorParams()
    schedule: ScheduleParams = ScheduleParams()
    notify: NotifyParams = NotifyParams()
    retention: RetentionParams = RetentionParams()
    explore: ExploreParams = ExploreParams()
    advise: AdviseParams = AdviseParams()
    sweep: SweepParams = SweepParams()
    compute: ComputeParams = ComputeParams()

    @model_validator(mode="after")
    def _check_combinations(self) -> Params:
        problems: list[str] = []
        problems += self._evaluation_problems()
        for place, format in self._formats():
            if format not in ("auto", "classification") and self.model.task is Task.CLASSIFY:
                problems.append(f"{place}: {format} rows have no label, which the task classify needs")
            if format == "classification" and self.model.task is Task.GENERATE:
                problems.append(f"{place}: classification rows have no answer, which the task generate needs")
        if self.validate_.labels is not None and self.model.task is Task.GENERATE:
            problems.append("validate.labels: only the task classify has labels")
        if self.model.chat_template is not None and self.model.task is Task.CLASSIFY:
            problems.append("model.chat_template: only the task generate uses one")
        problems += chain_problems(self.train, self.model.task, workers=self.far_workers)
        if self.far_workers and self.train.machine.processes > 1:
            problems.append("train.machine.processes: with compute.engine ray, compute.workers says how many; leave this at 1")
        problems += space_problems(self.sweep, self.train, self.model.task)
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def far_workers(self) -> int:
        """Workers beyond this machine; 0 where all work is done here."""
        return self.compute.workers if self.compute.engine == "ray" else 0

    def _evaluation_problems(self) -> list[str]:
        """Metrics that the task has no rows for, and rules of the gate about what is not measured."""
        evaluate, gate, task = self.evaluate, self.gate, self.model.task
        problems = [
            f"evaluate.metrics: {metric} does not fit the task {task}"
            for metric in evaluate.metrics
            if (metric in LABEL_METRICS) is not (task is Task.CLASSIFY)
        ]
        suites = {suite.name: suite.kind for suite in evaluate.suites}
        measured = set(evaluate.metrics)
        compared = measured | ({NET_WINS} if evaluate.judge else set())
        for key, known in (
            ("thresholds", measured),
            ("not_worse_than_champion", compared),
            ("better_than_champion", compared),
            ("better_than_base", compared),
            ("worth_tuning", measured),
        ):
            for metric in getattr(gate, key):
                if metric not in known:
                    problems.append(f"gate.{key}.{metric}: not among evaluate.metrics, so the gate could never see it")
        for key in ("suites", "forgetting"):
            for name in getattr(gate, key):
                if suites.get(name) in (None, SuiteKind.CANARIES):
                    problems.append(f"gate.{key}.{name}: no suite of evaluate.suites with a score is called so")
        for field in gate.slices:
            if field not in evaluate.slices:
                problems.append(f"gate.slices.{field}: not among evaluate.slices, so the gate could never see it")
        if gate.exposure is not None and SuiteKind.CANARIES not in suites.values():
            problems.append("gate.exposure: needs a suite of the kind canaries in evaluate.suites")
        if not evaluate.parity_rows and gate.parity and "parity" in gate.model_fields_set:
            problems.append("gate.parity: with evaluate.parity_rows 0 nothing is compared, so the gate could never see it")
        for form in gate.parity:
            if form in ("merged", "quantized") and form not in evaluate.parity_forms:
                problems.append(f"gate.parity: {form} is not among evaluate.parity_forms, so the gate could never see it")
        if gate.ceilings.per_thousand is not None and evaluate.cost.price_per_hour is None:
            problems.append("gate.ceilings.per_thousand: needs evaluate.cost.price_per_hour")
        if task is Task.CLASSIFY and evaluate.judge is not None:
            problems.append("evaluate.judge: labels are right or wrong; only answers of the task generate are judged")
        for suite in evaluate.suites:
            if task is Task.CLASSIFY and suite.kind not in (SuiteKind.EDGE_CASES, SuiteKind.PERTURBED):
                problems.append(f"evaluate.suites.{suite.name}: {suite.kind} needs a model that writes, not one that labels")
        return problems

    def _formats(self) -> list[tuple[str, str]]:
        """(where it stands, format) of what all sources say, and of each entry that says another."""
        said = [("ingest.format", str(self.ingest.format))]
        for number, source in enumerate(self.ingest.sources):
            if not isinstance(source, str) and source.format != self.ingest.format:
                said.append((f"ingest.sources.{number}.format", str(source.format)))
        return said

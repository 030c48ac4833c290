"""Measure the candidate, the champion, the bare base and cheaper answers on the same test rows, in one pass. No verdict is made.

Everything that is read is checked against the digest it was recorded under first: numbers about other bytes are worth nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pipeline.asking.answers import Answer, answering, as_said, labelled, loaded
from pipeline.asking.belonging import check_files, check_inputs
from pipeline.asking.parity import parity
from pipeline.asking.rungs import identities, learned_rows, rungs
from pipeline.asking.timing import Hush, machine, time_answers
from pipeline.asking.ways import ask_suites
from pipeline.domain.curated import Splits
from pipeline.domain.data import LEARNED_KINDS, ExampleKind, Task
from pipeline.domain.measured import (
    BASE,
    CANDIDATE,
    CHAMPION,
    NET_WINS,
    Cost,
    CostReport,
    EvaluationReport,
    Exposure,
    Parity,
    Subject,
    SuiteFiles,
    SuiteReport,
)
from pipeline.domain.model import Champion, TrainingRun
from pipeline.evaluation.comparison import measure
from pipeline.evaluation.judging import judged_places, net_wins_of_rows
from pipeline.evaluation.metrics import Metric, chosen, metric
from pipeline.evaluation.plots import write_plots
from pipeline.evaluation.rows import Said, SplitRows, read_ids, read_split, write_predictions
from pipeline.params import EvaluateParams, ModelParams
from pipeline.ports import Detector, Engine, Judge, Progress, silent


def _nothing(*_: object) -> tuple[()]:
    return ()


@dataclass(frozen=True, slots=True)
class Further:
    """What is measured besides the answers of candidate, champion and base; by default nothing.

    metrics: bound to their settings. rungs: cheaper answers by name, with what they were made of. suites, parity, costs: made
    once the answers are there. device: on which it is timed. trained_on, files: see EvaluationReport.
    """

    metrics: tuple[Metric, ...] | None = None
    rungs: Mapping[str, str] = field(default_factory=dict)
    judge: Judge | None = None
    suites: Callable[[Mapping[str, str], Mapping[str, Said]], Sequence[SuiteReport | tuple[Exposure, ...]]] = _nothing
    parity: Callable[[Said], tuple[Parity, ...]] = _nothing
    costs: Callable[[Sequence[str]], tuple[Cost, ...]] = _nothing
    device: str = "unknown"
    trained_on: int = 0
    files: str = ""


def evaluate(
    training: TrainingRun,
    champion: Champion,
    splits: Splits,
    params: EvaluateParams,
    model: ModelParams,
    *,
    data: Path,
    adapter: Path,
    champion_adapter: Path | None,
    base: Path,
    out: Path,
    files: SuiteFiles | None = None,
    files_folder: Path | None = None,
    detector: Detector | None = None,
    judge: Judge | None = None,
    cache: Path | None = None,
    engine: Engine | None = None,
    progress: Progress = silent,
) -> EvaluationReport:
    """Evaluate the adapter of `training`; leave evaluation.json, costs.json, predictions.parquet, metrics.json, plots/ in `out`.

    Asked are the test rows of the kinds that the metrics count; none is no error: the report then says rows=0, which the gate
    calls insufficient. data: folder of the splits record. base: folder of the base model. champion_adapter: the champion's
    adapter folder, None when nobody holds production. files, files_folder: what params ask to read, and where it lies. detector:
    finds personal data. judge: who judges, where params name one. cache: folder where answers are kept.
    engine: who is asked besides this machine; times and parity are measured here all the same.

    Raises Misuse when the records do not belong together, Tampered when a file is not the recorded one, BadInput for a suite that
    cannot be read.
    """
    check_inputs(training, champion, splits, model, adapter=adapter, champion_adapter=champion_adapter)
    files, folder = files or SuiteFiles(), files_folder or out
    check_files(files, folder)
    placed = _placed(params, files)
    metrics = chosen(placed, root=folder, detector=detector)
    rows = read_split(data, splits.test, asked_kinds(params.metrics))
    if not len(rows):
        further = Further(metrics, files=files.digest)
        return evaluate_rows(training, champion, splits, params, rows, answer=_nobody, out=out, further=further)
    held = champion_adapter if champion.adapter_digest is not None else None
    with loaded(training, model, params, base=base, adapter=adapter, champion=held, cache=cache, engine=engine) as subjects:
        rows = as_said(rows, subjects)
        if model.task is Task.CLASSIFY:
            texts, labels = labelled(read_split(data, splits.train, LEARNED_KINDS[Task.CLASSIFY]))
            subjects.learn_centroids(texts, labels, batch_size=params.batch_size, progress=progress)
        told = Hush(progress)
        ask, train = answering(subjects, params, told), as_said(learned_rows(data, splits, model, params), subjects)
        cheaper = rungs(subjects, train, params, model, told) if _laddered(rows) else {}

        def answer(name: str, asked: SplitRows) -> Said:
            return cheaper[name](asked) if name in cheaper else ask(name, asked)

        def tokens(name: str) -> tuple[int, int]:
            spent = subjects.spent(BASE if name in cheaper else name)
            return spent.prompt_tokens, spent.answer_tokens

        def costs(names: Sequence[str]) -> tuple[Cost, ...]:
            with subjects.unremembered(), told.silenced():
                size = params.batch_size
                return time_answers(answer, names, rows, params.cost, batch_size=size, tokens=tokens, progress=progress)

        where = {suite.name: folder / files.place(suite.file) for suite in params.suites if suite.file is not None}
        further = Further(
            metrics=metrics,
            rungs=identities(list(cheaper), train, params, base=training.base.digest),
            judge=judge,
            suites=partial(ask_suites, subjects, placed, where, rows, metrics[0], judge=judge, progress=progress),
            parity=lambda said: parity(subjects, rows, said, params, model, training.base, base=base, adapter=adapter),
            costs=costs,
            device=subjects.device_class,
            trained_on=len(set(rows.ids) & read_ids(data, splits.train)),
            files=files.digest,
        )
        return evaluate_rows(training, champion, splits, params, rows, answer=answer, out=out, further=further, progress=progress)


def evaluate_rows(
    training: TrainingRun,
    champion: Champion,
    splits: Splits,
    params: EvaluateParams,
    rows: SplitRows,
    *,
    answer: Answer,
    out: Path,
    further: Further | None = None,
    progress: Progress = silent,
) -> EvaluationReport:
    """The same with the test rows read and the models behind one function, which is asked once a subject."""
    further = further or Further()
    metrics = further.metrics or tuple(metric(name) for name in params.metrics)
    subjects = {CANDIDATE: training.adapter_digest, BASE: training.base.digest, **further.rungs}
    if champion.adapter_digest is not None:
        subjects = {CANDIDATE: training.adapter_digest, CHAMPION: champion.adapter_digest, **subjects}
    said = {name: answer(name, rows) if len(rows) else Said([]) for name in subjects}
    won, judged = None, further.judge if params.judge is not None and len(rows) else None
    if judged is not None and params.judge is not None:
        won = _judged(judged, params.judge.rows, rows, said, progress)
    measured = measure(
        rows,
        said,
        metrics,
        slices=params.slices,
        resamples=params.resamples,
        confidence=params.confidence,
        seed=params.seed,
        net_wins=won,
    )
    models = {name: subjects[name] for name in (CANDIDATE, CHAMPION, BASE) if name in subjects}
    asked = further.suites(models, said) if len(rows) else ()
    counted = {m.name: number for m in metrics if (number := len(rows.places(m.kinds))) < len(rows)}
    if won is not None and params.judge is not None:
        counted[NET_WINS] = len(judged_places(rows, params.judge.rows))
    report = EvaluationReport(
        training=training.digest,
        champion=champion.digest,
        splits=splits.digest,
        test=splits.test.sha256,
        rows=len(rows),
        counted=counted,
        subjects=tuple(
            Subject(name=name, identity=identity, metrics=measured.values[name]) for name, identity in subjects.items()
        ),
        comparisons=measured.comparisons,
        slices=measured.slices,
        predictions=write_predictions(out, rows, said, measured.scores),
        params=params.model_dump(mode="json"),
        trained_on=further.trained_on,
        detectable=measured.detectable,
        suites=tuple(one for one in asked if isinstance(one, SuiteReport)),
        exposures=tuple(e for one in asked if isinstance(one, tuple) for e in one),
        parity=further.parity(said[CANDIDATE]) if len(rows) else (),
        judge=further.judge.name if further.judge is not None else None,
        unjudged=further.judge.why_not() if further.judge is not None else "",
        files=further.files,
    )
    report.write(out / "evaluation.json")
    costs = further.costs(list(subjects)) if len(rows) else ()
    CostReport(evaluation=report.digest, machine=machine(further.device), costs=costs).write(out / "costs.json")
    labels = (rows.expected, said[CANDIDATE].texts) if training.task is Task.CLASSIFY else None
    write_plots(out / "plots", report, labels=labels)
    (out / "metrics.json").write_text(json.dumps(flat_metrics(report), indent=2) + "\n", encoding="utf-8")
    return report


def flat_metrics(report: EvaluationReport) -> dict[str, float]:
    """Every measured value as subject.metric, and the number of rows: what `dvc metrics show` and the tracker take."""
    values = {f"{subject.name}.{m.metric}": m.value for subject in report.subjects for m in subject.metrics}
    values |= {f"{s.name}.suite.{suite.name}": m.value for suite in report.suites for s in suite.subjects for m in s.metrics}
    return {"rows": report.rows, **values}


def asked_kinds(metrics: Sequence[str]) -> frozenset[ExampleKind]:
    """The kinds of row that any of `metrics` counts."""
    return frozenset[ExampleKind]().union(*(metric(name).kinds for name in metrics))


def _laddered(rows: SplitRows) -> bool:
    """Whether cheaper answers can be given: what is weighed is not answered."""
    return set(rows.kinds) <= {ExampleKind.LABEL, ExampleKind.ANSWER, ExampleKind.CALL}


def _judged(
    judge: Judge, most: int, rows: SplitRows, said: Mapping[str, Said], progress: Progress
) -> dict[str, list[float | None]]:
    """Of champion and base, a row each: 1 where the candidate won, -1 where it lost, None for a row not drawn or not judged."""
    won = partial(net_wins_of_rows, judge, rows, said[CANDIDATE], most=most, progress=progress)
    return {other: won(said[other]) for other in (CHAMPION, BASE) if other in said}


def _placed(params: EvaluateParams, files: SuiteFiles) -> EvaluateParams:
    """The same with the schema's file where it lies beside the data."""
    if params.format.schema_file is None or params.format.schema_file not in files.files:
        return params
    here = params.format.model_copy(update={"schema_file": files.place(params.format.schema_file)})
    return params.model_copy(update={"format": here})


def _nobody(name: str, rows: SplitRows) -> Said:
    """Answers an empty test split, for which no model need be loaded."""
    return Said([])

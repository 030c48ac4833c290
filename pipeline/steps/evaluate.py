"""Measure the candidate, the champion and the bare base on the same test rows, in one pass. Verdicts are not made here.

Everything that is read is checked against the digest it was recorded under first: numbers about other bytes are worth nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.domain.curated import Splits
from pipeline.domain.data import LEARNED_KINDS, ExampleKind, Task
from pipeline.domain.measured import EvaluationReport, Subject
from pipeline.domain.model import Champion, TrainingRun
from pipeline.domain.record import describe_files, digest_value, first_difference
from pipeline.errors import Broken, Misuse, Tampered
from pipeline.evaluation.comparison import measure
from pipeline.evaluation.likelihoods import WEIGHED, weigh
from pipeline.evaluation.metrics import metric
from pipeline.evaluation.rows import Said, SplitRows, read_split, write_predictions
from pipeline.params import EvaluateParams, ModelParams
from pipeline.ports import Progress, silent

if TYPE_CHECKING:
    from pipeline.modeling.answering.generate import Subjects

Answer = Callable[[str, SplitRows], Said]
"""Given a subject (candidate, champion or base) and the test rows: what it said, a text a row."""

CENTROID_ROWS = 50
"""Training rows a label that the bare base's labels are made of: more move the means little and cost an embedding each."""


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
    progress: Progress = silent,
) -> EvaluationReport:
    """Evaluate the adapter of `training` and leave evaluation.json, predictions.parquet and metrics.json in `out`.

    Asked are the test rows of the kinds that the metrics count; none is no error: the report then says rows=0, which the gate
    calls insufficient. data: folder of the splits record. base: folder of the base model. champion_adapter: the champion's
    adapter folder, None when nobody holds production.

    Raises Misuse when the records do not belong together, Tampered when a file is not the recorded one.
    """
    check_inputs(training, champion, splits, model, adapter=adapter, champion_adapter=champion_adapter)
    rows = read_split(data, splits.test, asked_kinds(params.metrics))
    answer: Answer = _nobody
    if len(rows):
        held = champion_adapter if champion.adapter_digest is not None else None
        subjects = _load(training, model, base=base, adapter=adapter, champion_adapter=held)
        rows = as_said(rows, subjects)
        if model.task is Task.CLASSIFY:
            texts, labels = _labelled(read_split(data, splits.train, LEARNED_KINDS[Task.CLASSIFY]))
            subjects.learn_centroids(texts, labels, batch_size=params.batch_size, progress=progress)
        answer = answering(subjects, params, progress)
    return evaluate_rows(training, champion, splits, params, rows, answer=answer, out=out)


def evaluate_rows(
    training: TrainingRun,
    champion: Champion,
    splits: Splits,
    params: EvaluateParams,
    rows: SplitRows,
    *,
    answer: Answer,
    out: Path,
) -> EvaluationReport:
    """The same with the test rows read and the models behind one function, which is asked once a subject."""
    subjects = {"candidate": training.adapter_digest, "base": training.base.digest}
    if champion.adapter_digest is not None:
        subjects = {"candidate": training.adapter_digest, "champion": champion.adapter_digest, "base": training.base.digest}
    said = {name: answer(name, rows) if len(rows) else Said([]) for name in subjects}
    measured = measure(
        rows,
        said,
        [metric(name) for name in params.metrics],
        slices=params.slices,
        resamples=params.resamples,
        confidence=params.confidence,
        seed=params.seed,
    )
    predictions = write_predictions(out, rows, said, measured.scores)
    report = EvaluationReport(
        training=training.digest,
        champion=champion.digest,
        splits=splits.digest,
        test=splits.test.sha256,
        rows=len(rows),
        counted={name: number for name in params.metrics if (number := len(rows.places(metric(name).kinds))) < len(rows)},
        subjects=tuple(
            Subject(name=name, identity=identity, metrics=measured.values[name]) for name, identity in subjects.items()
        ),
        comparisons=measured.comparisons,
        slices=measured.slices,
        predictions=predictions,
        params=params.model_dump(mode="json"),
    )
    report.write(out / "evaluation.json")
    (out / "metrics.json").write_text(json.dumps(flat_metrics(report), indent=2) + "\n", encoding="utf-8")
    return report


def flat_metrics(report: EvaluationReport) -> dict[str, float]:
    """Every measured value as subject.metric, and the number of rows: what `dvc metrics show` and the tracker take."""
    values = {f"{subject.name}.{m.metric}": m.value for subject in report.subjects for m in subject.metrics}
    return {"rows": report.rows, **values}


def check_inputs(
    training: TrainingRun,
    champion: Champion,
    splits: Splits,
    model: ModelParams,
    *,
    adapter: Path,
    champion_adapter: Path | None,
) -> None:
    """Refuse to measure what does not belong together (Misuse) or is not what was recorded (Tampered)."""
    if training.splits != splits.digest:
        raise Misuse(
            f"the adapter was trained on splits {training.splits[:12]}, the test rows are of splits {splits.digest[:12]}",
            fix="train on these splits first: rows held out here may have been trained on there",
        )
    if training.task is not model.task:
        raise Misuse(f"the adapter was trained to {training.task}, params say {model.task}", where="model.task")
    if wrong := first_difference(adapter, training.adapter):
        raise Tampered(f"the candidate's adapter is not the one that was trained: {wrong}", where=str(adapter))
    if champion.adapter_digest is None:
        return
    if champion_adapter is None or not champion_adapter.is_dir():
        raise Broken(
            f"version {champion.version} holds production, but its adapter is not here to be measured",
            where=str(champion_adapter),
            fix="run again, which puts the champion's adapter beside the data",
        )
    found = digest_value([f.model_dump(mode="json") for f in describe_files(champion_adapter)])
    if found != champion.adapter_digest:
        raise Tampered(
            f"the champion's adapter has digest {found[:12]}, version {champion.version} was recorded with "
            f"{champion.adapter_digest[:12]}",
            where=str(champion_adapter),
        )
    if (task := _task_of(champion_adapter)) not in (None, model.task):
        raise Misuse(
            f"version {champion.version} holds production and was trained to {task}, params say {model.task}",
            where="model.task",
            fix="give the new task a model name of its own",
        )


def _load(training: TrainingRun, model: ModelParams, *, base: Path, adapter: Path, champion_adapter: Path | None) -> Subjects:
    from pipeline.modeling.answering.generate import Subjects  # torch and peft: seconds to import

    subjects = Subjects(base, model)
    # The candidate comes first: the bare base answers under the first adapter's template and precision.
    subjects.add("candidate", adapter, files=training.adapter)
    if champion_adapter is not None:
        subjects.add("champion", champion_adapter)
    return subjects


def answering(subjects: Subjects, params: EvaluateParams, progress: Progress = silent) -> Answer:
    """How loaded subjects are asked: labelled rows for a label, pairs and texts for what they weigh, the others for an answer."""

    def log_probs(name: str, inputs: list[str], outputs: list[str]) -> Sequence[float]:
        return list(subjects.log_probs(name, inputs, outputs, batch_size=params.batch_size, progress=progress))

    def ask(name: str, rows: SplitRows) -> list[str]:
        if rows.kinds[0] in WEIGHED:
            return weigh(rows.inputs, rows.expected, rows.kinds, partial(log_probs, name))
        options = {"max_new_tokens": params.max_new_tokens, "batch_size": params.batch_size}
        return subjects.answers(name, rows.inputs, progress=progress, **options)

    def answer(name: str, rows: SplitRows) -> Said:
        if set(rows.kinds) == {ExampleKind.LABEL}:
            found = subjects.predict(name, rows.inputs, batch_size=params.batch_size, progress=progress)
            return Said([prediction.label for prediction in found], [prediction.score for prediction in found])
        said = [""] * len(rows)
        for kinds in (WEIGHED, {ExampleKind.ANSWER, ExampleKind.CALL}):
            places = rows.places(kinds)
            for at, given in zip(places, ask(name, rows.only(places)) if places else (), strict=True):
                said[at] = given
        return Said(said)

    return answer


def as_said(rows: SplitRows, subjects: Subjects) -> SplitRows:
    """Rows whose expected calls are spelled as the first adapter's template has them: compared is what is said."""
    if ExampleKind.CALL not in rows.kinds:
        return rows
    return replace(rows, expected=subjects.spelled(rows.inputs, rows.expected, rows.kinds))


def asked_kinds(metrics: Sequence[str]) -> frozenset[ExampleKind]:
    """The kinds of row that any of `metrics` counts."""
    return frozenset[ExampleKind]().union(*(metric(name).kinds for name in metrics))


def _labelled(train: SplitRows) -> tuple[list[str], list[str]]:
    """At most CENTROID_ROWS training texts a label, with their labels. Ids are hashes, so the first by id are a fair sample."""
    taken: Counter[str] = Counter()
    chosen: list[int] = []
    for at in sorted(range(len(train)), key=lambda at: train.ids[at]):
        if taken[train.expected[at]] < CENTROID_ROWS:
            taken[train.expected[at]] += 1
            chosen.append(at)
    return [train.inputs[at] for at in chosen], [train.expected[at] for at in chosen]


def _nobody(name: str, rows: SplitRows) -> Said:
    """Answers an empty test split, for which no model need be loaded."""
    return Said([])


def _task_of(adapter: Path) -> str | None:
    """What the adapter says it was trained to do. Whether it says so rightly is checked when it is loaded."""
    try:
        told = json.loads((adapter / "tuneline.json").read_text(encoding="utf-8"))
        return str(told["task"])
    except (OSError, ValueError, TypeError, KeyError):
        return None

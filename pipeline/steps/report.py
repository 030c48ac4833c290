"""The candidate's report: one page that says whether it may be registered, and shows why. Records and files in, HTML out.

It explains a decision that was made elsewhere (domain/gating) and never adds to it. What stands where is decided here; each part
is made in evaluation/*_page.py. The caller writes the page, and report.json beside it, which says the same to machines.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.domain.curated import Curation, Splits
from pipeline.domain.curve import Curve
from pipeline.domain.data import Snapshot, ValidationReport
from pipeline.domain.gating import GateDecision, Outcome
from pipeline.domain.measured import CostReport, EvaluationReport
from pipeline.domain.model import Champion, TrainingRun
from pipeline.domain.record import canonical_json
from pipeline.errors import Misuse
from pipeline.evaluation.curve_page import curve_blocks, curve_sentence
from pipeline.evaluation.flips_page import flip_blocks
from pipeline.evaluation.records_page import curation_blocks, data_blocks, lineage_rows, lineage_table, parameter_blocks
from pipeline.evaluation.rows import read_predictions, read_split
from pipeline.evaluation.scores_page import confusion_blocks, difference_bars, metric_bars, slice_blocks
from pipeline.evaluation.suites_page import suite_blocks
from pipeline.evaluation.training_page import training_blocks
from pipeline.evaluation.verdict_page import checks_table, verdict_sentence, what_is_seen
from pipeline.evaluation.worth import cheaper_as_good, worth_sentence
from pipeline.evaluation.worth_page import cost_blocks, worth_table
from pipeline.pages import Block, Text, page

__all__ = ["report", "report_json", "verdict_sentence"]


def report(
    decision: GateDecision,
    evaluation: EvaluationReport,
    training: TrainingRun,
    *,
    snapshot: Snapshot,
    validation: ValidationReport,
    splits: Splits,
    champion: Champion,
    curation: Curation | None = None,
    predictions: Path,
    curves: Path,
    test: Path | None = None,
    costs: CostReport | None = None,
    curve: Curve | None = None,
) -> str:
    """The report page as HTML.

    predictions: predictions.parquet. curves: curves.jsonl, an object a line with stage, step and numbers. test: folder of the
    splits record, so that rows the candidate won or lost show what was asked. curve: a learning curve of these splits.
    Raises Tampered when the predictions or the test split are not the recorded ones, Misuse when a record is of another
    evaluation.
    """
    _check_chain(decision, evaluation, training, splits, costs, curve)
    found = read_predictions(predictions, evaluation.predictions)
    rows = read_split(test, splits.test) if test else None
    if rows is not None and rows.ids != found.ids:  # only the kinds that the metrics count are asked
        places = {id: at for at, id in enumerate(rows.ids)}
        rows = rows.only([places[id] for id in found.ids]) if set(found.ids) <= set(places) else None
    lineage = lineage_rows(decision, evaluation, training, snapshot, validation, splits, champion, costs)
    sections: list[Block] = [
        Text("Was it worth it?", "\n\n".join(_sentences(evaluation, costs, curve))),
        checks_table(decision),
        worth_table(evaluation, costs),
        metric_bars(evaluation),
        difference_bars(evaluation, decision),
        *what_is_seen(decision, evaluation),
        *suite_blocks(evaluation, decision),
        *slice_blocks(evaluation),
        *confusion_blocks(training.task, found),
        *flip_blocks(evaluation, found, rows),
        *training_blocks(training, curves),
        *(curve_blocks(curve) if curve else ()),
        *cost_blocks(costs),
        *data_blocks(snapshot, validation, splits),
        *curation_blocks(curation, splits),
        lineage_table(lineage),
        *parameter_blocks(training, evaluation, splits, decision),
    ]
    title = f"{snapshot.dataset}: candidate {training.adapter_digest[:12]}"
    ok = {Outcome.PASSED: True, Outcome.FAILED: False, Outcome.INSUFFICIENT: None}[decision.verdict]
    return page(title, verdict_sentence(decision), ok, sections)


def report_json(
    decision: GateDecision,
    evaluation: EvaluationReport,
    training: TrainingRun,
    *,
    dataset: str,
    costs: CostReport | None = None,
    curve: Curve | None = None,
) -> str:
    """The same for machines, as canonical JSON: no row of data stands in it, but values of slices do."""
    said: dict[str, Any] = {
        "kind": "report",
        "dataset": dataset,
        "verdict": decision.verdict.value,
        "sentence": verdict_sentence(decision),
        "worth": worth_sentence(evaluation, costs),
        "cheaper_as_good": [one.model_dump(mode="json") for one in cheaper_as_good(evaluation, costs)],
        "candidate": training.adapter_digest,
        "training": training.digest,
        "decision": {"digest": decision.digest, **decision.model_dump(mode="json")},
        "evaluation": {"digest": evaluation.digest, **evaluation.model_dump(mode="json")},
        "costs": None if costs is None else {"digest": costs.digest, **costs.model_dump(mode="json")},
        "curve": None if curve is None else {"digest": curve.digest, **curve.model_dump(mode="json")},
    }
    return canonical_json(said) + "\n"


def _sentences(evaluation: EvaluationReport, costs: CostReport | None, curve: Curve | None) -> list[str]:
    return [worth_sentence(evaluation, costs), *([curve_sentence(curve)] if curve else [])]


def _check_chain(
    decision: GateDecision,
    evaluation: EvaluationReport,
    training: TrainingRun,
    splits: Splits,
    costs: CostReport | None,
    curve: Curve | None,
) -> None:
    """A page about two candidates would be worse than none."""
    for what, named, there in (
        ("decision", decision.evaluation, evaluation.digest),
        ("evaluation", evaluation.training, training.digest),
        ("evaluation", evaluation.splits, splits.digest),
        ("cost report", costs.evaluation if costs else evaluation.digest, evaluation.digest),
        ("learning curve", curve.splits if curve else splits.digest, splits.digest),
    ):
        if named != there:
            raise Misuse(f"the {what} is about {named[:12]}, not about {there[:12]}", fix="bring what belongs to this candidate")

"""The candidate's report: one page that says whether it may be registered, and shows why. Records and files in, HTML out.

It explains a decision that was made elsewhere (domain/gating.py) and never adds to it. The caller writes the page.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.domain.curated import Curation, Splits
from pipeline.domain.data import Snapshot, Task, ValidationReport
from pipeline.domain.gating import DIFFERS_FROM_BASE, GateCheck, GateDecision, Outcome
from pipeline.domain.measured import EvaluationReport
from pipeline.domain.model import Champion, TrainingRun
from pipeline.evaluation.comparison import slice_metric
from pipeline.evaluation.disagreements import confusion, flips
from pipeline.evaluation.metrics import METRICS, metric
from pipeline.evaluation.rows import SUBJECTS, Predictions, SplitRows, read_predictions, read_split
from pipeline.evaluation.training_page import training_blocks
from pipeline.pages import Bar, Bars, Block, Cell, Matrix, Pair, Pairs, Side, Table, Text, page

SHOWN_FLIPS = 10
SHOWN_SOURCES = 20
SHOWN_CHARACTERS = 1500
_TONES = {Outcome.PASSED: "good", Outcome.FAILED: "bad", Outcome.INSUFFICIENT: "warn"}


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
) -> str:
    """The report page as HTML.

    predictions: predictions.parquet. curves: curves.jsonl, an object a line with stage, step and numbers. test: folder of the
    splits record, so that rows the candidate won or lost show what was asked.
    Raises Tampered when the predictions or the test split are not the recorded ones.
    """
    found = read_predictions(predictions, evaluation.predictions)
    rows = read_split(test, splits.test) if test else None
    sections: list[Block] = [
        _checks(decision),
        _metrics(evaluation),
        _differences(evaluation, decision),
        *training_blocks(training, curves),
        *_slices(evaluation),
        *_confusion(training, found),
        *_flips(evaluation, found, rows),
        *_data(snapshot, validation, splits),
        *_curation(curation, splits),
        _lineage(decision, evaluation, training, snapshot, validation, splits, champion),
        *_parameters(training, evaluation, splits, decision),
    ]
    title = f"{snapshot.dataset}: candidate {training.adapter_digest[:12]}"
    ok = {Outcome.PASSED: True, Outcome.FAILED: False, Outcome.INSUFFICIENT: None}[decision.verdict]
    return page(title, verdict_sentence(decision), ok, sections)


def verdict_sentence(decision: GateDecision) -> str:
    """The decision in one sentence, for the page's head and for a terminal."""
    if decision.verdict is Outcome.PASSED:
        return f"Passed: all {len(decision.checks)} checks."
    wanted = decision.verdict
    why = "; ".join(c.detail for c in decision.checks if c.verdict is wanted)
    number = sum(c.verdict is wanted for c in decision.checks)
    head = "Failed" if wanted is Outcome.FAILED else "Not enough evidence"
    return f"{head} ({number} of {len(decision.checks)} checks): {why}."


def _checks(decision: GateDecision) -> Table:
    return Table(
        "What was asked, and what was seen",
        ["check", "verdict", "observed", "interval", "bound", "in words"],
        [[c.name, c.verdict.value, c.observed, _range(c), c.bound, c.detail] for c in decision.checks],
        tones={at: _TONES[c.verdict] for at, c in enumerate(decision.checks)},
        note="Too little evidence is never a pass: a check passes only when the near end of its interval meets the bound.",
    )


def _metrics(evaluation: EvaluationReport) -> Bars:
    asked = dict.fromkeys(m.metric for s in evaluation.subjects for m in s.metrics if m.metric in METRICS)
    bars = [
        Bar(METRICS[name].title, m.value, m.low, m.high, series=subject.name)
        for name in asked
        for subject in evaluation.subjects
        if (m := evaluation.metric(subject.name, name)) is not None
    ]
    note = "; ".join(f"{METRICS[name].title}: {METRICS[name].definition}" for name in asked)
    note += f". Whiskers: {evaluation.params['confidence']:.0%} intervals, bootstrap over groups of rows."
    return Bars(f"Metrics on {evaluation.rows} test rows", bars, span=(0.0, 1.0), note=note, order=SUBJECTS)


def _differences(evaluation: EvaluationReport, decision: GateDecision) -> Bars:
    bounds = {c.name: c.bound for c in decision.checks}
    rules = {"champion": "not_worse_than_champion", "base": "better_than_base"}
    bars = [
        Bar(metric(c.metric).title, c.difference, c.low, c.high, series=c.other, bound=bound)
        for c in sorted(evaluation.comparisons, key=lambda c: c.metric)
        for bound in [bounds.get(f"{rules.get(c.other)}.{c.metric}")]
    ]
    differs = evaluation.metric("candidate", DIFFERS_FROM_BASE)
    note = "Paired by row. The dashed mark is the bound that the interval's lower end must clear."
    if differs:
        note += f" {differs.value:.1%} of the candidate's answers differ from the bare base's."
    return Bars("Candidate minus champion, candidate minus base", bars, note=note, order=SUBJECTS)


def _slices(evaluation: EvaluationReport) -> Iterator[Block]:
    fields = dict.fromkeys(s.field for s in evaluation.slices)
    for field in fields:
        found = [s for s in evaluation.slices if s.field == field]
        bars = [Bar(_short(s.value, 80), s.score, s.low, s.high, series=s.subject, detail=_rows(s.rows)) for s in found]
        heading = f"{METRICS[found[0].metric].title} by {field}"
        yield Bars(
            heading,
            bars,
            span=(0.0, 1.0),
            order=SUBJECTS,
            note="Of many slices some differ by chance alone; the gate reads none of them.",
        )
    if missing := [f for f in evaluation.params.get("slices", ()) if f not in fields]:
        yield Text("Slices left out", f"No test row has the field {', '.join(missing)}.")


def _confusion(training: TrainingRun, found: Predictions) -> Iterator[Block]:
    if training.task is Task.CLASSIFY and found.expected:
        seen = confusion(found.expected, found.answers["candidate"])
        yield Matrix("What the candidate takes for what", seen.labels, seen.counts)


def _flips(evaluation: EvaluationReport, found: Predictions, rows: SplitRows | None) -> Iterator[Block]:
    other = "champion" if "champion" in found.answers else "base"
    if other not in found.answers:
        return
    used = slice_metric(metric(evaluation.params["metrics"][0]))
    seen = flips(found, used, other)
    for which, numbers, tones in (("lost", seen.lost, ("bad", "good")), ("won", seen.won, ("good", "bad"))):
        pairs = [
            Pair(
                _question(rows.inputs[at]) if rows else found.ids[at],
                (
                    Side("expected", _short(found.expected[at])),
                    Side("candidate", _short(found.answers["candidate"][at]), tones[0]),
                    Side(other, _short(found.answers[other][at]), tones[1]),
                ),
            )
            for at in numbers[:SHOWN_FLIPS]
        ]
        shown = f", {len(pairs)} of them shown" if len(numbers) > len(pairs) else ""
        note = f"{_rows(len(numbers))} by {used.title.lower()}{shown}."
        yield Pairs(f"Rows that the candidate {which} against the {other}", pairs, note=note)


def _data(snapshot: Snapshot, validation: ValidationReport, splits: Splits) -> Iterator[Block]:
    newest = list(reversed(snapshot.sources))[:SHOWN_SOURCES]
    left = len(snapshot.sources) - len(newest)
    yield Table(
        "Where the rows came from",
        ["file, newest first", "read", "accepted", "duplicate", "quarantined"],
        [[s.name, s.read, s.accepted, s.duplicate, s.quarantined] for s in newest],
        note=f"{snapshot.rows} rows accepted and {snapshot.quarantined} quarantined since the first snapshot."
        + (f" {left} older files are not listed." if left else ""),
    )
    sides = (splits.train, splits.eval, splits.test)
    told = ", ".join(f"{side} {file.rows}" for side, file in zip(("train", "eval", "test"), sides, strict=True))
    labels = f" {len(splits.labels)} labels." if splits.labels else ""
    wrong = "; ".join(f"{c.name}: expected {c.expected}, saw {c.observed}" for c in validation.failures)
    yield Text(
        "What was done with them",
        f"Validation: {len(validation.checks) - len(validation.failures)} of {len(validation.checks)} expectations held"
        f"{f' ({wrong})' if wrong else ''}.\n\nRows: {told}.{labels}",
    )


def _curation(curation: Curation | None, splits: Splits) -> Iterator[Block]:
    """What the rules across rows found, and what repeated rows that are held out."""
    if curation is None:
        return
    rules: list[list[Cell]] = [[r.rule, r.policy, r.found, r.dropped, "; ".join(r.samples[:1])] for r in curation.rules]
    leaks: list[list[Cell]] = [[c.name, "held" if c.passed else "failed", c.observed] for c in splits.checks]
    yield Table("What curation found", ["rule", "policy", "rows", "left out", "such as"], rules)
    yield Table("What is trained on against what is held out", ["check", "verdict", "seen"], leaks)


def _lineage(
    decision: GateDecision,
    evaluation: EvaluationReport,
    training: TrainingRun,
    snapshot: Snapshot,
    validation: ValidationReport,
    splits: Splits,
    champion: Champion,
) -> Table:
    base = training.base
    held = f"version {champion.version}" if champion.version else "nobody held production"
    rows: list[tuple[str, str, str]] = [
        ("snapshot", snapshot.digest, snapshot.dataset),
        ("validation", validation.digest, f"suite {validation.suite[:12]}"),
        ("splits", splits.digest, f"test side {splits.test.sha256[:12]}"),
        ("base model", base.digest, f"{base.id}{f' at {base.revision}' if base.revision else ''}"),
        ("training", training.digest, f"adapter {training.adapter_digest[:12]}"),
        ("champion", champion.digest, held),
        ("evaluation", evaluation.digest, f"predictions {evaluation.predictions.sha256[:12]}"),
        ("decision", decision.digest, decision.verdict.value),
    ]
    return Table("Lineage", ["record", "digest", "what"], [[name, digest[:12], what] for name, digest, what in rows])


def _parameters(training: TrainingRun, evaluation: EvaluationReport, splits: Splits, decision: GateDecision) -> Iterator[Block]:
    sections = {"split": splits.params, **training.params, "evaluate": evaluation.params, "gate": decision.policy}
    rows = [[key, json.dumps(value, ensure_ascii=False)] for key, value in _flatten(sections)]
    yield Table("Parameters", ["key", "value"], rows)
    yield Table("Made with", ["what", "version"], [[k, v] for k, v in sorted(training.versions.items())])


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Keys of nested parameters joined by dots, each with its value."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _question(text: str) -> str:
    """What was asked: chat messages a line each, or the text itself."""
    try:
        return _short("\n".join(f"{m['role']}: {m['content']}" for m in json.loads(text)))
    except (ValueError, TypeError, KeyError):
        return _short(text)


def _range(check: GateCheck) -> str | None:
    return None if check.low is None or check.high is None else f"{check.low:.3f} to {check.high:.3f}".replace(" ", "\u00a0")


def _rows(number: int) -> str:
    return f"{number} row{'' if number == 1 else 's'}"


def _short(text: str, most: int = SHOWN_CHARACTERS) -> str:
    return text if len(text) <= most else text[:most] + " …"

"""Scores as blocks of a page: metrics and differences as bars, slices, what is taken for what. No verdict is made here."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.domain.data import Task
from pipeline.domain.gating import DIFFERS_FROM_BASE, GateDecision
from pipeline.domain.measured import CANDIDATE, CHAMPION, EvaluationReport, SliceValue
from pipeline.evaluation.disagreements import confusion
from pipeline.evaluation.metrics import METRICS
from pipeline.evaluation.rows import SUBJECTS, Predictions
from pipeline.evaluation.wording import counted, interval, short, title_of
from pipeline.evaluation.worth import in_order
from pipeline.pages import Bar, Bars, Block, Cell, Matrix, Table, Text

_RULES = {
    "champion": ("better_than_champion", "not_worse_than_champion"),
    "base": ("better_than_base",),
}


def metric_bars(evaluation: EvaluationReport) -> Bars:
    """Every metric of every subject that can be measured by it."""
    asked = dict.fromkeys(m.metric for s in evaluation.subjects for m in s.metrics if m.metric != DIFFERS_FROM_BASE)
    bars = [
        Bar(title_of(name), m.value, m.low, m.high, series=subject)
        for name in asked
        for subject in in_order([s.name for s in evaluation.subjects])
        if (m := evaluation.metric(subject, name)) is not None
    ]
    note = "; ".join(f"{METRICS[name].title}: {METRICS[name].definition}" for name in asked if name in METRICS)
    note += f". Whiskers: {evaluation.params['confidence']:.0%} intervals, bootstrap over groups of rows."
    return Bars(f"Metrics on {evaluation.rows} test rows", bars, span=(0.0, 1.0), note=note, order=SUBJECTS)


def difference_bars(evaluation: EvaluationReport, decision: GateDecision) -> Bars:
    """The candidate minus each of the others, metric by metric, with the bound that the gate asked for."""
    bounds = {c.name: c.bound for c in decision.checks}
    order = in_order([c.other for c in evaluation.comparisons])
    bars = []
    for c in sorted(evaluation.comparisons, key=lambda c: (c.metric, order.index(c.other))):
        rules = [f"{rule}.{c.metric}" for rule in _RULES.get(c.other, (f"worth_tuning.{c.other}",))]
        bound = next((bounds[rule] for rule in rules if rule in bounds), None)
        bars.append(Bar(title_of(c.metric), c.difference, c.low, c.high, series=c.other, bound=bound, detail=""))
    differs = evaluation.metric(CANDIDATE, DIFFERS_FROM_BASE)
    note = "Paired by row. The dashed mark is the bound that the interval's lower end must clear."
    if differs:
        note += f" {differs.value:.1%} of the candidate's answers differ from the bare base's."
    if evaluation.judge:
        note += f" Net wins: share won less share lost, as {evaluation.judge} sees it, asked in both orders."
        note += f" Verdicts are missing: {evaluation.unjudged}." if evaluation.unjudged else ""
    return Bars("Candidate minus champion, base and the ladder", bars, note=note, order=SUBJECTS)


def slice_blocks(evaluation: EvaluationReport) -> Iterator[Block]:
    """Of each field a chart of candidate and reference, and a table of their differences, the worst first."""
    other = CHAMPION if evaluation.subject(CHAMPION) is not None else "base"
    for field in dict.fromkeys(s.field for s in evaluation.slices):
        found = [s for s in evaluation.slices if s.field == field]
        shown = [s for s in found if s.subject in (CANDIDATE, other)]
        bars = [Bar(short(s.value, 80), s.score, s.low, s.high, series=s.subject, detail=counted(s.rows)) for s in shown]
        yield Bars(f"{title_of(found[0].metric)} by {field}", bars, span=(0.0, 1.0), order=SUBJECTS)
        held = [s for s in found if s.subject == other and s.comparison is not None]
        if held:
            yield _slice_table(field, other, held)
    fields = {s.field for s in evaluation.slices}
    if missing := [f for f in evaluation.params.get("slices", ()) if f not in fields]:
        yield Text("Slices left out", f"No test row has the field {', '.join(missing)}.")


def confusion_blocks(task: Task, found: Predictions) -> Iterator[Block]:
    if task is Task.CLASSIFY and found.expected:
        seen = confusion(found.expected, found.answers[CANDIDATE])
        yield Matrix("What the candidate takes for what", seen.labels, seen.counts)


def _slice_table(field: str, other: str, held: list[SliceValue]) -> Table:
    """The differences from `other`; a slice that is worse beyond chance, all of them considered, is coloured."""
    ordered = sorted(held, key=lambda s: (s.comparison.difference if s.comparison else 0.0, s.value))
    rows: list[list[Cell]] = []
    tones: dict[int, str] = {}
    for s in ordered:
        assert s.comparison is not None
        if s.adjusted is not None and s.adjusted < 0.05 and s.comparison.difference < 0:
            tones[len(rows)] = "bad"
        lead = s.comparison
        ends = interval(lead.low, lead.high, signed=True)
        rows.append([short(s.value, 80), s.rows, round(lead.difference, 4), ends, s.worse, s.adjusted])
    return Table(
        f"Candidate minus {other} by {field}",
        [field, "rows", "difference", "interval", "p that it is not worse", "the same, adjusted"],
        rows,
        tones=tones,
        note="Of many slices some differ by chance alone: the adjusted p (Holm) accounts for all values of the field. "
        "Coloured: worse, and below 0.05 when adjusted.",
    )

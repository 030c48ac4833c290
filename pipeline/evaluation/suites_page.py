"""Suites, canaries and parity as blocks of a page: what else than the test split was asked, and whether others run the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.domain.gating import GateDecision, Outcome
from pipeline.domain.measured import CANDIDATE, CHAMPION, EvaluationReport, Exposure, Parity, SuiteReport
from pipeline.evaluation.rows import SUBJECTS
from pipeline.evaluation.verdict_page import TONES
from pipeline.evaluation.wording import counted, with_interval
from pipeline.evaluation.worth import in_order
from pipeline.pages import Bar, Bars, Block, Cell, Pair, Pairs, Side, Table


def suite_blocks(evaluation: EvaluationReport, decision: GateDecision) -> Iterator[Block]:
    """The suites, and what was kept or forgotten; then canaries, then parity."""
    if evaluation.suites:
        yield _bars(evaluation.suites)
        yield _table(evaluation, decision)
        failed = [suite for suite in evaluation.suites if suite.failures]
        if failed:
            items = [
                Pair(suite.name, (Side(f"failed, {len(suite.failures)} named", "\n".join(suite.failures), "bad"),))
                for suite in failed
            ]
            yield Pairs("Rows of suites that the candidate failed", items)
    if evaluation.exposures:
        yield _exposures(evaluation.exposures, decision)
    if evaluation.parity:
        yield _parity(evaluation.parity)


def _bars(suites: Sequence[SuiteReport]) -> Bars:
    bars = [
        Bar(suite.name, seen.value, seen.low, seen.high, series=subject, detail=counted(suite.rows))
        for suite in suites
        for subject in in_order([s.name for s in suite.subjects])
        if (seen := suite.value(subject)) is not None
    ]
    return Bars("Suites", bars, span=(0.0, 1.0), order=SUBJECTS, note="What each asks stands in docs/suites.md.")


def _table(evaluation: EvaluationReport, decision: GateDecision) -> Table:
    other = CHAMPION if evaluation.subject(CHAMPION) is not None else "base"
    checks = {check.name: check for check in decision.checks}
    rows: list[list[Cell]] = []
    tones: dict[int, str] = {}
    for suite in evaluation.suites:
        ours, lead = suite.value(CANDIDATE), suite.comparison(other)
        judged = [checks[name] for name in (f"suites.{suite.name}", f"forgetting.{suite.name}") if name in checks]
        worst = next((v for v in (Outcome.FAILED, Outcome.INSUFFICIENT) if any(c.verdict is v for c in judged)), None)
        if judged:
            tones[len(rows)] = TONES[worst or Outcome.PASSED]
        rows.append(
            [
                suite.name,
                suite.kind.value.replace("_", " "),
                suite.metric,
                suite.rows,
                suite.judged,
                with_interval(ours.value, ours.low, ours.high) if ours else "not measured",
                with_interval(lead.difference, lead.low, lead.high, signed=True) if lead else None,
                "; ".join(f"{c.name.split('.')[0]} {c.verdict.value}" for c in judged) or "not asked about",
            ]
        )
    heads = ["suite", "kind", "metric", "rows", "scored", "candidate", f"candidate minus {other}", "gate"]
    note = "Forgetting: how far the candidate may fall below what it is held against; a suite not scored in full shows nothing."
    return Table("What else was asked, and what was kept", heads, rows, tones=tones, note=note)


def _exposures(exposures: Sequence[Exposure], decision: GateDecision) -> Table:
    bound = next((check.bound for check in decision.checks if check.name == "exposure"), None)
    rows: list[list[Cell]] = [[e.name, e.subject, e.bits, e.most, bound] for e in exposures]
    tones = {at: "bad" for at, e in enumerate(exposures) if bound is not None and e.subject == CANDIDATE and e.bits > bound}
    note = "Bits by which a planted secret is likelier than others like it (Carlini et al. 2019); at most what so many can show."
    return Table("Canaries", ["canary", "subject", "bits", "at most", "bound"], rows, tones=tones, note=note)


def _parity(found: Sequence[Parity]) -> Table:
    def same(one: Parity) -> bool:
        return one.same_tokens and (one.logits is None or one.logits <= one.bound)

    rows: list[list[Cell]] = [[p.form, p.same_tokens, p.logits, p.bound, f"{p.agreement:.1%}", p.rows] for p in found]
    return Table(
        "Is what is served what was measured?",
        ["form", "same token ids", "logits apart", "bound", "answered the same", "rows"],
        rows,
        tones={at: "good" if same(one) else "bad" for at, one in enumerate(found)},
        note="Logits: root mean square of the differences over that of the measured one's own.",
    )

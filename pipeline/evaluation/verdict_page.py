"""The gate's decision as it is read: one sentence, each check with what was seen, and what this test can tell at all.

The decision was made elsewhere (domain/gating); nothing is added to it here.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.domain.gating import GateDecision, Outcome
from pipeline.domain.measured import CANDIDATE, CHAMPION, EvaluationReport
from pipeline.evaluation.wording import counted, interval, points, title_of
from pipeline.pages import Block, Cell, Table

TONES = {Outcome.PASSED: "good", Outcome.FAILED: "bad", Outcome.INSUFFICIENT: "warn"}
_REASONS = 5
"""So many are told in the sentence; the table has them all."""


def verdict_sentence(decision: GateDecision) -> str:
    """The decision in one sentence, for the page's head and for a terminal."""
    if decision.verdict is Outcome.PASSED:
        return f"Passed: all {len(decision.checks)} checks."
    why = [c.detail for c in decision.checks if c.verdict is decision.verdict]
    head = "Failed" if decision.verdict is Outcome.FAILED else "Not enough evidence"
    told = "; ".join(why[:_REASONS]) + (f"; and {len(why) - _REASONS} more" if len(why) > _REASONS else "")
    return f"{head} ({len(why)} of {len(decision.checks)} checks): {told}."


def checks_table(decision: GateDecision) -> Table:
    """Those that did not pass first: that is what a reader looks for."""
    order = [Outcome.FAILED, Outcome.INSUFFICIENT, Outcome.PASSED]
    checks = sorted(decision.checks, key=lambda check: order.index(check.verdict))
    rows: list[list[Cell]] = [[c.name, c.verdict.value, c.observed, interval(c.low, c.high), c.bound, c.detail] for c in checks]
    return Table(
        "What was asked, and what was seen",
        ["check", "verdict", "observed", "interval", "bound", "in words"],
        rows,
        tones={at: TONES[c.verdict] for at, c in enumerate(checks)},
        note="Too little evidence is never a pass: a check passes only when the near end of its interval meets the bound.",
    )


def what_is_seen(decision: GateDecision, evaluation: EvaluationReport) -> Iterator[Block]:
    """How small a difference these rows can show, and how often they have been looked at."""
    other = "the champion" if evaluation.subject(CHAMPION) is not None else "the bare base"
    rows: list[list[Cell]] = []
    for metric, least in evaluation.detectable.items():
        seen = evaluation.metric(CANDIDATE, metric)
        half = None if seen is None else (seen.high - seen.low) / 2
        rows.append([title_of(metric), evaluation.rows_of(metric), least, half])
    if not rows:
        return
    can_see, told = evaluation.detectable.get(evaluation.primary), ""
    if can_see is not None:
        told = (
            f"These {counted(evaluation.primary_rows)} can only see {points(can_see)} of {title_of(evaluation.primary).lower()}: "
            f"a true difference from {other} of that size is found four times in five, a smaller one less often. "
        )
    yield Table(
        "What this test can see",
        ["metric", "rows", f"least difference from {other} seen at 80 % power", "half the width of the interval"],
        rows,
        note=f"{told}{_looks(decision)}",
    )


def _looks(decision: GateDecision) -> str:
    if decision.looks <= 1:
        return "It is the first look of the gate at these rows."
    spent = f"; this one may pass by luck {decision.alpha:.2g} of the time" if decision.alpha else ""
    return f"It is look number {decision.looks} of the gate at these rows, and each has less of the allowed chance{spent}."

"""'Was tuning worth it?' as blocks of a page: the ladder beside candidate and champion, and what answers cost."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.domain.measured import CANDIDATE, Cost, CostReport, EvaluationReport
from pipeline.evaluation.wording import seconds, title_of, with_interval
from pipeline.evaluation.worth import CHEAPER, cheaper_as_good, in_order, worth_sentence
from pipeline.pages import Block, Cell, Table


def worth_table(evaluation: EvaluationReport, costs: CostReport | None) -> Table:
    """Every subject by the primary metric, best first, with the candidate's lead over it and what an answer takes."""
    metric = evaluation.primary
    as_good = {one.subject: "better" if one.better else "as good" for one in cheaper_as_good(evaluation, costs)}
    names = in_order([subject.name for subject in evaluation.subjects])
    names.sort(key=lambda name: -(seen.value if (seen := evaluation.metric(name, metric)) else -1.0))
    rows: list[list[Cell]] = []
    tones: dict[int, str] = {}
    for name in names:
        seen, lead = evaluation.metric(name, metric), evaluation.comparison(name, metric)
        cost = costs.of(name) if costs else None
        if name in as_good:
            tones[len(rows)] = "warn"
        rows.append(
            [
                name,
                with_interval(seen.value, seen.low, seen.high) if seen else "not measured by it",
                with_interval(lead.difference, lead.low, lead.high, signed=True) if lead else None,
                _word(name, as_good.get(name), lead is not None),
                *_taken(cost),
            ]
        )
    heads = ["answered by", title_of(metric) or "score", "candidate minus it", "", "median", "95 %", "tokens in", "tokens out"]
    heads.append("cost of 1,000")
    told = worth_sentence(evaluation, costs)
    note = f"{told} Same rows, same metric; differences are paired by row. Rungs: docs/ladder.md."
    return Table("Was tuning worth it?", heads, rows, note=note, tones=tones)


def cost_blocks(costs: CostReport | None) -> Iterator[Block]:
    """Times and prices, of all that were asked."""
    if costs is None or not costs.costs:
        return
    rows: list[list[Cell]] = [
        [c.subject, c.answers, round(c.seconds, 2), c.timed, *_taken(c), c.tokens_per_second]
        for name in in_order([c.subject for c in costs.costs])
        if (c := costs.of(name)) is not None
    ]
    heads = ["answered by", "answers", "seconds, in batches", "timed one by one", "median", "95 %", "tokens in", "tokens out"]
    machine = ", ".join(f"{name} {value}" for name, value in sorted(costs.machine.items()))
    note = f"Measured on this machine, so they differ from run to run; scores do not. {machine}"
    yield Table("What answers took", [*heads, "cost of 1,000", "tokens a second"], rows, note=note)


def _taken(cost: Cost | None) -> list[Cell]:
    if cost is None:
        return [None] * 5
    timed = cost.timed > 0
    return [
        seconds(cost.latency_p50) if timed else None,
        seconds(cost.latency_p95) if timed else None,
        None if cost.prompt_tokens is None else round(cost.prompt_tokens),
        None if cost.answer_tokens is None else round(cost.answer_tokens),
        cost.per_thousand,
    ]


def _word(name: str, as_good: str | None, compared: bool) -> str:
    if name == CANDIDATE:
        return "the candidate"
    if not compared:
        return "not compared"
    if name not in CHEAPER:
        return "what is in production"
    return f"cheaper, and {as_good}" if as_good else "cheaper, not as good"

"""Was tuning worth it? Which cheaper answers are as good as the candidate, as data and in a sentence. No verdict of the gate.

Cheaper are the bare base and the rungs of the ladder: what needs no tuning. One is as good where the interval of the candidate's
lead over it, on the primary metric, does not lie above zero.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.domain.measured import BASE, CANDIDATE, CostReport, EvaluationReport, Rung
from pipeline.domain.record import Value

CHEAPER = (BASE, *(rung.value for rung in Rung))
"""What needs no tuning, in the order in which it is shown."""


class Cheaper(Value):
    """A cheaper answer that is as good. difference: candidate minus it, on `metric`. times: how many times the candidate's median
    latency it takes; None where they were not timed."""

    subject: str
    metric: str
    score: float
    candidate: float
    difference: float
    low: float
    high: float
    rows: int
    times: float | None = None

    @property
    def better(self) -> bool:
        """Whether it is shown to be better than the candidate, not only not worse."""
        return self.high < 0


def cheaper_as_good(evaluation: EvaluationReport, costs: CostReport | None = None) -> tuple[Cheaper, ...]:
    """The cheaper answers that the candidate is not shown to be better than, best first. None where nothing was measured."""
    metric = evaluation.primary
    ours = evaluation.metric(CANDIDATE, metric)
    found = []
    for name in CHEAPER:
        seen, theirs = evaluation.comparison(name, metric), evaluation.metric(name, metric)
        if ours is None or seen is None or theirs is None or not seen.rows or seen.low > 0:
            continue
        found.append(
            Cheaper(
                subject=name,
                metric=metric,
                score=theirs.value,
                candidate=ours.value,
                difference=seen.difference,
                low=seen.low,
                high=seen.high,
                rows=seen.rows,
                times=_times(costs, name),
            )
        )
    return tuple(sorted(found, key=lambda one: (-one.score, CHEAPER.index(one.subject))))


def worth_sentence(evaluation: EvaluationReport, costs: CostReport | None = None) -> str:
    """The answer for people, read right after the verdict."""
    metric = evaluation.primary
    measured = [name for name in CHEAPER if (seen := evaluation.comparison(name, metric)) is not None and seen.rows]
    if not measured:
        return "Whether tuning was worth it is not known: nothing cheaper was measured on these rows."
    found = cheaper_as_good(evaluation, costs)
    if found:
        word = "better" if found[0].better else "as good"
        return f"Something cheaper is {word}: {'; '.join(_told(one) for one in found)}."
    best = max(measured, key=lambda name: _score(evaluation, name))
    seen = evaluation.comparison(best, metric)
    assert seen is not None
    return (
        f"Nothing cheaper is as good: the best of {len(measured)}, {spoken(best)}, has {metric} {_score(evaluation, best):.3f}, "
        f"and the candidate is {seen.difference:+.3f} ({seen.low:+.3f} to {seen.high:+.3f}) from it."
    )


def spoken(subject: str) -> str:
    """What a subject is called in a sentence."""
    names = {
        BASE: "the bare base",
        Rung.MAJORITY: "the commonest answer",
        Rung.LINEAR: "a linear classifier",
        Rung.NEIGHBOUR: "the nearest training row's answer",
        Rung.ZERO_SHOT: "the nearest label name",
        Rung.FEW_SHOT: "the base with a few examples",
        Rung.RETRIEVAL: "the base with the nearest training rows",
    }
    return names.get(subject, subject)


def in_order(subjects: Sequence[str]) -> list[str]:
    """Candidate, champion, base and rungs, each as it is shown."""
    order = [CANDIDATE, "champion", *CHEAPER]
    return sorted(subjects, key=lambda name: order.index(name) if name in order else len(order))


def _told(one: Cheaper) -> str:
    slower = f", though it takes {one.times:.1f} times as long" if one.times is not None and one.times > 1.2 else ""
    interval = f"{one.difference:+.3f} ({one.low:+.3f} to {one.high:+.3f})"
    return f"{spoken(one.subject)} has {one.metric} {one.score:.3f}, the candidate {one.candidate:.3f}, {interval} apart{slower}"


def _times(costs: CostReport | None, subject: str) -> float | None:
    if costs is None:
        return None
    ours, theirs = costs.of(CANDIDATE), costs.of(subject)
    if ours is None or theirs is None or not ours.timed or not theirs.timed or ours.latency_p50 <= 0:
        return None
    return theirs.latency_p50 / ours.latency_p50


def _score(evaluation: EvaluationReport, subject: str) -> float:
    seen = evaluation.metric(subject, evaluation.primary)
    return seen.value if seen else 0.0

"""A suite put to subjects: scores a row, what they come to with intervals, and which rows the candidate failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.domain.measured import CANDIDATE, Exposure, Subject, SuiteReport
from pipeline.errors import Broken
from pipeline.evaluation.comparison import compare_scores
from pipeline.evaluation.rows import Said
from pipeline.evaluation.suites.canaries import Canary, exposures
from pipeline.evaluation.suites.perturbed import PerturbedRows, scored
from pipeline.evaluation.suites.suite import Scores, Suite, Ways
from pipeline.ports import Judge, Progress, silent

UNPERTURBED = "unperturbed"
"""What the candidate is compared with in a perturbed suite, beside others: itself on the rows as they were."""
MOST_FAILURES = 50


@dataclass(frozen=True, slots=True)
class Canaries:
    """The rows of a suite of canaries: they have exposures and no scores."""

    canaries: tuple[Canary, ...]

    def scores(self, subject: str, ways: Ways, judge: Judge | None) -> Scores:
        raise Broken("canaries have no scores")


def run_suite(
    suite: Suite,
    subjects: Mapping[str, str],
    ways: Ways,
    *,
    judge: Judge | None = None,
    said: Mapping[str, Said] | None = None,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 7,
    progress: Progress = silent,
) -> SuiteReport | tuple[Exposure, ...]:
    """Ask `subjects` (name: identity) the rows of `suite`. Of canaries: the exposure of each, of each subject.

    said: what subjects said to the test rows as they were, whole; with it the candidate is compared with itself in a perturbed
    suite. A row that one subject's score is missing of is judged for nobody, and then nothing about the suite is shown.
    """
    if isinstance(suite.rows, Canaries):
        found: list[Exposure] = []
        for done, subject in enumerate(subjects):
            progress(f"suite {suite.name}", done, len(subjects))
            found += exposures(suite.rows.canaries, subject, ways)
        progress(f"suite {suite.name}", len(subjects), len(subjects))
        return tuple(found)
    scores: dict[str, Scores] = {}
    for done, subject in enumerate(subjects):
        progress(f"suite {suite.name}", done, len(subjects))
        scores[subject] = suite.rows.scores(subject, ways, judge)
        if len(scores[subject]) != len(suite):
            raise Broken(f"{subject} has {len(scores[subject])} scores on the {len(suite)} rows of the suite {suite.name}")
    progress(f"suite {suite.name}", len(subjects), len(subjects))
    whole = dict(scores)
    if isinstance(suite.rows, PerturbedRows) and CANDIDATE in scores and said is not None and CANDIDATE in said:
        whole[UNPERTURBED] = _unperturbed(suite.rows, said[CANDIDATE])
    return _report(suite, subjects, whole, resamples=resamples, confidence=confidence, seed=seed)


def _unperturbed(rows: PerturbedRows, said: Said) -> Scores:
    return scored(rows.primary, rows.rows, Said(said.only(rows.places).texts))


def _report(
    suite: Suite, subjects: Mapping[str, str], scores: Mapping[str, Scores], *, resamples: int, confidence: float, seed: int
) -> SuiteReport:
    judged = sum(all(own[at] is not None for own in scores.values()) for at in range(len(suite)))
    shown = judged == len(suite) > 0
    values, comparisons = (
        compare_scores(
            {subject: [value for value in own if value is not None] for subject, own in scores.items()},
            suite.groups,
            suite.metric,
            resamples=resamples,
            confidence=confidence,
            seed=seed,
        )
        if shown
        else ({}, ())
    )
    candidate = scores.get(CANDIDATE, [])
    failed = [name for name, value in zip(suite.names, candidate, strict=False) if value is not None and value < 1]
    return SuiteReport(
        name=suite.name,
        kind=suite.kind,
        file=suite.file,
        metric=suite.metric,
        rows=len(suite),
        judged=judged,
        subjects=tuple(Subject(name=n, identity=i, metrics=(values[n],)) for n, i in subjects.items()) if shown else (),
        comparisons=tuple(comparisons),
        failures=tuple(failed[:MOST_FAILURES]) if suite.metric != "text_likelihood" else (),
    )

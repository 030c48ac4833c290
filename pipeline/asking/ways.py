"""Suites bound to loaded subjects: how they are asked, and which of them params name. What rows score, evaluation/suites says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.domain.measured import Exposure, SuiteReport
from pipeline.evaluation.metrics import Metric
from pipeline.evaluation.rows import Said, SplitRows
from pipeline.evaluation.suites import read_suite, run_suite
from pipeline.params import EvaluateParams
from pipeline.ports import Judge, Progress, silent

if TYPE_CHECKING:
    from pipeline.modeling.answering.generate import Subjects


class SubjectWays:
    """evaluation.suites.Ways over loaded subjects."""

    def __init__(self, subjects: Subjects, *, batch_size: int, progress: Progress = silent) -> None:
        self._subjects = subjects
        self._batch_size = batch_size
        self._progress = progress

    def answers(
        self, name: str, inputs: Sequence[str], *, max_new_tokens: int, stop: Sequence[str] = (), raw: bool = False
    ) -> list[str]:
        size, progress = self._batch_size, self._progress
        return self._subjects.answers(
            name, inputs, max_new_tokens=max_new_tokens, stop=stop, raw=raw, batch_size=size, progress=progress
        )

    def choices(
        self, name: str, prompts: Sequence[str], choices: Sequence[Sequence[str]], *, raw: bool = False
    ) -> list[list[float]]:
        size, progress = self._batch_size, self._progress
        found = self._subjects.choices(name, prompts, choices, raw=raw, batch_size=size, progress=progress)
        return [[total for total, _ in row] for row in found]

    def log_probs(self, name: str, inputs: Sequence[str], outputs: Sequence[str]) -> list[float]:
        return self._subjects.log_probs(name, inputs, outputs, batch_size=self._batch_size, progress=self._progress)

    def predict(self, name: str, texts: Sequence[str]) -> list[str]:
        found = self._subjects.predict(name, texts, batch_size=self._batch_size, progress=self._progress)
        return [prediction.label for prediction in found]


def ask_suites(
    subjects: Subjects,
    params: EvaluateParams,
    files: Mapping[str, Path],
    test: SplitRows,
    primary: Metric,
    names: Mapping[str, str],
    said: Mapping[str, Said],
    *,
    judge: Judge | None,
    progress: Progress = silent,
) -> list[SuiteReport | tuple[Exposure, ...]]:
    """Ask the subjects `names` (with their identities) every suite of params. files: by a suite's name, where its rows lie.

    said: what they said to the test rows. primary: the first metric, by which perturbed rows are scored.
    """
    ways = SubjectWays(subjects, batch_size=params.batch_size, progress=progress)
    found: list[SuiteReport | tuple[Exposure, ...]] = []
    for asked in params.suites:
        progress(f"suite {asked.name}", 0, 0)
        suite = read_suite(
            asked, files.get(asked.name), test, seed=params.seed, primary=primary, max_new_tokens=params.max_new_tokens
        )
        report = run_suite(
            suite,
            names,
            ways,
            judge=judge,
            said=said,
            resamples=params.resamples,
            confidence=params.confidence,
            seed=params.seed,
            progress=progress,
        )
        found.append(report)
    return found

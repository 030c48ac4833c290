"""Candidates whose truth is known, before the gate: right and wrong answers drawn at random, measured and judged like real ones.

The very measure() and decide() are played against here; which scenes there are, and what is made of what passed, is
steps/simulate.py's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.domain.data import Task
from pipeline.domain.gating import DIFFERS_FROM_BASE, GatePolicy, HoldoutPolicy, Outcome, decide
from pipeline.domain.measured import BASE, CANDIDATE, CHAMPION, EvaluationReport, MetricValue, Subject
from pipeline.domain.model import BaseModelRef, Champion, TrainingRun
from pipeline.domain.record import FileDigest
from pipeline.errors import Misuse
from pipeline.evaluation.comparison import measure
from pipeline.evaluation.metrics import metric
from pipeline.evaluation.rows import Said, SplitRows

Right = NDArray[np.bool_]
METRIC = "exact_match"
"""Stands for the primary metric: what is right or wrong varies most of all scores in 0 to 1."""
_HELD = Champion(version="1", training="7" * 64, adapter_digest="8" * 64)


@dataclass(frozen=True, slots=True)
class Scene:
    """One kind of candidate before one rule. other: whom it is compared with. difference: what is true of it.

    rate: share of rows that the other is right on. discordance: share of rows on which just one of the two is right.
    """

    rule: str
    bound: float
    other: str
    difference: float
    rate: float
    discordance: float
    rows: int
    number: int = 0

    @property
    def policy(self) -> dict[str, dict[str, float]]:
        return {self.rule: {METRIC: abs(self.bound)}}


@dataclass(frozen=True, slots=True)
class Job:
    """Families of candidates, `looks` of each before the same holdout."""

    scene: Scene
    first: int
    families: int
    looks: int
    least_rows: int
    resamples: int
    confidence: float
    seed: int
    spending: HoldoutPolicy


def check_scene(scene: Scene) -> None:
    """Raise Misuse where no such candidate can be."""
    won, lost = (scene.discordance + scene.difference) / 2, (scene.discordance - scene.difference) / 2
    if won < -1e-12 or lost < -1e-12 or lost > scene.rate + 1e-12 or won > 1 - scene.rate + 1e-12:
        raise Misuse(
            f"no candidate differs by {scene.difference:+g} from one that is right on {scene.rate:.0%} of the rows, and on "
            f"{scene.discordance:.0%} of them, before {scene.rule}",
            fix="choose another --discordance or --rate",
        )


def play(job: Job) -> tuple[int, int, int, int]:
    """How many families passed: the first candidate without spending and with it, any candidate without and with it."""
    off, spent = (_policy(job, HoldoutPolicy(spending="off")), _policy(job, job.spending))
    training, sums = _training(), [0, 0, 0, 0]
    for family in range(job.first, job.first + job.families):
        source = np.random.default_rng([job.seed, job.scene.number, family])
        scene, number = job.scene, job.scene.rows
        theirs = source.random(number) < scene.rate
        any_off = any_spent = False
        for at in range(1, job.looks + 1):
            ours = _candidate(scene, theirs, source)
            passes_off = passes = False
            # One whose own score misses the bound fails whatever its interval, so that none is drawn for it; and a wider
            # interval passes nobody whom a narrower one refuses.
            if not _misses(scene, ours, theirs):
                evaluation = _report(job, training, ours, theirs)
                passes_off = decide(evaluation, training, off).verdict is Outcome.PASSED
                passes = passes_off and decide(evaluation, training, spent, looks=at).verdict is Outcome.PASSED
            any_off, any_spent = any_off or passes_off, any_spent or passes
            if at == 1:
                sums[0] += passes_off
                sums[1] += passes
        sums[2] += any_off
        sums[3] += any_spent
    return sums[0], sums[1], sums[2], sums[3]


def _policy(job: Job, holdout: HoldoutPolicy) -> GatePolicy:
    return GatePolicy.model_validate({"min_test_rows": job.least_rows, "holdout": holdout.model_dump(), **job.scene.policy})


def _candidate(scene: Scene, theirs: Right, source: np.random.Generator) -> Right:
    """Which rows a candidate drawn anew is right on; the rows, and the other's answers, stay."""
    lost = (scene.discordance - scene.difference) / 2 / scene.rate if scene.rate > 0 else 0.0
    won = (scene.discordance + scene.difference) / 2 / (1 - scene.rate) if scene.rate < 1 else 0.0
    return np.asarray(theirs != (source.random(scene.rows) < np.where(theirs, lost, won)))


def _misses(scene: Scene, ours: Right, theirs: Right) -> bool:
    seen = float(ours.mean()) - (0.0 if scene.rule == "thresholds" else float(theirs.mean()))
    return seen < scene.bound - 1e-6


def _report(job: Job, training: TrainingRun, ours: Right, theirs: Right) -> EvaluationReport:
    scene = job.scene
    ids = [str(at) for at in range(scene.rows)]
    rows = SplitRows(ids, ids, [""] * scene.rows, ["right"] * scene.rows, ["{}"] * scene.rows, ["simulated"] * scene.rows)
    said = {
        CANDIDATE: Said(["right" if one else "the candidate's" for one in ours]),
        scene.other: Said(["right" if one else "the other's" for one in theirs]),
    }
    found = measure(rows, said, [metric(METRIC)], resamples=job.resamples, confidence=job.confidence)
    values = dict(found.values)
    if scene.other != BASE:  # the bare base is no part of the scene, but for answering every row otherwise
        differs = MetricValue(metric=DIFFERS_FROM_BASE, value=1.0, low=0.5, high=1.0, rows=scene.rows)
        values[CANDIDATE] = (*values[CANDIDATE], differs)
    identities = {CANDIDATE: training.adapter_digest, CHAMPION: str(_HELD.adapter_digest), BASE: training.base.digest}
    return EvaluationReport(
        training=training.digest,
        champion=(_HELD if scene.other == CHAMPION else Champion()).digest,
        splits=training.splits,
        test="d" * 64,
        rows=scene.rows,
        subjects=tuple(Subject(name=name, identity=identities[name], metrics=values[name]) for name in said),
        comparisons=found.comparisons,
        slices=(),
        predictions=FileDigest(path="predictions.parquet", sha256="e" * 64, bytes=0),
        params={"metrics": [METRIC], "confidence": job.confidence, "parity_rows": 0},
    )


def _training() -> TrainingRun:
    return TrainingRun(
        splits="5" * 64,
        task=Task.GENERATE,
        base=BaseModelRef(id="simulated", weights="a" * 64, tokenizer="b" * 64),
        params={},
        adapter=(FileDigest(path="simulated", sha256="c" * 64, bytes=0),),
        steps=0,
        train_loss=0.0,
        eval_loss=None,
        train_rows=0,
        trainable_parameters=0,
        versions={},
        starts="5" * 64,
        stages=(),
    )

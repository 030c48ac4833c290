"""Play the gate against candidates whose truth is known: how often does luck pass, and how large must a gain be to be seen?

Rows are right or wrong answers drawn at random; measured and judged are they by the very measure() and decide() that judge real
candidates, with the confidence, bounds and spending of params. One rule is asked at a time, so that no other saves it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

from pipeline.domain.gating import HoldoutPolicy, look
from pipeline.domain.measured import BASE, CHAMPION
from pipeline.domain.simulation import Foresight, NullShare, PowerPoint, Sight, Simulation
from pipeline.evaluation.playing import Job, Scene, check_scene, play
from pipeline.evaluation.testing import clopper_pearson, detectable
from pipeline.params import EvaluateParams, GateParams
from pipeline.ports import Progress, silent

LOOKS = 10
_CHUNK = 25


def simulate(
    evaluate: EvaluateParams,
    gate: GateParams,
    *,
    rows: int | None = None,
    trials: int = 2000,
    looks: int = LOOKS,
    rate: float = 0.8,
    discordance: float = 0.1,
    null: bool = True,
    power: bool = True,
    workers: int | None = None,
    seed: int = 7,
    progress: Progress = silent,
) -> Simulation:
    """trials: candidates for each null at fresh rows; half as many holdouts are looked at `looks` times, and a quarter as
    many candidates make a point of the power curve. rows: of a test; default: gate.min_test_rows.

    Raises Misuse where such candidates cannot be: a share of rows that differ which is smaller than the difference.
    """
    started, rows = time.monotonic(), rows or gate.min_test_rows
    scenes = _nulls(evaluate, gate, rows, rate, discordance)
    spending = gate.holdout if gate.holdout.spending != "off" else HoldoutPolicy()
    shared = {
        "least_rows": gate.min_test_rows,
        "resamples": evaluate.resamples,
        "confidence": evaluate.confidence,
        "seed": seed,
        "spending": HoldoutPolicy.model_validate(spending.model_dump()),
    }
    jobs: list[Job] = []
    if null:
        for scene in scenes:
            jobs += _jobs(scene, 0, trials // 2, looks, shared)
            jobs += _jobs(scene, trials // 2, trials - trials // 2, 1, shared)
    steps = _curve(scenes, evaluate.confidence, seed) if power else []
    for scene in steps:
        jobs += _jobs(scene, 0, max(1, trials // 4), 1, shared)
    found = _run(jobs, workers, progress)
    return Simulation(
        confidence=evaluate.confidence,
        rate=rate,
        discordance=discordance,
        nulls=tuple(_shares(scenes, found, trials, looks, shared)) if null else (),
        power=tuple(_points(steps, found, max(1, trials // 4))),
        seconds=round(time.monotonic() - started, 1),
    )


def foresee(
    evaluate: EvaluateParams, gate: GateParams, rows: Sequence[int], *, last: dict[str, float], last_run: str | None
) -> Foresight:
    """What tests of so many rows can show, and how many rows each rule of params needs. Formulas alone: an instant."""
    policy = HoldoutPolicy.model_validate(gate.holdout.model_dump())
    tails = [max(look(number, evaluate.confidence, policy).tail, 1e-12) for number in (1, LOOKS)]
    sights = [
        Sight(rows=n, discordance=d, least=detectable(d, n, tails[0]), tenth=detectable(d, n, tails[1]))
        for n in sorted(set(rows))
        for d in (0.02, 0.05, 0.1, 0.2, 0.4)
    ]
    equal = {
        f"not_worse_than_champion.{name}": _rows_needed(margin, tails[0])
        for name, margin in sorted(gate.not_worse_than_champion.items())
    }
    return Foresight(
        confidence=evaluate.confidence, rows=min(rows), sights=tuple(sights), equal=equal, last=last, last_run=last_run
    )


def _rows_needed(margin: float, tail: float, discordance: float = 0.1) -> int | None:
    """For a candidate that is just as good and differs on a tenth of the rows to pass "not worse by margin", 80 % of the time."""
    if margin <= 0:
        return None
    low, high = 1, 1
    while detectable(discordance, high, tail) > margin:
        low, high = high, 2 * high
        if high > 10**8:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if detectable(discordance, middle, tail) > margin else (low, middle)
    return high


def _nulls(evaluate: EvaluateParams, gate: GateParams, rows: int, rate: float, discordance: float) -> list[Scene]:
    """The candidates that must not pass: each is exactly at the bound of its rule. Bounds are those of params where it has the
    rule for its first metric."""
    primary = evaluate.metrics[0]
    worse = gate.not_worse_than_champion.get(primary, 0.03)
    better = gate.better_than_champion.get(primary, 0.0)
    base = gate.better_than_base.get(primary, 0.0)
    least = gate.thresholds.get(primary, 0.5)
    apart = max(discordance, 3 * base)  # a tuned model differs from the bare base on many rows
    scenes = [
        Scene("better_than_champion", better, CHAMPION, better, rate, discordance, rows, 0),
        Scene("not_worse_than_champion", -worse, CHAMPION, -worse, rate, discordance, rows, 1),
        Scene("better_than_base", base, BASE, base, rate / 2, min(apart, 1.0), rows, 2),
        Scene("thresholds", least, BASE, 0.0, least, min(0.1, 2 * least, 2 * (1 - least)), rows, 3),
    ]
    for scene in scenes:
        check_scene(scene)
    return scenes


def _curve(scenes: Sequence[Scene], confidence: float, seed: int) -> list[Scene]:
    """Candidates better than the null by shares of what formulas say is seen at 80 %."""
    tail = look(1, confidence, HoldoutPolicy()).tail
    steps = []
    for scene in scenes:
        if scene.rule == "thresholds":
            continue
        unit = detectable(scene.discordance, scene.rows, tail)
        for number, share in enumerate((0.25, 0.5, 0.75, 1.0, 1.25, 1.5)):
            gain = round(scene.difference + share * unit, 6)
            apart = max(scene.discordance, abs(gain))
            rate = min(scene.rate, 1 - (apart + gain) / 2)
            steps.append(replace(scene, difference=gain, discordance=apart, rate=rate, number=10 * (scene.number + 1) + number))
    return steps


def _jobs(scene: Scene, first: int, families: int, looks: int, shared: dict[str, Any]) -> Iterator[Job]:
    for start in range(first, first + families, _CHUNK):
        yield Job(scene=scene, first=start, families=min(_CHUNK, first + families - start), looks=looks, **shared)


def _run(jobs: Sequence[Job], workers: int | None, progress: Progress) -> dict[tuple[int, int], list[int]]:
    """(scene's number, looks) → families that passed at fresh rows without spending, with, at any look without, with."""
    found: dict[tuple[int, int], list[int]] = {}
    cores = workers if workers is not None else min(os.cpu_count() or 1, len(jobs))
    with _results(jobs, cores) as results:
        for done, (job, passed) in enumerate(zip(jobs, results, strict=True), 1):
            sums = found.setdefault((job.scene.number, job.looks), [0, 0, 0, 0])
            for at, number in enumerate(passed):
                sums[at] += number
            progress("simulate", done, len(jobs))
    return found


@contextmanager
def _results(jobs: Sequence[Job], cores: int) -> Iterator[Iterator[tuple[int, int, int, int]]]:
    if cores <= 1:
        yield map(play, jobs)
        return
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"  # the workers are as many as the cores; their products need no further threads
    try:
        with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
            yield pool.map(play, jobs)
    finally:
        os.environ.pop("OMP_NUM_THREADS") if before is None else os.environ.update(OMP_NUM_THREADS=before)


_TRUTHS = {
    "better_than_champion": "just as good as the champion and the margin",
    "not_worse_than_champion": "worse than the champion by just the margin",
    "better_than_base": "better than the bare base by no more than the margin",
    "thresholds": "no better than the threshold",
}


def _shares(
    scenes: Sequence[Scene], found: dict[Any, list[int]], trials: int, many_looks: int, shared: dict[str, Any]
) -> Iterator[NullShare]:
    alpha = (1 - shared["confidence"]) / 2
    for scene in scenes:
        once, many = (found.get((scene.number, looks), [0, 0, 0, 0]) for looks in (1, many_looks))
        for looks, spending, families, passed in (
            (1, "off", trials, once[0] + many[0]),
            (1, shared["spending"].spending, trials, once[1] + many[1]),
            (many_looks, "off", trials // 2, many[2]),
            (many_looks, shared["spending"].spending, trials // 2, many[3]),
        ):
            low, high = clopper_pearson(passed, families)
            yield NullShare(
                rule=scene.rule,
                truth=_TRUTHS[scene.rule],
                bound=scene.bound,
                rows=scene.rows,
                looks=looks,
                spending=spending,
                families=families,
                passed=passed,
                share=passed / families if families else 0.0,
                low=low,
                high=high,
                alpha=round(alpha, 9),
            )


def _points(steps: Sequence[Scene], found: dict[tuple[int, int], list[int]], trials: int) -> Iterator[PowerPoint]:
    for scene in steps:
        passed = found[scene.number, 1][1]
        low, high = clopper_pearson(passed, trials)
        yield PowerPoint(
            rule=scene.rule,
            bound=scene.bound,
            rows=scene.rows,
            difference=scene.difference,
            trials=trials,
            passed=passed,
            share=passed / trials,
            low=low,
            high=high,
        )

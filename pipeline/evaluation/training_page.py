"""How a training went, as blocks of a page: its chain of stages, their alarms, their curves. No verdict is made here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from pipeline.domain.model import StageRun, TrainingRun
from pipeline.evaluation.rows import read_curves
from pipeline.pages import Block, Cell, Lines, Table

Point = Mapping[str, Any]

_KNOWN = (
    ("Loss", {"loss": "train", "eval_loss": "eval"}, "loss"),
    ("Learning rate", {"learning_rate": "learning rate"}, "rate"),
    ("Gradient norm", {"grad_norm": "gradient norm"}, "norm"),
)
_NOT_MEASURES = {"step", "stage", *(key for _, names, _ in _KNOWN for key in names)}


def training_blocks(training: TrainingRun, curves: Path) -> Iterator[Block]:
    """The chain, its alarms, and the curves in `curves` (curves.jsonl: an object a line with stage, step and numbers)."""
    yield _chain(training.stages)
    alarms: list[list[Cell]] = [[run.name, alarm] for run in training.stages for alarm in run.alarms]
    if alarms:
        yield Table("Alarms", ["training stage", "what looks wrong"], alarms, tones=dict.fromkeys(range(len(alarms)), "warn"))
    points = read_curves(curves)
    several = len(training.stages) > 1
    for name, of_stage in groupby(points, key=lambda point: str(point.get("stage", ""))):
        yield from _curves(list(of_stage), f"{name}: " if several else "")


def _chain(stages: Sequence[StageRun]) -> Table:
    heads = ["training stage", "objective", "tuner", "began from", "steps", "weights of step", "rows", "parameters trained"]
    heads += ["loss", "loss on eval", "measures"]
    rows: list[list[Cell]] = [
        [
            run.name,
            run.objective.value,
            run.tuner.value,
            run.start_from,
            run.steps,
            run.kept_step,
            run.train_rows,
            run.trainable_parameters,
            run.train_loss,
            run.eval_loss,
            ", ".join(f"{name} {value:.4g}" for name, value in sorted(run.measures.items())),
        ]
        for run in stages
    ]
    chosen = sorted({f"{name}: {value}" for run in stages for name, value in run.machine.items()})
    return Table("Training", heads, rows, note="; ".join(chosen))


def _curves(points: Sequence[Point], before: str) -> Iterator[Block]:
    for heading, names, label in _KNOWN:
        series = {shown: values for key, shown in names.items() if (values := _series(points, key))}
        if series:
            yield Lines(f"{before}{heading}", series, "step", label)
    for name in dict.fromkeys(key for point in points for key in point if key not in _NOT_MEASURES):
        on_eval = name.startswith("eval_")
        if on_eval and _series(points, name.removeprefix("eval_")):
            continue  # drawn with its namesake
        series = {"eval" if on_eval else "train": _series(points, name)}
        if not on_eval and (held := _series(points, f"eval_{name}")):
            series["eval"] = held
        yield Lines(f"{before}{name.removeprefix('eval_').replace('_', ' ')}", series, "step", name)


def _series(points: Sequence[Point], key: str) -> list[tuple[float, float]]:
    return [(float(p["step"]), float(p[key])) for p in points if "step" in p and isinstance(p.get(key), int | float)]

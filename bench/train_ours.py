"""Our side of bench/train.py: the same rows and settings for the tuner, the learner and the loop that a stage is made of.

What stands around them in pipeline/modeling/training.py (reading split files, tokenising, publishing the adapter) is left out,
as it is on the other sides.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from train_rows import IGNORED, LABELS, Text

from pipeline.domain.data import Task
from pipeline.domain.model import BaseModelRef
from pipeline.domain.tuning import Objective
from pipeline.modeling.hardware import choose, fit
from pipeline.modeling.hardware.probe import put_on
from pipeline.modeling.job import Job
from pipeline.modeling.learning.making import new_learner
from pipeline.modeling.loop.curves import Curves
from pipeline.modeling.loop.loop import Loop
from pipeline.modeling.texts.rows import Encoded, Row, of_items
from pipeline.modeling.tuners import tunable
from pipeline.params import StageParams
from pipeline.ports import silent

Spec = dict[str, Any]


class Nobody:
    """A tracker that keeps nothing."""

    run_id = "bench"

    def log_metrics(self, metrics: Any, *, step: int | None = None) -> None: ...


def build(spec: Spec, rows: list[Text], tokenizer: Any, clock: Any) -> Loop:
    """A loop that is ready to train on the rows once; what dpo has to know of its reference is known."""
    stage = _stage(spec)
    job = _job(spec, stage)
    choose(job)
    model = tunable(job.base, job.ref, stage, job.output, job.labels)
    encoded = _encoded(rows, spec["objective"])
    fitted = fit(job, encoded.row_lengths.max(1).tolist(), labelled=encoded.row_learned.max(1).tolist())
    put_on(model, fitted)
    held = of_items([])
    learner = new_learner(job, model, encoded, held, tokenizer=tokenizer, template=None)
    learner.prepare()
    learner.prepare = lambda: None  # type: ignore[method-assign]
    curves = Curves(Nobody(), job.folder, every=10)  # type: ignore[arg-type]
    loop = Loop(
        learner,
        stage,
        folder=job.folder,
        curves=curves,
        progress=silent,
        micro_rows=fitted.micro_rows,
        machine=job.machine,
    )
    loop.add_callback(clock)
    return loop


def _stage(spec: Spec) -> StageParams:
    return StageParams(
        name="bench",
        objective=spec["objective"],
        tuner=spec["tuner"],
        rank=spec["rank"],
        alpha=2 * spec["rank"],
        epochs=1.0,
        batch_size=spec["batch"],
        learning_rate=spec["rate"],
        warmup_share=0.0,
        max_length=spec["max_length"],
        seed=spec["seed"],
        save_steps=1_000_000,
    )


def _job(spec: Spec, stage: StageParams) -> Job:
    folder = Path(spec["folder"])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    job = Job(
        stage=stage,
        task=Task.CLASSIFY if spec["objective"] == "classify" else Task.GENERATE,
        labels=tuple(f"label {n:02}" for n in range(LABELS)),
        base=Path(spec["base"]),
        ref=BaseModelRef(id="bench", weights="0" * 64, tokenizer="0" * 64),
        template=None,
        train=(),
        held=(),
        start=None,
        start_digest="0" * 64,
        cache=folder / "cache",
        folder=folder / "checkpoints",
        adapter=folder / "adapter",
        curves=folder / "curves.jsonl",
    )
    checkpointing = "on" if spec["checkpointing"] else "off"
    return replace(job, machine=job.machine.model_copy(update={"gradient_checkpointing": checkpointing}))


def _encoded(rows: list[Text], objective: str) -> Encoded:
    def answered(row: Text, answer: list[int]) -> Row:
        return Row(row.prompt + answer, [IGNORED] * len(row.prompt) + answer)

    if objective == Objective.CLASSIFY:
        return of_items([Row(row.prompt + row.answer, [row.label])] for row in rows)
    if objective == Objective.DPO:
        return of_items([answered(row, row.answer), answered(row, row.worse)] for row in rows)
    return of_items([answered(row, row.answer)] for row in rows)

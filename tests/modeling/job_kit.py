"""One stage as a job, of any objective on the tiny base: its rows, its folders, what it leaves."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from kinds_kit import rows_for, stage_for, write_rows
from modeling_kit import Remembering, model_params

from pipeline.domain.data import Task
from pipeline.domain.record import describe_files
from pipeline.domain.tuning import Objective
from pipeline.modeling.base import describe_base, template_text
from pipeline.modeling.job import Job, Tuned
from pipeline.ports import Progress, silent

STEPS = 6


def new_job(objective: Objective, base: Path, home: Path, **changes: Any) -> Job:
    """A stage of six steps with a checkpoint after each, dropout and an evaluation after every other step."""
    task = Task.CLASSIFY if objective is Objective.CLASSIFY else Task.GENERATE
    usual: dict[str, Any] = {
        "name": objective.value,
        "max_steps": STEPS,
        "save_steps": 1,
        "eval_steps": 2,
        "logging_steps": 2,
        "keep_checkpoints": 100,
        "learning_rate": 0.01,
        "dropout": 0.1,
    }
    model = model_params(base, task.value)
    rows = rows_for(objective, 20)
    train, held = (home / name / "part.parquet" for name in ("train", "eval"))
    if not train.exists():
        write_rows(train, rows[:14])
        write_rows(held, rows[14:])
    return Job(
        stage=stage_for(objective, **(usual | changes)),
        task=task,
        labels=("animal", "other") if task is Task.CLASSIFY else (),
        base=base,
        ref=describe_base(model, base),
        template=template_text(model, base) if task is Task.GENERATE else None,
        train=(train,),
        held=(held,),
        start=None,
        start_digest="0" * 64,
        cache=home / "cache",
        folder=home / "folder",
        adapter=home / "folder" / "adapter",
        curves=home / "folder" / "curves.jsonl",
    )


def elsewhere(job: Job, folder: Path, **changes: Any) -> Job:
    """The same job with another folder for what it writes; `changes` of the stage, such as when it is saved."""
    stage = job.stage.model_copy(update=changes)
    return dataclasses.replace(job, stage=stage, folder=folder, adapter=folder / "adapter", curves=folder / "curves.jsonl")


def tuned(job: Job, progress: Progress = silent, tracker: Remembering | None = None) -> Tuned:
    from pipeline.modeling.training import tune

    return tune(job, tracker=tracker or Remembering(), progress=progress)


def left(job: Job) -> dict[str, str]:
    """Digests of what a job wrote: its adapter's files and its curves."""
    files = {file.path: file.sha256 for file in describe_files(job.adapter)}
    return files | {"curves": job.curves.read_text()}

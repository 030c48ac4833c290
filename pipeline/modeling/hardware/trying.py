"""Takes a few steps of a stage on a sample of its data, to see how long one lasts here. Importing it is cheap, calling it not.

It trains as any training does, in a folder that is thrown away; only the clock is looked at.
"""

from __future__ import annotations

import itertools
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.modeling.job import Job
from pipeline.ports import Progress, silent

STEPS = 4
"""The first is not counted: it warms up."""
_NEVER = 10**9


def time_step(job: Job, scratch: Path, *, progress: Progress = silent) -> float:
    """Median seconds of a step of `job`, which is run for a few on job.train; what it makes stays in `scratch`.

    Raises what training raises: see training.tune.
    """
    from pipeline.modeling.training import tune

    times: list[float] = []

    def note(what: str, done: int, total: int) -> None:
        if what == "training":
            times.append(time.perf_counter())
        progress(f"trying {job.stage.tuner}: {what}", done, total)

    changes = {"max_steps": STEPS, "eval_steps": _NEVER, "save_steps": _NEVER, "keep": "last", "warmup_share": 0.0}
    stage = job.stage.model_copy(update=changes)
    alone = job.machine.model_copy(update={"processes": 1, "shard": False})
    tried = replace(
        job,
        stage=stage,
        machine=alone,
        held=(),
        max_hours=None,
        folder=scratch / "folder",
        adapter=scratch / "adapter",
        curves=scratch / "curves.jsonl",
        cache=scratch / "cache",
    )
    tune(tried, tracker=_Nobody(), progress=note)
    return statistics.median(after - before for before, after in itertools.pairwise(times)) / job.machine.processes


class _Nobody:
    """A tracker that nobody reads."""

    run_id = "trial"

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None

"""Trains the same stage in processes with and without a cap on their memory; run by test_memory_cap.py, in a process of its own.

Each attempt is a fork that has all imported and nothing computed, so their memory is told apart. The cap is set once the model is
loaded: what is left is for training alone.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import traceback
from pathlib import Path
from typing import Any

from pipeline.domain.data import Task
from pipeline.modeling import training
from pipeline.modeling.base import describe_base, template_text
from pipeline.modeling.hardware.choices import Fitted, write_fitted
from pipeline.modeling.hardware.fitting import choose_for
from pipeline.modeling.hardware.room import status
from pipeline.modeling.job import Job
from pipeline.modeling.loop import micro
from pipeline.params import ModelParams, StageParams
from tests.modeling.modeling_kit import Remembering

ATTEMPTS = ("free", "fixed", "predicted", "halved")
"""free: no cap. fixed: the whole batch at once, and no second try. predicted: what fit chooses. halved: the whole batch first."""


def main() -> None:
    asked = json.loads(sys.argv[1])
    home = Path(asked["home"])
    for name in asked.get("attempts", ATTEMPTS):
        child = os.fork()
        if child == 0:
            try:
                found: dict[str, Any] = attempt(name, asked, home / name)
            except BaseException as error:  # whatever it was is the finding
                found = {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
            (home / f"{name}.json").write_text(json.dumps(found))
            os._exit(0)
        _, ended = os.waitpid(child, 0)
        if ended:
            (home / f"{name}.json").write_text(json.dumps({"error": f"the process ended with {ended}"}))


def attempt(name: str, asked: dict[str, Any], home: Path) -> dict[str, Any]:
    """Train under the cap, unless `name` is free; the curve of the loss, rows at once, peak memory in MiB."""
    job = make_job(asked, home)
    if name in ("fixed", "halved"):
        # As if all had been found to fit: what is written here is believed, as on a resume.
        chosen = choose_for(job.base, job.stage, job.machine)
        write_fitted(Fitted(job.stage.batch_size, False, False, chosen, 0), job.folder)
    if name == "fixed":
        micro.memory_ran_out = lambda error: False

    def progress(what: str, done: int, total: int) -> None:
        if what == "tokenising" and name != "free":
            cap = status("VmSize") + asked["mib"] * 2**20
            resource.setrlimit(resource.RLIMIT_AS, (cap, resource.RLIM_INFINITY))

    tuned = training.tune(job, tracker=Remembering(), progress=progress)
    curve = [json.loads(line) for line in job.curves.read_text().splitlines()]
    losses = [point["loss"] for point in curve if "loss" in point]
    return {"losses": losses, "machine": tuned.machine, "peak": status("VmHWM") >> 20, "steps": tuned.steps}


def make_job(asked: dict[str, Any], home: Path) -> Job:
    base, data = Path(asked["base"]), Path(asked["data"])
    model = ModelParams(name="capped", task=Task.GENERATE, base=str(base))
    stage = StageParams(**{"name": "sft", "objective": "sft", "logging_steps": 1, "warmup_share": 0.0, **asked["stage"]})
    ref = describe_base(model, base)
    return Job(
        stage=stage,
        task=Task.GENERATE,
        labels=(),
        base=base,
        ref=ref,
        template=template_text(model, base),
        train=(data / "train.parquet",),
        held=(data / "eval.parquet",),
        start=None,
        start_digest=ref.digest,
        cache=home / "cache",
        folder=home / "folder",
        adapter=home / "adapter",
        curves=home / "curves.jsonl",
    )


if __name__ == "__main__":
    main()

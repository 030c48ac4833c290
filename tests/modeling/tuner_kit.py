"""Tuned folders in a tenth of a second: what would be learned is nudged by seeded noise, everything else is as in a training."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from modeling_kit import model_params, train_params

from pipeline.domain.data import Task
from pipeline.domain.tuning import Output
from pipeline.modeling.base import describe_base, template_text

OBJECTIVES = {Output.TEXT: "sft", Output.LABEL: "classify", Output.SCORE: "reward"}
LABELS = ("colour", "animal", "number")
SHAPES: dict[str, dict[str, Any]] = {
    "lora": {"tuner": "lora"},
    "rslora": {"tuner": "lora", "rslora": True},
    "dora": {"tuner": "lora", "dora": True},
    "qlora": {"tuner": "qlora"},
    "qdora": {"tuner": "qlora", "dora": True},
    "full": {"tuner": "full"},
    "last_layers": {"tuner": "last_layers", "layers": 1},
    "prompt": {"tuner": "soft_prompt", "soft_prompt": {"kind": "prompt", "tokens": 5}},
    "prefix": {"tuner": "soft_prompt", "soft_prompt": {"kind": "prefix", "tokens": 5}},
}
"""The ways to tune that differ in what they write."""


def labels_of(output: Output) -> tuple[str, ...]:
    return LABELS if output is Output.LABEL else ()


def begin(
    base: Path, output: Output = Output.TEXT, *, labels: tuple[str, ...] | None = None, start: Path | None = None, **keys: Any
):
    """What training is handed: see tuners.tunable."""
    import torch

    from pipeline.modeling.tuners import tunable

    torch.manual_seed(1)
    stage = train_params(objective=OBJECTIVES[output], **keys)
    named = labels_of(output) if labels is None else labels
    return tunable(base, ref_of(base, output), stage, output, named, start=start)


def ref_of(base: Path, output: Output = Output.TEXT):
    return describe_base(model_params(base, "classify" if output is Output.LABEL else "generate"), base)


def nudge(model: Any, by: float = 0.02, seed: int = 5) -> Any:
    """Move all that is trainable a little, as training would."""
    import torch

    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=noise) * by)
    return model.eval()


def make(
    base: Path,
    folder: Path,
    output: Output = Output.TEXT,
    *,
    labels: tuple[str, ...] | None = None,
    start: Path | None = None,
    by: float = 0.02,
    **keys: Any,
):
    """Tune, in a manner of speaking, and write the folder; returns the model and its handshake."""
    from pipeline.modeling.adapters.adapter import write_adapter

    model = nudge(begin(base, output, labels=labels, start=start, **keys), by)
    shutil.rmtree(folder, ignore_errors=True)
    said = write_adapter(
        model,
        folder,
        base=ref_of(base, output),
        task=Task.CLASSIFY if output is Output.LABEL else Task.GENERATE,
        labels=labels_of(output) if labels is None else labels,
        stage=train_params(objective=OBJECTIVES[output], **keys),
        template=None if output is Output.LABEL else template_text(model_params(base), base),
        start=start,
    )
    return model, said


def load(folder: Path, base: Path, output: Output = Output.TEXT):
    from pipeline.modeling.adapters.admission import load_adapter

    return load_adapter(folder, base, ref_of(base, output))[0]


def logits_of(model: Any):
    import torch

    ids = torch.tensor([[5, 9, 30, 31, 17, 200, 11, 45]])
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, -8:]


def edit_weights(folder: Path, change: Any, name: str = "tuned_weights.safetensors") -> None:
    """Put `change` of a file's tensors in their place."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / name)
    changed = change(tensors) or tensors
    save_file({key: tensor.contiguous() for key, tensor in changed.items()}, folder / name, metadata={"format": "pt"})


def build_lively_base(folder: Path, tokenizer: Path) -> Path:
    """A base whose answers differ: untied, with large random weights and fewer heads for keys; the tokenizer of another."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    shutil.copytree(tokenizer, folder)
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder

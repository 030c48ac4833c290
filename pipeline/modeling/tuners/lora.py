"""LoRA: which modules it goes beside, and its configuration, made from numbers and never from a file.

Hu et al., 2021 (LoRA); Dettmers et al., 2023 (QLoRA, the same beside 4-bit weights); Kalajdzievski, 2023 (rsLoRA); Liu et al.,
2024 (DoRA).
"""

from __future__ import annotations

from typing import Any

from peft import LoraConfig, TaskType, get_peft_model, prepare_model_for_kbit_training
from torch import nn
from transformers.pytorch_utils import Conv1D

from pipeline.domain.tuning import Output, Tuner
from pipeline.errors import Misuse
from pipeline.modeling.adapters.handshake import NAME, Shape
from pipeline.modeling.loading import head_modules
from pipeline.params import StageParams


def lora_shape(model: Any, stage: StageParams, output: Output) -> Shape:
    """The LoRA that `stage` asks for on the bare `model`. Raises Misuse for modules that the model has not."""
    head = head_modules(model, output)
    return Shape(
        tuner=stage.tuner,
        output=output,
        rank=stage.rank,
        alpha=stage.alpha,
        dropout=stage.dropout,
        rslora=stage.rslora,
        dora=stage.dora,
        target_modules=target_modules(model, stage.target_modules, head),
        head=tuple(sorted(head)),
    )


def lora_config(shape: Shape, *, frozen: bool = False) -> LoraConfig:
    """Scale alpha / rank (rsLoRA: alpha / sqrt(rank)), B starting at zero, the head learned whole."""
    return LoraConfig(
        task_type=TaskType.CAUSAL_LM if shape.output is Output.TEXT else TaskType.SEQ_CLS,
        r=shape.rank,
        lora_alpha=shape.alpha,
        lora_dropout=shape.dropout,
        use_rslora=shape.rslora,
        use_dora=shape.dora,
        target_modules=list(shape.target_modules),
        modules_to_save=list(shape.head) or None,
        inference_mode=frozen,
    )


def new_lora(model: Any, shape: Shape) -> Any:
    """`model` with a fresh trainable LoRA, drawn from torch's random state, in fp32."""
    if shape.tuner is Tuner.QLORA:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    tuned = get_peft_model(model, lora_config(shape), adapter_name=NAME)
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return tuned


def target_modules(model: Any, wanted: tuple[str, ...] | str, head: tuple[str, ...]) -> tuple[str, ...]:
    """The modules to adapt, by the ends of their names; all-linear means all but head and output embedding.

    Raises Misuse for a name that fits no linear module, listing those that would.
    """
    output = model.get_output_embeddings()
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D) and module is not output]
    inner = [name for name in linear if not f"{name}.".startswith(tuple(f"{top}." for top in head) or "\0")]
    endings = sorted({name.rsplit(".", 1)[-1] for name in inner})
    if wanted == "all-linear":
        return tuple(endings)
    unknown = sorted(t for t in wanted if not any(name == t or name.endswith(f".{t}") for name in inner))
    if unknown:
        raise Misuse(
            f"the base has no linear module called {', '.join(unknown)}",
            where="train.target_modules",
            fix=f"choose among {', '.join(endings)}, or write all-linear",
        )
    return tuple(sorted(wanted))

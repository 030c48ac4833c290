"""What an adapter's folder holds, and what the adapter says of itself. Values and file names; no torch here.

Writing such a folder is adapter.py's, believing one admission.py's.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from pipeline.domain.data import Task
from pipeline.domain.model import BaseModelRef
from pipeline.domain.record import Value
from pipeline.domain.tuning import OUTPUT_OF, PEFT_TUNERS, USUAL_OBJECTIVE, Objective, Output, Tuner

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
TUNED_WEIGHTS = "tuned_weights.safetensors"
HANDSHAKE = "tuneline.json"
TEMPLATE = "chat_template.jinja"
NAME = "default"
"""What the adapter that is trained is called inside a model."""


class Shape(Value):
    """Which tensors a tuner has on a base, and how they act: two of one shape fit each other's places.

    output: what the model gives. rank, alpha, rslora, dora, target_modules: of lora and qlora. layers: of last_layers, also of
    those whose tuned weights lie under a LoRA. soft_prompt, tokens: its kind and length. head: modules learned whole and kept
    with the peft adapter. weights: the tuner that made weights which replace the base's, None where the base's own are used.
    """

    tuner: Tuner
    output: Output
    rank: int = 0
    alpha: int = 0
    dropout: float = 0.0
    rslora: bool = False
    dora: bool = False
    target_modules: tuple[str, ...] = ()
    layers: int = 0
    soft_prompt: Literal["prompt", "prefix"] | None = None
    tokens: int = 0
    head: tuple[str, ...] = ()
    weights: Tuner | None = None

    @property
    def quantized(self) -> bool:
        return self.tuner is Tuner.QLORA

    @property
    def has_peft(self) -> bool:
        """Whether there is a peft adapter (lora, qlora, soft_prompt)."""
        return self.tuner in PEFT_TUNERS

    @property
    def shares_base(self) -> bool:
        """Whether it can stand beside others on one loaded base: LoRA on the base's own weights."""
        return self.tuner in (Tuner.LORA, Tuner.QLORA) and self.weights is None


class Handshake(Shape):
    """What an adapter says of itself, and must live up to when it is loaded.

    untouched: tensors that were zero throughout when training ended (the lora_B of an expert never routed to, a bias); any other
    that is zero was zeroed since. probe: logits for a fixed input, four significant digits: base, adapter, alpha and template
    of one piece give these. Folders written before there were objectives say nothing of them; they learned the task's usual one.
    """

    format: Literal[1] = 1
    base: BaseModelRef
    task: Task
    objective: Objective
    labels: tuple[str, ...]
    max_length: int
    untouched: tuple[str, ...]
    probe: tuple[float, ...]

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, said: Any) -> Any:
        if isinstance(said, dict) and "objective" not in said and said.get("task") in set(Task):
            objective = USUAL_OBJECTIVE[Task(said["task"])]
            return {**said, "objective": objective.value, "output": OUTPUT_OF[objective].value}
        return said

    @model_validator(mode="after")
    def _check(self) -> Handshake:
        if OUTPUT_OF[self.objective] is not self.output:
            raise ValueError(f"{self.objective} gives {OUTPUT_OF[self.objective]}, not {self.output}")
        if (self.output is Output.LABEL) != (self.task is Task.CLASSIFY):
            raise ValueError(f"the task {self.task} does not give {self.output}")
        if (self.output is Output.LABEL) != (len(self.labels) > 1):
            raise ValueError("labels belong to classify, two or more")
        replaced = {Tuner.FULL: (Tuner.FULL,), Tuner.LAST_LAYERS: (Tuner.LAST_LAYERS, Tuner.FULL)}
        may = replaced.get(self.tuner, (None, Tuner.FULL, Tuner.LAST_LAYERS) if self.tuner is Tuner.LORA else (None,))
        if self.weights not in may:
            raise ValueError(f"{self.tuner} does not go with weights by {self.weights}")
        return self

"""The section `train`: one training stage, or a chain of them, each an objective, a tuner, data and a start.

Keys of a stage that an entry of train.stages does not give are those of train itself, so what all have in common is written once.
What goes together is domain/tuning.py's to say.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.domain.data import ExampleKind, Task
from pipeline.domain.tuning import LEARNS_FROM, USUAL_OBJECTIVE, Objective, Tuner
from pipeline.params.learning import (
    DpoParams,
    EarlyStoppingParams,
    EwcParams,
    KtoParams,
    MixParams,
    NotNegative,
    OrpoParams,
    OverfittingParams,
    Positive,
    PpoParams,
    RewardParams,
    SoftPromptParams,
)
from pipeline.params.section import Count, Section, Share

STARTS = r"previous|base|champion|stage:[a-z][a-z0-9_-]{0,30}|version:(?:[a-z0-9][a-z0-9_-]{0,62}/)?[1-9][0-9]{0,8}|\./.+"


class StageParams(Section):
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,30}$")] | None = None
    """Names the stage within the chain; default: its objective."""
    objective: Annotated[Objective, Field(strict=False)] | None = None
    """What is learned; default: sft (task generate) or classify. docs/methods.md has the table."""
    tuner: Annotated[Tuner, Field(strict=False)] = Tuner.LORA
    """Which weights learn."""
    start: Annotated[str, Field(pattern=f"^(?:{STARTS})$")] = "previous"
    """previous: the stage before, or the bare base. base. champion: what holds the last release stage; the bare base while nobody
    does. stage:NAME. version:N, or version:MODEL/N of another model on the same base. ./FOLDER: a peft LoRA from elsewhere."""
    kinds: Annotated[tuple[Annotated[ExampleKind, Field(strict=False)], ...], Field(strict=False)] | None = None
    """The kinds of row that are learned from; default: all that belong to the objective."""
    mix: MixParams = MixParams()
    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    alpha: Annotated[int, Field(ge=1)] = 32
    rslora: bool = False
    """Scale LoRA by alpha / sqrt(rank), not alpha / rank (Kalajdzievski, 2023)."""
    dora: bool = False
    """Learn the magnitude of each column beside LoRA's direction (Liu et al., 2024)."""
    dropout: Share = 0.0
    """Of LoRA's input."""
    target_modules: Annotated[tuple[str, ...], Field(strict=False)] | Literal["all-linear"] = "all-linear"
    """lora, qlora: the linear modules that are adapted, by the ends of their names."""
    layers: Count = 2
    """last_layers: how many."""
    soft_prompt: SoftPromptParams = SoftPromptParams()
    epochs: Positive = 3.0
    max_steps: Count | None = None
    """Stop after this many optimizer steps, whatever epochs says. ppo: an optimizer step is one minibatch of one pass."""
    batch_size: Count = 16
    """Rows (pairs, answers) that are in memory at once; halved when memory runs out."""
    gradient_accumulation: Count = 1
    """So many batches make an optimizer step."""
    eval_batch_size: Count | None = None
    """Rows in memory at once when the eval split is measured; default: batch_size."""
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 2e-4
    scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "linear"
    warmup_share: Share = 0.05
    """Of all steps."""
    adam_beta2: Annotated[float, Field(gt=0, lt=1)] = 0.999
    """How long AdamW remembers squared gradients; short runs at a high rate want less (0.98)."""
    weight_decay: NotNegative = 0.0
    max_grad_norm: Positive = 1.0
    label_smoothing: Share = 0.0
    """pretrain, sft, classify."""
    neftune_alpha: Positive | None = None
    """Noise on the embeddings while training (Jain et al., 2023), 5 is usual; default: none."""
    max_length: Count = 512
    """In tokens. Longer prompts are cut at their start (generate) or end (classify); longer answers are dropped; both counted."""
    packing: Literal["auto", "on", "off"] = "auto"
    """Put several rows into one sequence, each seeing itself alone. auto: where rows differ enough in length for it to pay."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 7
    logging_steps: Count = 10
    eval_steps: Count | None = None
    """How often the eval split is measured; default: once an epoch."""
    save_steps: Count = 50
    """How often a checkpoint is written."""
    keep_checkpoints: Count = 2
    keep: Literal["last", "best"] = "last"
    """Which weights are the result: those after the last step, or those with the least loss on the eval split."""
    early_stopping: EarlyStoppingParams = EarlyStoppingParams()
    overfitting: OverfittingParams = OverfittingParams()
    ewc: EwcParams = EwcParams()
    reward: RewardParams = RewardParams()
    dpo: DpoParams = DpoParams()
    kto: KtoParams = KtoParams()
    orpo: OrpoParams = OrpoParams()
    ppo: PpoParams = PpoParams()

    def learns(self, task: Task) -> Objective:
        """The objective, by default the task's usual one."""
        return self.objective or USUAL_OBJECTIVE[task]

    def learns_from(self, task: Task) -> tuple[ExampleKind, ...]:
        """The kinds of row that it learns from."""
        return self.kinds or LEARNS_FROM[self.learns(task)]

    @property
    def step_rows(self) -> int:
        """Rows that an optimizer step sees."""
        return self.batch_size * self.gradient_accumulation


class MachineParams(Section):
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 where a GPU has it; never on a CPU."""
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile. auto: where a short probe on a GPU finds it faster."""
    kernels: Literal["auto", "on", "off"] = "auto"
    """Liger kernels, where they are installed and there is a GPU."""
    gradient_checkpointing: Literal["auto", "on", "off"] = "auto"
    """Compute activations twice to keep fewer. auto: where the predicted peak would not fit otherwise."""
    processes: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes on this machine, one a GPU or CPU part; each sees its share of every step's rows. A ppo stage takes one: each
    would make all the answers."""
    shard: bool = False
    """Spread weights, gradients and optimizer over the processes (FSDP)."""


class TrainParams(StageParams):
    stages: Annotated[tuple[StageParams, ...], Field(strict=False)] = ()
    """The chain, first to last: each entry has the keys above, and takes from above those it does not give. Without entries the
    keys above are the one stage."""
    machine: MachineParams = MachineParams()
    max_hours: Positive | None = None
    """Stop at a checkpoint when training has taken so long in all, and go on from there when it may take longer."""
    max_cost: Positive | None = None
    """The same in money; needs price_per_hour."""
    price_per_hour: Positive | None = None
    """What an hour of this machine costs, in your currency."""

    @model_validator(mode="before")
    @classmethod
    def _share_keys(cls, said: Any) -> Any:
        """Give each stage the keys of the whole that it does not give itself; sections within are joined key by key."""
        if not isinstance(said, dict) or not isinstance(said.get("stages"), list | tuple):
            return said
        shared = {key: value for key, value in said.items() if key in StageParams.model_fields and key not in ("name", "start")}
        stages = [_joined(shared, stage) if isinstance(stage, dict) else stage for stage in said["stages"]]
        return {**said, "stages": stages}

    @model_validator(mode="after")
    def _check_caps(self) -> TrainParams:
        if self.max_cost is not None and self.price_per_hour is None:
            raise ValueError("max_cost needs price_per_hour")
        return self

    def chain(self, task: Task) -> tuple[StageParams, ...]:
        """The stages, first to last, each with its objective and a name filled in; stages without one are numbered."""
        keys = set(StageParams.model_fields)
        entries = self.stages or (StageParams.model_validate(self.model_dump(include=keys)),)
        taken: dict[str, int] = {}
        found = []
        for stage in entries:
            usual = stage.learns(task).value
            taken[usual] = taken.get(usual, 0) + (stage.name is None)
            name = stage.name or (usual if taken[usual] == 1 else f"{usual}-{taken[usual]}")
            found.append(stage.model_copy(update={"name": name, "objective": stage.learns(task)}))
        return tuple(found)


def _joined(shared: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    both = {key: value for key, value in shared.items() if key in own and isinstance(value, dict) and isinstance(own[key], dict)}
    return {**shared, **own, **{key: {**value, **own[key]} for key, value in both.items()}}

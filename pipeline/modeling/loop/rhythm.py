"""What the Trainer is told before it starts: its settings, what it draws from, and when it notes, measures, saves and stops.

What happens then is the loop's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Dataset
from transformers import TrainerCallback, TrainingArguments

from pipeline.modeling.loading import half_precision
from pipeline.modeling.loop.guard import check_weights
from pipeline.params.train import MachineParams, StageParams
from pipeline.ports import Progress

if TYPE_CHECKING:
    from pipeline.modeling.loop.loop import Loop


class Places(Dataset[int]):  # type: ignore[misc]
    """The places themselves: what lies at them is the learner's."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: int) -> int:
        return place


class Rhythm(TrainerCallback):  # type: ignore[misc]
    """When a step is noted, measured and saved. Measuring comes before saving, so that a resume repeats neither."""

    def __init__(self, loop: Loop, eval_steps: int, progress: Progress) -> None:
        self._loop = loop
        self._eval_steps = eval_steps
        self._progress = progress

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._loop.learner.order.epoch = state.global_step // self._loop.per_epoch

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        check_weights(self._loop.model, step=state.global_step + 1)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        loop, step = self._loop, state.global_step
        last = step >= loop.total
        loop.note_step(last=last)
        self._progress("training", step, loop.total)
        stopped = loop.asked_to_stop and not last
        control.should_evaluate = step % self._eval_steps == 0 or last
        control.should_save = step % loop.stage.save_steps == 0 or last or stopped
        control.should_training_stop = last or stopped

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # The Trainer acts on these flags once more at the end of an epoch: its last step would be measured and saved twice.
        control.should_evaluate = control.should_save = False


def arguments(stage: StageParams, folder: Path, total: int, machine: MachineParams) -> TrainingArguments:
    """The Trainer's settings for a stage of `total` steps. It is told that a whole step is one batch: the loop cuts it."""
    found = TrainingArguments(
        output_dir=str(folder),
        max_steps=total,
        per_device_train_batch_size=stage.step_rows,
        learning_rate=stage.learning_rate,
        lr_scheduler_type=stage.scheduler,
        warmup_steps=math.ceil(stage.warmup_share * total),
        weight_decay=stage.weight_decay,
        adam_beta2=stage.adam_beta2,
        max_grad_norm=stage.max_grad_norm,
        seed=stage.seed,
        logging_strategy="no",
        eval_strategy="no",
        save_strategy="no",
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
        log_level="error",
        use_cpu=not torch.cuda.is_available(),
        bf16=half_precision() and machine.precision != "fp32",
        remove_unused_columns=False,
    )
    if found.device.type == "cuda":
        found._n_gpu = 1  # or the Trainer spreads batches over all GPUs, and the adapter depends on how many there are
    return found


def by_rate(groups: Sequence[dict[str, Any]], rates: Mapping[int, float | None]) -> list[dict[str, Any]]:
    """An optimizer's groups of parameters, split by the learning rate that each parameter (by its id) has of its own; None: the
    group's. Groups without come first: the rate of the first group is the one that curves show."""
    found = []
    for group in groups:
        for rate in dict.fromkeys(rates[id(weight)] for weight in group["params"]):
            weights = [weight for weight in group["params"] if rates[id(weight)] == rate]
            found.append((rate is not None, {**group, "params": weights, "lr": group["lr"] if rate is None else rate}))
    return [group for _, group in sorted(found, key=lambda each: each[0])]

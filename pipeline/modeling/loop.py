"""The training loop: transformers' Trainer, guarded, with checkpoints that are whole and an order that survives a resume.

What is trained and on what is decided in training.py. The Trainer keeps its optimizer, scheduler, accumulation and resuming;
replaced are the parts that were found not to hold: its NaN filter, its checkpoint writing, its choice of what to resume
from, its sampling from the global random state, its averaging of evaluation losses over batches of different size.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import shutil
import signal
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from pipeline.domain.data import Task
from pipeline.errors import Broken, TryLater
from pipeline.modeling import checkpoints
from pipeline.modeling.adapter import NAME, WEIGHTS, state, write_weights
from pipeline.modeling.curves import Curves
from pipeline.modeling.encoding import IGNORED, Encoded, EpochOrder, by_length, collate
from pipeline.modeling.guard import check_gradient, check_loss, check_weights
from pipeline.modeling.loading import half_precision, inference
from pipeline.params import TrainParams
from pipeline.ports import Progress

log = logging.getLogger(__name__)

CURVES = "curves.json"


class Loop(Trainer):  # type: ignore[misc]
    """One training of an adapter. `run` resumes by itself from the newest whole checkpoint in `folder`."""

    def __init__(
        self,
        model: Any,
        task: Task,
        train: Encoded,
        evaluation: Encoded,
        params: TrainParams,
        *,
        pad_id: int,
        folder: Path,
        curves: Curves,
        progress: Progress,
    ) -> None:
        self.task = task
        self.params = params
        self.folder = folder
        self.curves = curves
        self.order = EpochOrder(
            train.lengths,
            batch_size=params.batch_size * params.gradient_accumulation,
            seed=params.seed,
        )
        self._staging: Path | None = None
        self._step_loss = 0.0
        self._collate = partial(collate, pad_id=pad_id, per_token=task is Task.GENERATE)
        self._evaluation = evaluation
        self._stop = threading.Event()
        self.per_epoch = math.ceil(math.ceil(len(train) / params.batch_size) / params.gradient_accumulation)
        self.total = params.max_steps or math.ceil(params.epochs * self.per_epoch)
        super().__init__(
            model=model,
            args=_arguments(params, folder, self.total),
            train_dataset=train,
            data_collator=self._collate,
            callbacks=[_Rhythm(self, params.eval_steps or self.per_epoch, progress)],
        )
        self.remove_callback(PrinterCallback)

    def run(self) -> None:
        """Train to the end, from the beginning or the newest whole checkpoint.

        Raises TrainingDiverged in the step in which a number goes bad, and TryLater after a checkpoint when SIGTERM comes.
        """
        checkpoints.sweep(self.folder)
        found = checkpoints.find_last_whole(self.folder)
        for problem in found.skipped:
            log.warning("not resuming from %s", problem)
        if found.path is not None:
            log.info("resuming from step %d of %d", found.step, self.total)
            self.curves.restore(json.loads((found.path / CURVES).read_text(encoding="utf-8")))
        if found.step >= self.total and found.path is not None:
            # All steps are done and only what follows them was lost. The Trainer would do one step more.
            self._load_from_checkpoint(str(found.path))
            return
        with self._stopping_on_sigterm():
            self.train(resume_from_checkpoint=str(found.path) if found.path else None)
        if self._stop.is_set() and self.state.global_step < self.total:
            raise TryLater(f"stopped by SIGTERM at step {self.state.global_step}", fix="run again, and it goes on from there")

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Mean loss on the eval split, without label smoothing: over answer tokens, or over rows with accuracy (classify)."""
        self.model.eval()
        loss, count, right = 0.0, 0, 0
        rows = self._evaluation
        with inference():
            for batch in by_length(rows.lengths, self.params.batch_size):
                inputs = self._prepare_inputs(self._collate([rows[n] for n in batch]))
                labels = inputs.pop("labels")
                logits = self.model(**inputs).logits.float()
                if self.task is Task.GENERATE:
                    logits, labels = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
                loss += float(torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum"))
                kept = labels != IGNORED
                count += int(kept.sum())
                right += int((logits.argmax(-1) == labels)[kept].sum())
        step = self.state.global_step
        check_loss(torch.tensor(loss), step=step, what="loss on the eval split")
        measures = {"eval_loss": loss / max(count, 1)}
        if self.task is Task.CLASSIFY:
            measures["eval_accuracy"] = right / max(count, 1)
        self.curves.evaluated(step, measures)
        return measures

    # What follows overrides the Trainer's own hooks.

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        result = super().compute_loss(model, inputs, *args, **kwargs)
        check_loss(result[0] if isinstance(result, tuple) else result, step=self.state.global_step + 1)
        return result

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        self._step_loss += float(loss)  # micro-batches come scaled so that they add up to the step's loss
        return loss

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = super()._clip_grad_norm(model)
        check_gradient(float(norm), model, step=self.state.global_step + 1)
        self._grad_norm = float(norm)
        self._rate = float(self.optimizer.param_groups[0]["lr"])
        return norm

    def _get_train_sampler(self, *_: Any) -> EpochOrder:
        return self.order

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging or self.folder)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self._staging = checkpoints.staging(self.folder)
        try:
            super()._save_checkpoint(model, trial)
            written = self._staging / f"checkpoint-{self.state.global_step}"
            (written / CURVES).write_text(json.dumps(self.curves.state(), allow_nan=False), encoding="utf-8")
            checkpoints.commit(written, self.folder)
        except (OSError, RuntimeError) as error:
            raise Broken(
                f"the checkpoint of step {self.state.global_step} could not be written: {error}",
                where=str(self.folder),
                fix="make room on the disk or raise train.save_steps, and run again: earlier checkpoints are whole",
            ) from error
        finally:
            shutil.rmtree(self._staging, ignore_errors=True)
            self._staging = None
        checkpoints.rotate(self.folder, self.params.keep_checkpoints)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        write_weights(self.model, Path(output_dir or self.folder))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        tensors = load_file(Path(resume_from_checkpoint) / WEIGHTS)
        expected = state(self.model)
        if tensors.keys() != expected.keys() or any(tensors[k].shape != expected[k].shape for k in tensors):
            raise Broken("the checkpoint is of another adapter", where=resume_from_checkpoint, fix="remove this folder")
        set_peft_model_state_dict(self.model, tensors, adapter_name=NAME)

    @contextlib.contextmanager
    def _stopping_on_sigterm(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may handle signals; elsewhere the last regular checkpoint must do
            return
        before = signal.signal(signal.SIGTERM, lambda *_: self._stop.set())
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


class _Rhythm(TrainerCallback):  # type: ignore[misc]
    """When a step is noted, measured and saved. Measuring comes before saving, so that a resume repeats neither."""

    def __init__(self, loop: Loop, eval_steps: int, progress: Progress) -> None:
        self._loop = loop
        self._eval_steps = eval_steps
        self._progress = progress

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._loop.order.epoch = int(state.epoch or 0)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._loop._step_loss = 0.0

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        check_weights(self._loop.model, step=state.global_step + 1)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        loop, step = self._loop, state.global_step
        last = step >= loop.total
        loop.curves.step(step, loss=loop._step_loss, learning_rate=loop._rate, grad_norm=loop._grad_norm, last=last)
        self._progress("training", step, loop.total)
        stopped = loop._stop.is_set() and not last
        control.should_evaluate = len(loop._evaluation) > 0 and (step % self._eval_steps == 0 or last)
        control.should_save = step % loop.params.save_steps == 0 or last or stopped
        control.should_training_stop = last or stopped

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # The Trainer acts on these flags once more at the end of an epoch: its last step would be measured and saved twice.
        control.should_evaluate = control.should_save = False


def _arguments(params: TrainParams, folder: Path, total: int) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=total,
        per_device_train_batch_size=params.batch_size,
        gradient_accumulation_steps=params.gradient_accumulation,
        learning_rate=params.learning_rate,
        lr_scheduler_type=params.scheduler,
        warmup_steps=math.ceil(params.warmup_share * total),
        weight_decay=params.weight_decay,
        adam_beta2=params.adam_beta2,
        max_grad_norm=params.max_grad_norm,
        label_smoothing_factor=params.label_smoothing,
        seed=params.seed,
        logging_strategy="no",
        eval_strategy="no",
        save_strategy="no",
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
        log_level="error",
        use_cpu=not torch.cuda.is_available(),
        bf16=half_precision(),
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
    )
    if arguments.device.type == "cuda":
        arguments._n_gpu = 1  # or the Trainer spreads batches over all GPUs, and the adapter depends on how many there are
    return arguments

"""The training loop: transformers' Trainer, guarded, with checkpoints that are whole and an order that survives a resume.

What is learned is the learner's (learning/), and the loop knows no objective. The Trainer keeps its optimizer, scheduler and
resuming; replaced are the parts that were found not to hold: its step, which fails when memory runs out, its NaN filter, its
checkpoint writing, its choice of what to resume from, its sampling from the global random state.
"""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer

from pipeline.errors import Broken, TryLater
from pipeline.modeling.learning.learner import Learner, OwnRates, Penalty
from pipeline.modeling.loop import checkpoints
from pipeline.modeling.loop.best import Best
from pipeline.modeling.loop.caps import Stopwatch
from pipeline.modeling.loop.carried import Carried
from pipeline.modeling.loop.checkpoints import WEIGHTS
from pipeline.modeling.loop.curves import Curves
from pipeline.modeling.loop.guard import check_gradient, check_loss, check_measures
from pipeline.modeling.loop.micro import Room
from pipeline.modeling.loop.noise import noisy_embeddings
from pipeline.modeling.loop.random_state import untouched
from pipeline.modeling.loop.rhythm import Places, Rhythm, arguments, by_rate
from pipeline.modeling.loop.stepping import Outcome, Stepping
from pipeline.modeling.loop.stopping import Signal, failing_plainly
from pipeline.modeling.loop.trained import read_trained, write_trained
from pipeline.modeling.loop.watch import Watch
from pipeline.modeling.parallel.ranks import ranks
from pipeline.modeling.parallel.sharding import keep_whole, shard
from pipeline.params.train import MachineParams, StageParams
from pipeline.ports import Progress

log = logging.getLogger(__name__)


class Loop(Trainer):  # type: ignore[misc]
    """One training of what `learner` learns. `run` resumes by itself from the newest whole checkpoint in `folder`.

    penalty: added to the loss of each step. micro_rows: items in memory at once, default the stage's batch_size; halved when
    memory runs out. max_hours: of training in all attempts. clock: seconds that only grow.

    After `run`. total: steps that were planned. taken: steps that were taken. kept_step: the step after which the weights are the
    result. stopped_early: why fewer steps were taken, None when they were not. alarms: sentences for people. measures: what the
    learner measured at the end. hours: of all attempts.
    """

    def __init__(
        self,
        learner: Learner,
        stage: StageParams,
        *,
        folder: Path,
        curves: Curves,
        progress: Progress,
        penalty: Penalty | None = None,
        micro_rows: int | None = None,
        max_hours: float | None = None,
        machine: MachineParams | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.learner = learner
        self.stage = stage
        self.folder = folder
        self.curves = curves
        self.room = Room(min(micro_rows or stage.batch_size, stage.step_rows), stage.eval_batch_size or stage.batch_size)
        self.watch = Watch(stage.early_stopping, stage.overfitting)
        self.stopwatch = Stopwatch(folder, max_hours, clock)
        self.alarms: tuple[str, ...] = ()
        self.measures: dict[str, float] = {}
        self.per_epoch = math.ceil(len(learner.order) / stage.step_rows)
        self.total = stage.max_steps or math.ceil(stage.epochs * self.per_epoch)
        self.shard = bool(machine and machine.shard and ranks().count > 1)
        self._best = Best(folder)
        self._carried = Carried(learner, curves, self.watch, self.room, self.stopwatch, self._best)
        self._signal = Signal()
        self._staging: Path | None = None
        super().__init__(
            model=learner.model,
            args=arguments(stage, folder, self.total, machine or MachineParams()),
            train_dataset=Places(len(learner.order)),
            data_collator=list,
            callbacks=[Rhythm(self, stage.eval_steps or self.per_epoch, progress)],
        )
        self.remove_callback(PrinterCallback)
        self._stepping = Stepping(learner, penalty, self.room, self.accelerator, self._prepare_inputs, stage.seed)
        self._outcome = Outcome()

    @property
    def taken(self) -> int:
        return int(self.state.global_step)

    @property
    def kept_step(self) -> int:
        return self.watch.best_step if self._best.digest is not None else self.taken

    @property
    def micro_rows(self) -> int:
        return self.room.training

    @property
    def stopped_early(self) -> str | None:
        return self._carried.stopped_early

    @property
    def hours(self) -> float:
        return self.stopwatch.seconds / 3600

    def run(self) -> None:
        """Train to the end, from the beginning or the newest whole checkpoint; the model then has the weights that are kept.

        Raises TrainingDiverged in the step in which a number goes bad; after a checkpoint TryLater when SIGTERM comes, and
        CapReached when the cap of time is; Broken when memory or the disk is too small.
        """
        self._begin_together()
        found = checkpoints.find_last_whole(self.folder)
        for problem in found.skipped:
            log.warning("not resuming from %s", problem)
        if found.path is None or not self._restore(found.path):
            self.stopwatch.check(found.step, self.total)
            with (
                failing_plainly(self.folder, lambda: self.taken),
                self._signal.listening(),
                self.stopwatch.running(),
                noisy_embeddings(self.model, self.stage.neftune_alpha),
            ):
                self.train(resume_from_checkpoint=str(found.path) if found.path else None)
            self._check_stopped()
        if self._best.digest is not None:
            self._best.put_back(self.model)
            self.curves.eval_loss = self.watch.best_loss
        self.model.eval()
        with untouched():
            self.measures, alarms = self.learner.closing()
        self.alarms = (*self.watch.alarms, *alarms)

    def _begin_together(self) -> None:
        """What comes before the first step and before any resume: all processes begin alike, and find what the first has made."""
        others = ranks()
        others.alike(self.model)
        with untouched():  # what is prepared may come from a cache, and then draws nothing
            others.in_turn(self._stepping.prepare)
        self.model.eval()  # all of it: a step looks at the whole only, to see whether it has to be told to train
        if others.first:
            checkpoints.sweep(self.folder)
        others.wait()
        if self.shard:
            shard(self.model)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Measures on the eval split, noted in the curves and judged: is it the best so far, is it time to stop?"""
        step = self.taken
        with untouched():
            asked = ranks().first or self.shard  # of a model that is spread nobody can ask alone
            measures = ranks().as_first(self._stepping.evaluate(step) if asked else {})
        if "eval_loss" not in measures:
            return measures
        check_loss(torch.tensor(measures["eval_loss"]), step=step, what="loss on the eval split")
        check_measures(measures, step=step)
        self.curves.evaluated(step, measures)
        verdict = self.watch.evaluated(step, measures["eval_loss"])
        if verdict.best and self.stage.keep == "best":
            self._best.note(self.model)
        if verdict.alarm is not None:
            log.warning("%s", verdict.alarm)
            self.curves.alarm(step, "overfitting", verdict.alarm)
        if verdict.stop is not None and step < self.total:
            log.info("stopping after step %d of %d: %s", step, self.total, verdict.stop)
            self._carried.stopped_early = verdict.stop
            self.curves.flush()
            self.control.should_save = self.control.should_training_stop = True
        return measures

    # What follows overrides the Trainer's own hooks.

    def training_step(self, model: Any, places: Sequence[int], *_: Any, **__: Any) -> torch.Tensor:
        self._outcome = self._stepping.take(self.taken + 1, places)
        return torch.tensor(self._outcome.loss, device=self.args.device)

    def create_optimizer(self, model: Any = None) -> Any:
        optimizer = super().create_optimizer(model)
        if self.shard:
            keep_whole(optimizer)
        if isinstance(self.learner, OwnRates):
            rates = {id(weight): self.learner.rate(name) for name, weight in self.model.named_parameters()}
            optimizer.param_groups[:] = by_rate(optimizer.param_groups, rates)
        return optimizer

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = super()._clip_grad_norm(model)
        check_gradient(float(norm), model, step=self.taken + 1)
        self._grad_norm = float(norm)
        self._rate = float(self.optimizer.param_groups[0]["lr"])
        return norm

    def get_train_dataloader(self) -> DataLoader[int]:
        # Not prepared by accelerate: a step's items go to the learner as they are, and each process takes its share by itself.
        return DataLoader(
            self.train_dataset, batch_size=self.stage.step_rows, sampler=self.learner.order, collate_fn=self.data_collator
        )

    def floating_point_ops(self, inputs: Any) -> int:
        return 0  # the Trainer's estimate is by the shape of a batch, which a step is not

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging or self.folder)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if ranks().first:
            self._save_as_first(model, trial)
        elif self.shard:
            write_trained(self.model, self.folder)  # which the first writes
            self.optimizer.state_dict()
        ranks().wait()

    def _save_as_first(self, model: Any, trial: Any) -> None:
        self._staging = checkpoints.staging(self.folder)
        try:
            super()._save_checkpoint(model, trial)
            written = self._staging / f"checkpoint-{self.taken}"
            self._carried.write(written)
            checkpoints.commit(written, self.folder)
            checkpoints.rotate(self.folder, self.stage.keep_checkpoints)
        except (OSError, RuntimeError) as error:
            raise Broken(
                f"the checkpoint of step {self.taken} could not be written: {error}",
                where=str(self.folder),
                fix="make room on the disk or raise train.save_steps, and run again: earlier checkpoints are whole",
            ) from error
        finally:
            shutil.rmtree(self._staging, ignore_errors=True)
            self._staging = None

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_trained(self.model, folder / WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        read_trained(self.model, Path(resume_from_checkpoint) / WEIGHTS)

    # What follows is the loop's own.

    def note_step(self, *, last: bool) -> None:
        """Put the step that was just taken into the curves."""
        self.watch.stepped(self._outcome.loss)
        numbers = {"loss": self._outcome.loss, "learning_rate": self._rate, "grad_norm": self._grad_norm}
        self.curves.step(self.taken, **numbers, measures=self._outcome.measures)
        if last:
            self.curves.flush()
        self.stopwatch.note()

    @property
    def asked_to_stop(self) -> bool:
        """By SIGTERM or by the cap of time, whichever process was."""
        come, over = zip(*ranks().gathered([self._signal.come, self.stopwatch.over]), strict=True)
        if any(come):
            self._signal.note()
        return any(come) or any(over)

    def _restore(self, path: Path) -> bool:
        """Take up where a checkpoint left off, but for what the Trainer reads itself. True: there is no more to train."""
        self._carried.restore(path)
        step = int(path.name.rpartition("-")[2])
        if step < self.total and self.stopped_early is None:
            log.info("resuming from step %d of %d", step, self.total)
            return False
        # All steps are done and only what follows them was lost. The Trainer would do one step more.
        self._load_from_checkpoint(str(path))
        self.state.global_step = step
        return True

    def _check_stopped(self) -> None:
        """Raise what explains why there are steps left, if there are and no verdict ended the training."""
        if self.taken >= self.total or self.stopped_early is not None:
            return
        if self._signal.come:
            raise TryLater(f"stopped by SIGTERM at step {self.taken}", fix="run again, and it goes on from there")
        self.stopwatch.check(self.taken, self.total)

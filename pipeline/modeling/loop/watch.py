"""Watches the losses of a training: which step was best, whether to stop early, whether it fits its rows too closely.

Plain numbers in, plain numbers out; what is done about them is the loop's. All that is remembered is part of each checkpoint, so
a resumed training judges as an uninterrupted one does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.params.learning import EarlyStoppingParams, OverfittingParams


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an evaluation came to. best: no earlier one had so low a loss. alarm: a sentence for people, the first time that
    over-fitting is seen in a row of evaluations. stop: why training should end, None when it should go on."""

    best: bool
    alarm: str | None = None
    stop: str | None = None


class Watch:
    """The losses of one training, step by step and evaluation by evaluation.

    best_step: the step after which the loss on the eval split was least, 0 before the first evaluation. alarms: all so far.
    """

    def __init__(self, stopping: EarlyStoppingParams, overfitting: OverfittingParams) -> None:
        self.best_step = 0
        self.best_loss: float | None = None
        self.alarms: list[str] = []
        self._stopping = stopping
        self._overfitting = overfitting
        self._sum = 0.0
        self._steps = 0
        self._to_beat: float | None = None
        self._no_better = 0
        self._rising: list[tuple[int, float, float]] = []
        """(step, loss on the eval split, mean training loss before it) since the last evaluation that showed no over-fitting."""

    def stepped(self, loss: float) -> None:
        """Note the training loss of one step."""
        self._sum += loss
        self._steps += 1

    def evaluated(self, step: int, loss: float) -> Verdict:
        """Note the loss on the eval split after `step`, and say what it means."""
        train = self._sum / self._steps if self._steps else float("inf")
        self._sum, self._steps = 0.0, 0
        best = self.best_loss is None or loss < self.best_loss
        if best:
            self.best_step, self.best_loss = step, loss
        alarm = self._look_for_overfitting(step, loss, train)
        stop = self._look_for_progress(loss)
        if alarm is not None:
            self.alarms.append(alarm)
            if self._overfitting.policy == "stop":
                stop = alarm
        return Verdict(best, alarm, stop)

    def state(self) -> dict[str, Any]:
        """All that a resume needs, as JSON values."""
        return {
            "best_step": self.best_step,
            "best_loss": self.best_loss,
            "alarms": self.alarms,
            "sum": self._sum,
            "steps": self._steps,
            "to_beat": self._to_beat,
            "no_better": self._no_better,
            "rising": self._rising,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up where `state` left off."""
        self.best_step, self.best_loss, self.alarms = state["best_step"], state["best_loss"], list(state["alarms"])
        self._sum, self._steps = state["sum"], state["steps"]
        self._to_beat, self._no_better = state["to_beat"], state["no_better"]
        self._rising = [(step, loss, train) for step, loss, train in state["rising"]]

    def _look_for_progress(self, loss: float) -> str | None:
        """Many changes, each too small to count, count together: what is to be beaten stays until it is."""
        if self._to_beat is None or loss < self._to_beat - self._stopping.min_change:
            self._to_beat, self._no_better = loss, 0
            return None
        self._no_better += 1
        if self._stopping.patience is None or self._no_better < self._stopping.patience:
            return None
        times = "once" if self._no_better == 1 else f"{self._no_better} times in a row"
        return f"the loss on the eval split did not get better than {self._to_beat:.4g}, {times}"

    def _look_for_overfitting(self, step: int, loss: float, train: float) -> str | None:
        """Each evaluation of the row has a higher loss on the eval split and a lower training loss than the one before it."""
        if self._overfitting.policy == "off":
            return None
        if not self._rising or not (loss > self._rising[-1][1] and train < self._rising[-1][2]):
            self._rising = []
        self._rising.append((step, loss, train))
        if len(self._rising) - 1 != self._overfitting.evaluations:
            return None
        since, lowest, before = self._rising[0]
        rose = f"the loss on the eval split rose {len(self._rising) - 1} times in a row, from {lowest:.4g} to {loss:.4g}"
        fell = f"the training loss fell from {before:.4g} to {train:.4g}"
        return f"over-fitting since step {since}: until step {step} {rose}, while {fell}"

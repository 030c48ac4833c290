"""Sweep: train again and again with other params, within a budget, and remember what each came to. Points in, trials out.

Which point is tried next, and which trial ends early, is the study's to say; how one is trained, the caller's. Nothing here knows
Optuna, MLflow or torch.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from pipeline.domain.sweeping import Point, Trial
from pipeline.errors import Broken, CapReached, Misuse, RewardHacked, TrainingDiverged, TryLater, TunelineError
from pipeline.ports import Study, Tracker

ENOUGH_FAILURES = 3
"""So many trials that fail one after the other end the sweep: what they have in common is wrong."""
_NOTED_EVERY = 5.0
_CLOSE = 1.0
"""Seconds: two clocks that stand beside each other differ by less."""


class Pruned(Exception):
    """The trial is worse than others were at the same evaluation, and ends here. No error: it is raised through the training."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Trials in all, and seconds of training in all; None: no cap."""

    trials: int
    seconds: float | None = None

    def left(self, spent: float) -> float:
        return math.inf if self.seconds is None else self.seconds - spent


class Sitting:
    """One attempt at a trial. hours: of training that it may come to, its earlier sittings included; inf: no cap. halt: set when
    the sweep is at an end before the trial is."""

    def __init__(self, study: Study, trial: Trial, left: float, halt: threading.Event | None = None) -> None:
        self.trial, self.halt = trial, halt or threading.Event()
        self.hours = (trial.seconds + left) / 3600
        self._study = study
        self._start = self._noted = time.monotonic()

    def note(self, *, now: bool = False) -> None:
        """Write down how long the trial has been training. It is done as it goes, so that a kill forgets seconds."""
        if now or time.monotonic() - self._noted >= _NOTED_EVERY:
            self._noted = time.monotonic()
            self._study.spent(self.trial.number, self.trial.seconds + self._noted - self._start)


class Watched:
    """A tracked run that tells the study of each evaluation, and ends the trial when the study says so. Implements ports.Tracker.

    measure: what trials are judged by. stage: of a chain the last stage's name, whose evaluations count; None where it is one.
    """

    def __init__(
        self, tracker: Tracker, study: Study, sitting: Sitting, *, measure: str, stage: str | None, prunable: bool
    ) -> None:
        self._tracker, self._study, self._sitting = tracker, study, sitting
        self._stage = f"{stage}." if stage else ""
        self._name, self._prefix = f"{self._stage}{measure}", f"{self._stage}eval_"
        self._prunable = prunable

    def log_metrics(self, metrics: Mapping[str, float], *, step: int | None = None) -> None:
        self._tracker.log_metrics(metrics, step=step)
        self._sitting.note()
        if self._sitting.halt.is_set():
            raise TryLater("the sweep ended while the trial was under way", fix="run again, and it goes on")
        if step is None or not any(name.startswith(self._prefix) for name in metrics):
            return
        if self._name not in metrics:
            there = ", ".join(name.removeprefix(self._stage) for name in metrics if name.startswith(self._prefix))
            raise Misuse("the objective does not measure this", where="sweep.measure", fix=f"one of {there}")
        number = self._sitting.trial.number
        if self._study.report(number, step, metrics[self._name]) and self._prunable:
            raise Pruned(f"trial {number}")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tracker, name)


Training = Callable[[Sitting], float]
"""Trains a trial to its end and gives the value that it is judged by. Raises Pruned, CapReached when the sitting's hours are
over, and all that training raises."""


def sweep(
    study: Study,
    train: Training,
    budget: Budget,
    *,
    own: Point | None,
    say: Callable[[str], None],
    at_once: int = 1,
) -> str:
    """Run trials until the budget is spent, and say why it ended. own: the point of the params as they are, tried first.

    A trial that an earlier sitting left under way is taken up again before all others. One that diverges, or whose values cannot
    be combined, has failed and is no error. at_once: so many are under way together, each in a thread of its own; which points
    are tried then depends on who is done first too. Raises Misuse when ENOUGH_FAILURES fail in a row, and what training raises
    otherwise, once the other trials have stopped.
    """
    halt = threading.Event()
    under_way: dict[Future[bool], Sitting] = {}
    ended: str | None = None
    with ThreadPoolExecutor(at_once, thread_name_prefix="trial") as pool:
        try:
            while True:
                while ended is None and len(under_way) < at_once:
                    found = _next(study, budget, own, {sitting.trial.number for sitting in under_way.values()})
                    if isinstance(found, str):
                        ended = found
                        break
                    sitting = Sitting(study, found, budget.left(_spent(study)), halt)
                    if at_once == 1:  # where signals arrive
                        if not _attempt(study, sitting, train, budget, say):
                            ended = _out_of_hours(budget, sitting)
                        continue
                    under_way[pool.submit(_attempt, study, sitting, train, budget, say)] = sitting
                if not under_way:
                    return str(ended)
                done, _ = wait(under_way, return_when=FIRST_COMPLETED)
                for one in done:
                    sitting = under_way.pop(one)
                    if not one.result():
                        ended = _out_of_hours(budget, sitting)
        except BaseException:
            halt.set()
            raise


def _next(study: Study, budget: Budget, own: Point | None, under_way: set[int]) -> Trial | str:
    """The next trial to sit, or why there is none."""
    trials = study.trials()
    _check_failures(trials)
    if budget.left(_spent(study)) <= 0:
        return f"the budget of {_hours(budget.seconds or 0)} is spent"
    left = next((trial for trial in trials if trial.state == "running" and trial.number not in under_way), None)
    if left is not None:
        return left
    if len(trials) >= budget.trials:
        return f"all {budget.trials} trials were run"
    wanted = own if own is not None and all(trial.point != own for trial in trials) else None
    return study.begin(wanted) or f"no point of the space is left that was not tried: {len(trials)} trials"


def _spent(study: Study) -> float:
    return sum(trial.seconds for trial in study.trials())


def _out_of_hours(budget: Budget, sitting: Sitting) -> str:
    return f"the budget of {_hours(budget.seconds or 0)} is spent; trial {sitting.trial.number} goes on when it is raised"


def _attempt(study: Study, sitting: Sitting, train: Training, budget: Budget, say: Callable[[str], None]) -> bool:
    """Train one trial to its end and note what became of it; False when the budget ended before it did."""
    trial, number = sitting.trial, sitting.trial.number
    said = f"trial {number}: {told(trial.point)}"
    say(f"{said}, taken up again after {_hours(trial.seconds)}" if trial.seconds else said)
    try:
        value = _sit(study, sitting, train)
    except Pruned:
        study.prune(number)
        measured = study.trials()[number].measured
        say(f"trial {number}: pruned at evaluation {len(measured)}, {measured[-1]:.6g}")
    except CapReached as error:
        if budget.left(sum(trial.seconds for trial in study.trials())) <= _CLOSE:
            return False
        _fail(study, number, error, say)  # a cap of train's own: this point takes too long
    except (TrainingDiverged, RewardHacked, Misuse) as error:
        _fail(study, number, error, say)
    except Broken as error:
        _fail(study, number, error, say)  # or the next sitting would break on it again
        raise
    else:
        study.finish(number, value)
        say(f"trial {number}: {value:.6g}")
    return True


def _sit(study: Study, sitting: Sitting, train: Training) -> float:
    if sitting.trial.measured and study.should_end(sitting.trial.number):
        raise Pruned  # it was killed between the verdict and the deed
    try:
        return train(sitting)
    finally:
        sitting.note(now=True)


def _fail(study: Study, number: int, error: TunelineError, say: Callable[[str], None]) -> None:
    study.fail(number, error.what)
    say(f"trial {number}: failed: {error.what}")


def _check_failures(trials: tuple[Trial, ...]) -> None:
    last = trials[-ENOUGH_FAILURES:]
    if len(last) == ENOUGH_FAILURES and all(trial.state == "failed" for trial in last):
        raise Misuse(
            f"the last {ENOUGH_FAILURES} trials failed, the last one because: {last[-1].note}",
            where="sweep.space",
            fix="narrow the space, or mend what they have in common",
        )


def told(point: Point) -> str:
    """A point in a line."""
    return ", ".join(f"{key} {value}" for key, value in point.items())


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.2f} hours" if seconds >= 360 else f"{seconds:.0f} seconds"

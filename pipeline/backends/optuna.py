"""Optuna: which point to try next, which trial to end early, and the memory of both in one SQLite file. Implements ports.Study.

What a trial costs and what is made of it are not known here. Everything is written before it is acted on, in single statements,
so that a sweep that was killed anywhere goes on with the trial that was under way. The next point is a function of the seed,
the trial's number and what earlier trials came to: an interrupted sweep tries what an uninterrupted one does.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from pipeline.domain.record import canonical_json
from pipeline.domain.sweeping import Dimension, Point, Trial

_STATES: dict[TrialState, Literal["running", "finished", "pruned", "failed"]] = {
    TrialState.RUNNING: "running",
    TrialState.WAITING: "running",
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}
_DIGITS = 4
"""Numbers are tried as they will be written: with so many digits."""
_MODELLED, _DRAWN = 5, 100
"""So often a point that is new is asked of the model of good points, and then of plain chance."""
_AT_RANDOM = 8
"""Trials before the first that the model of good points (TPE) is asked for."""
_SEEDS = 2**32


class OptunaStudy:
    """One sweep. path: the SQLite file. name: of the study within; it must name all that trials depend on."""

    def __init__(self, path: Path, name: str, space: Mapping[str, Dimension], *, least: bool, pruning: str, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = optuna.storages.RDBStorage(f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 60}})
        self._storage = optuna.storages.get_storage(file)  # which remembers what cannot change any more
        self._space = {key: _distribution(dimension) for key, dimension in space.items()}
        self._seed = seed
        self._direction = StudyDirection.MINIMIZE if least else StudyDirection.MAXIMIZE
        self._study = optuna.create_study(
            storage=self._storage, study_name=name, direction=self._direction, load_if_exists=True, pruner=_pruner(pruning)
        )

        self._study_id = self._storage.get_study_id_from_name(name)

    def trials(self) -> tuple[Trial, ...]:
        return tuple(self._trial(found) for found in self._study.get_trials(deepcopy=False))

    def begin(self, point: Point | None) -> Trial | None:
        chosen = self._next_point() if point is None else point
        if chosen is None:
            return None
        params = {key: _encoded(self._space[key], value) for key, value in chosen.items()}
        self._study.add_trial(optuna.create_trial(state=TrialState.RUNNING, params=params, distributions=self._space))
        return self.trials()[-1]

    def report(self, number: int, step: int, value: float) -> bool:
        at = self._id(number)
        steps: list[int] = self._storage.get_trial(at).user_attrs.get("steps", [])
        if step not in steps:
            self._storage.set_trial_user_attr(at, "steps", [*steps, step])
            self._storage.set_trial_intermediate_value(at, len(steps) + 1, value)
        return self.should_end(number)

    def should_end(self, number: int) -> bool:
        found = self._storage.get_trial(self._id(number))
        return bool(found.intermediate_values) and self._study.pruner.prune(self._study, found)

    def spent(self, number: int, seconds: float) -> None:
        self._storage.set_trial_user_attr(self._id(number), "seconds", seconds)

    def finish(self, number: int, value: float) -> None:
        self._study.tell(number, value)

    def prune(self, number: int) -> None:
        self._study.tell(number, state=TrialState.PRUNED)

    def fail(self, number: int, why: str) -> None:
        self._storage.set_trial_user_attr(self._id(number), "note", why)
        self._study.tell(number, state=TrialState.FAIL)

    def _next_point(self) -> Point | None:
        """A point that was not tried yet; None when none was found."""
        history = [t for t in self._study.get_trials(deepcopy=True) if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
        every = self.trials()
        tried = {trial.key for trial in every}
        for attempt in range(_MODELLED + _DRAWN):
            seed = (self._seed + 1_000_003 * len(every) + 7919 * attempt) % _SEEDS
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                sampler: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler(seed=seed)
                if attempt < _MODELLED:
                    sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=_AT_RANDOM)
                memory = optuna.create_study(direction=self._direction, sampler=sampler)
                memory.add_trials(history)
                asked = memory.ask(self._space)
            point = {key: _rounded(self._space[key], value) for key, value in asked.params.items()}
            if Trial(number=0, state="running", point=point).key not in tried:
                return point
        return None

    def _id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)

    def _trial(self, found: FrozenTrial) -> Trial:
        measured = found.intermediate_values
        return Trial(
            number=found.number,
            state=_STATES[found.state],
            point={key: _decoded(self._space[key], value) for key, value in sorted(found.params.items())},
            value=found.value if found.state is TrialState.COMPLETE else None,
            seconds=float(found.user_attrs.get("seconds", 0.0)),
            measured=tuple(measured[step] for step in sorted(measured)),
            note=str(found.user_attrs.get("note", "")),
        )


def _pruner(name: str) -> optuna.pruners.BasePruner:
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=3)
    if name == "halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    return optuna.pruners.NopPruner()


def _distribution(dimension: Dimension) -> BaseDistribution:
    if dimension.choices is not None:
        return CategoricalDistribution([canonical_json(choice) for choice in dimension.choices])
    if dimension.whole:
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return FloatDistribution(float(dimension.low), float(dimension.high), log=dimension.log)


def _decoded(distribution: BaseDistribution, value: Any) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return json.loads(value)
    return value


def _rounded(distribution: BaseDistribution, value: Any) -> Any:
    if isinstance(distribution, FloatDistribution):
        return min(max(float(f"{value:.{_DIGITS}g}"), distribution.low), distribution.high)
    return _decoded(distribution, value)


def _encoded(distribution: BaseDistribution, value: Any) -> Any:
    return canonical_json(value) if isinstance(distribution, CategoricalDistribution) else value

"""The section `sweep`: which keys of train are tried with which values, how long. Its keys are checked against train's own."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from pipeline.domain.data import Task
from pipeline.params.chains import chain_problems
from pipeline.params.section import Count, Section
from pipeline.params.train import StageParams, TrainParams

Scalar = bool | int | float | str
Listed = Annotated[tuple[Scalar, ...], Field(strict=False)]
Positive = Annotated[float, Field(gt=0)]

NOT_TRIED = {
    "name": "it names a stage",
    "start": "what a stage begins from is a decision of its own",
    "objective": "losses of two objectives cannot be compared",
    "kinds": "trials that learn from other rows are measured on other rows",
    "seed": "choosing a seed by the eval split is choosing luck",
}
"""Keys that no sweep may try, and why."""
CHANGES_THE_LOSS = ("max_length", "reward", "dpo", "kto", "orpo", "ppo")
"""Keys and sections that change what eval_loss is, so that trials which differ there can't be compared by it."""


class SpaceParams(Section):
    """The values that one key is tried with: a range, or a list."""

    low: int | float | None = None
    high: int | float | None = None
    """Both ends belong to the range. Of a key that is a whole number, whole numbers are tried."""
    log: bool = False
    """Draw by orders of magnitude: as many below as above the geometric mean. For rates and the like."""
    choices: Annotated[tuple[Scalar | Listed, ...], Field(min_length=2, strict=False)] | None = None
    """Instead of a range."""

    @model_validator(mode="after")
    def _check_range(self) -> SpaceParams:
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log:
                raise ValueError("give either choices, or low and high")
            if len({repr(choice) for choice in self.choices}) < len(self.choices):
                raise ValueError("a choice stands twice")
        elif self.low is None or self.high is None:
            raise ValueError("give low and high, or choices")
        elif self.low >= self.high:
            raise ValueError(f"low must be below high, {self.low} is not below {self.high}")
        elif self.log and self.low <= 0:
            raise ValueError("log needs a low above 0")
        return self

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values between or among which all others lie."""
        return self.choices if self.choices is not None else (self.low, self.high)


class SweepParams(Section):
    space: dict[str, SpaceParams] = {}
    """Key of train, or stages.NAME.KEY, dots leading into sections: {low, high, log} or {choices}. Without a stage's name it sets
    the key that all stages share."""
    trials: Count = 20
    """Trainings in all, those of earlier sittings included."""
    measure: Annotated[str, Field(pattern=r"^eval_[a-z0-9_]+$")] = "eval_loss"
    """By what trials are judged, on the eval split after the last stage: eval_loss, of which less is better, or another measure
    of the objective, of which more is (eval_accuracy, …)."""
    pruning: Literal["off", "median", "halving"] = "median"
    """End a trial early: median: when it is worse than half of the others were at the same evaluation. halving: when it is not
    among the best third there (Li et al., 2020)."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 7
    max_hours: Positive | None = None
    """Training time of all trials together. What it interrupts goes on when it is raised."""
    max_cost: Positive | None = None
    """The same in money; needs train.price_per_hour."""


def space_problems(sweep: SweepParams, train: TrainParams, task: Task) -> Iterator[str]:
    """What in the space cannot be tried, a sentence each with the key before it."""
    if sweep.max_cost is not None and train.price_per_hour is None:
        yield "sweep.max_cost: it needs train.price_per_hour"
    already = set(chain_problems(train, task))
    for key, space in sweep.space.items():
        place = f"sweep.space.{key}"
        try:
            own, kind, path = _resolved(key, train, task)
        except LookupError as error:
            yield f"{place}: {error.args[0]}"
            continue
        if (reason := _refusal(own, sweep.measure)) is not None:
            yield f"{place}: {reason}"
            continue
        if space.choices is None and not {int, float} & kind:
            yield f"{place}: it is no number, so give choices"
            continue
        for value in space.ends:
            said = train.model_dump(mode="json")
            _put(said, path, value)
            try:
                tried = TrainParams.model_validate(said)
            except ValidationError as error:
                found = error.errors()[0]
                yield f"{place}: {value!r} is refused: {found['msg']}"
                break
            if new := [problem for problem in chain_problems(tried, task) if problem not in already]:
                yield f"{place}: {value!r} is refused: {new[0]}"
                break


def whole_numbers(key: str, train: TrainParams, task: Task) -> bool:
    """Whether a key of the space, which has been checked, holds whole numbers."""
    return float not in _resolved(key, train, task)[1]


def stage_place(key: str, train: TrainParams, task: Task) -> tuple[str | int, ...]:
    """Where the value of a key of the space stands within the section train: ("stages", 1, "dpo", "beta")."""
    return _resolved(key, train, task)[2]


def _refusal(own: str, measure: str) -> str | None:
    head = own.split(".", 1)[0]
    if own in NOT_TRIED:
        return NOT_TRIED[own]
    if head in CHANGES_THE_LOSS and measure == "eval_loss":
        return f"{head} changes what eval_loss is, so trials cannot be compared by it: set sweep.measure to another measure"
    return None


def _resolved(key: str, train: TrainParams, task: Task) -> tuple[str, set[type], tuple[str | int, ...]]:
    """(the key within its stage, the types it may have, where it stands in train). Raises LookupError with the reason."""
    parts = key.split(".")
    place: tuple[str | int, ...] = ()
    if parts[0] == "stages":
        names = [str(stage.name) for stage in train.chain(task)] if train.stages else []
        if len(parts) < 3 or parts[1] not in names:
            there = f"the stages are {', '.join(names)}" if names else "train has no stages"
            raise LookupError(f"write stages.NAME.KEY; {there}")
        place, parts = ("stages", names.index(parts[1])), parts[2:]
    return ".".join(parts), _types(parts), (*place, *parts)


def _types(parts: list[str]) -> set[type]:
    model: type[Section] = StageParams
    for at, part in enumerate(parts):
        field = model.model_fields.get(part)
        if field is None:
            close = difflib.get_close_matches(part, model.model_fields, n=1)
            raise LookupError(f"unknown key {part!r}" + (f"; did you mean {close[0]}?" if close else ""))
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            model = inner
            continue
        if typing.get_origin(inner) is dict and at == len(parts) - 2:
            return _members(typing.get_args(inner)[1])  # the last part names an entry
        if at < len(parts) - 1:
            raise LookupError(f"{'.'.join(parts[: at + 1])} has no keys within")
        return _members(inner)
    raise LookupError(f"{'.'.join(parts)} is a section: name a key within it, one of {', '.join(sorted(model.model_fields))}")


def _members(annotation: Any) -> set[type]:
    """The types in an annotation, those of a union each."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _members(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return set().union(*(_members(part) for part in typing.get_args(annotation)))
    return {annotation} if isinstance(annotation, type) else {object}


def _put(said: Any, path: tuple[str | int, ...], value: Any) -> None:
    for part in path[:-1]:
        said = said[part]
    said[path[-1]] = list(value) if isinstance(value, tuple) else value

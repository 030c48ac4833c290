"""What a training would take, before it starts: the command `tuneline plan`, and how its answer is shown to people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.commands.options import DEFAULT_PARAMS, Json, ParamsFile, open_world, show

if TYPE_CHECKING:
    from pipeline.domain.planning import Forecast, Plan, Span, StagePlan

Number = Annotated[int | None, typer.Option("--run", help="The run whose data is planned for; default: the newest.")]
Try = Annotated[bool, typer.Option("--try/--no-try", help="Take a few steps with each tuner, to measure how long they last.")]


def plan(number: Number = None, trying: Try = True, params: ParamsFile = DEFAULT_PARAMS, json: Json = False) -> None:
    """Before any training: memory, time and cost of each tuner on this machine, and which one to take."""
    world, loaded = open_world(params)
    from pipeline.inquiries import plan_for
    from pipeline.terminal import reporter

    found = plan_for(world, loaded, number, trying=trying, progress=reporter())
    show(found, json, plan_lines)
    raise typer.Exit(0 if found.fits else 1)


def plan_lines(found: Plan) -> list[str]:
    """A plan as a table a stage."""
    base = f"{found.base}, {found.weights / 1e6:.1f} million weights"
    lines = [f"{base}; {_size(found.room)} free ({found.bound}); rows: {found.data}"]
    for stage in found.stages:
        lines += ["", *_stage_lines(stage)]
    lines += ["", f"as params have it: {_span(found.seconds, _time)} of training"]
    return [*lines, *(f"warning: {warning}" for warning in found.warnings)]


def _stage_lines(stage: StagePlan) -> list[str]:
    from pipeline.terminal import table

    of = f"{stage.items:,} items of {stage.tokens:.0f} tokens, {stage.labelled:.0f} with a loss; {stage.steps:,} steps"
    rows = [_row(stage, one) for one in stage.forecasts]
    lines = [f"{stage.name} ({stage.objective}): {of}", *(f"  {line}" for line in table(rows))]
    lines += [f"  {one.tuner}: {one.problem}" for one in stage.forecasts if one.problem is not None]
    lines += [f"  {tuner}: refused: {reason}" for tuner, reason in stage.refused.items()]
    taken = f"plan would take {stage.takes}" if stage.takes is not None else "plan would take none"
    return [*lines, f"  {taken}: {stage.because}"]


def _row(stage: StagePlan, one: Forecast) -> dict[str, Any]:
    marks = [name for name, tuner in (("params", stage.asked), ("plan", stage.takes)) if tuner is one.tuner]
    at_once = f"{one.micro_rows}{' recomputed' if one.gradient_checkpointing else ''}"
    return {
        "tuner": one.tuner.value,
        "": " ".join(marks),
        "learned": f"{one.trainable:,}",
        "memory": _span(one.memory, _size),
        "fits": "no" if one.problem is not None else "yes",
        "at once": at_once,
        "time": f"{_span(one.seconds, _time)} {'tried' if one.measured else 'reckoned'}",
        "cost": _span(one.cost, lambda cost: f"{cost:.2f}") if one.cost is not None else None,
    }


def _span(span: Span, said: Any) -> str:
    return f"{said(span.value)} ({said(span.low)} to {said(span.high)})"


def _size(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def _time(seconds: float) -> str:
    for most, unit, name in ((90, 1, "s"), (5400, 60, "min"), (36 * 3600, 3600, "h")):
        if seconds < most:
            return f"{seconds / unit:.2g} {name}"
    return f"{seconds / 86400:.2g} days"

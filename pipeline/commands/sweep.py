"""Looking for better params: the command that trains many times within a budget and writes the winner back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.commands.options import DEFAULT_PARAMS, Json, ParamsFile, open_world, show

Number = Annotated[int | None, typer.Option("--run", help="The run whose splits are trained on; default: the newest.")]
Trials = Annotated[int | None, typer.Option(min=1, help="Trials in all, instead of those in params.")]
MaxHours = Annotated[float | None, typer.Option(help="Hours of training in all, instead of those in params.")]
Out = Annotated[Path | None, typer.Option(help="Write the params with the winner here; default: to the params file itself.")]


def sweep(
    params: ParamsFile = DEFAULT_PARAMS,
    trials: Trials = None,
    max_hours: MaxHours = None,
    number: Number = None,
    out: Out = None,
    json: Json = False,
) -> None:
    """Train with many values of the keys in params' sweep.space, end bad trials early, and write the best values back."""
    world, _ = open_world(params)
    from pipeline.sweeping import run_sweep
    from pipeline.terminal import reporter, say

    found = run_sweep(world, params, number=number, trials=trials, max_hours=max_hours, out=out, say=say, progress=reporter())
    show(found, json, sweep_lines)


def sweep_lines(found: Any) -> list[str]:
    """What a sweep came to, for people."""
    from pipeline.terminal import table

    rows = [
        {
            "trial": trial.number,
            "": " ".join(word for word, number in (("best", found.best), ("own", found.own)) if number == trial.number),
            found.measure: _number(trial.value if trial.value is not None else next(reversed(trial.measured), None)),
            "ended": trial.state,
            "seconds": round(trial.seconds),
            **trial.point,
        }
        for trial in found.trials
    ]
    cost = f", cost {found.cost:.2f}" if found.cost is not None else ""
    lines = [*table(rows), f"{found.name} on {found.run}: {found.ended}; {found.seconds / 3600:.2f} hours of training{cost}"]
    best, own = found.trial(found.best), found.trial(found.own)
    if best is None:
        return [*lines, "no trial was finished, so there is no winner"]
    lines.append(f"best: trial {best.number}, {found.measure} {_number(best.value)}")
    if own is not None and own.number != best.number:
        lines[-1] += f"; the params as they were: {_number(own.value)}"
    lines += _comparison_lines(found)
    if found.change:
        lines += ["", *found.change.splitlines()]
    return [*lines, f"written: {found.written}" if found.written else "the params stay as they are"]


def _comparison_lines(found: Any) -> list[str]:
    seen = found.comparison
    if seen is None:
        return ["nothing tells how sure that is: no other adapter, or no row on the eval split that evaluate.metrics counts"]
    lines = [f"on {seen.rows} rows of the eval split its {seen.metric} is {seen.score:.3g} ({seen.low:.3g} to {seen.high:.3g})"]
    for other in seen.others:
        whose = "the params as they were" if other.trial == found.own else f"trial {other.trial}"
        word = "told apart" if other.told_apart else "within noise"
        lines.append(f"  against {whose}: {other.difference:+.3g} ({other.low:+.3g} to {other.high:+.3g}), {word}")
    return [
        *lines,
        "  the best of many looks better on the split it was picked by than it is; the test split has not been looked at",
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.5g}"

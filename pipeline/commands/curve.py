"""Would more rows help, would fewer do? The command that trains on shares of the rows and draws the learning curve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.commands.options import DEFAULT_PARAMS, Json, ParamsFile, open_world, show

Fractions = Annotated[str, typer.Option(help="Shares of the training rows, by commas; all of them are always among them.")]
Rows = Annotated[str, typer.Option(help="Further shares, as numbers of rows: are 50 enough?")]
Seeds = Annotated[int, typer.Option(min=1, max=100, help="Trainings a share, each on another draw of rows.")]
MarginOption = Annotated[float, typer.Option(min=0, max=1, help="So far behind all rows a share may be, and still be enough.")]
MaxHours = Annotated[float | None, typer.Option(min=0, help="Hours of training in all.")]
MaxCost = Annotated[float | None, typer.Option(min=0, help="Cost of training in all, at train.price_per_hour.")]
Number = Annotated[int | None, typer.Option("--run", help="The run whose rows and params are used; default: the newest.")]
Out = Annotated[Path | None, typer.Option(help="Folder for the page and curve.json; default: in the project's state folder.")]


def curve(
    fractions: Fractions = "0.25,0.5,1",
    rows: Rows = "",
    seeds: Seeds = 1,
    margin: MarginOption = 0.02,
    max_hours: MaxHours = None,
    max_cost: MaxCost = None,
    number: Number = None,
    out: Out = None,
    params: ParamsFile = DEFAULT_PARAMS,
    json: Json = False,
) -> None:
    """Train again on shares of a run's rows, and say which are enough and what twice the rows would buy."""
    world, loaded = open_world(params)
    from pipeline.curves import run_curve
    from pipeline.terminal import reporter, say

    found = run_curve(
        world,
        loaded,
        number=number,
        fractions=_numbers(fractions, "--fractions"),
        rows=[int(one) for one in _numbers(rows, "--rows", whole=True)],
        seeds=seeds,
        margin=margin,
        max_hours=max_hours,
        max_cost=max_cost,
        out=out,
        say=say,
        progress=reporter(),
    )
    show(found, json, _lines)


def _numbers(text: str, where: str, *, whole: bool = False) -> list[float]:
    from pipeline.errors import Misuse

    try:
        return [float(int(word) if whole else float(word)) for word in text.replace(",", " ").split()]
    except ValueError as error:
        raise Misuse(f"{text!r} are no numbers", where=where, fix="numbers, parted by commas") from error


def _lines(found: Any) -> list[str]:
    from pipeline.evaluation.curve_page import curve_sentence
    from pipeline.terminal import table

    curve = found.curve
    rows = [
        {
            "rows": share.rows,
            "share": f"{share.fraction:.0%}",
            curve.metric: f"{share.score:.3f} ({share.low:.3f} to {share.high:.3f})",
            "against all": "-"
            if share is curve.whole
            else f"{share.behind:+.3f} ({share.behind_low:+.3f} to {share.behind_high:+.3f})",
            "enough": "-" if share is curve.whole else share.enough,
        }
        for share in curve.shares
    ]
    cost = f", cost {found.cost:.2f}" if found.cost is not None else ""
    return [
        *table(rows),
        f"{found.name} on {found.run}: {found.ended}; {found.seconds / 3600:.2f} hours of training{cost}",
        curve_sentence(curve),
        f"page: {Path(found.page).absolute().as_uri()}",
    ]

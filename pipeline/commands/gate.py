"""How far the gate can be trusted: what passes by luck, and what a test can see. No candidate of yours is judged here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.commands.options import DEFAULT_PARAMS, Json, ParamsFile, show

if TYPE_CHECKING:
    from pipeline.domain.simulation import Foresight, Simulation

app = typer.Typer(no_args_is_help=True, help="How far the gate can be trusted: what passes by luck, and what a test can see.")

Rows = Annotated[int | None, typer.Option(min=1, help="Rows of a test; default: gate.min_test_rows.")]
Trials = Annotated[int, typer.Option(min=10, help="Candidates for each rule.")]
Rate = Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of rows that the champion is right on.")]
Discordance = Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of rows on which candidate and champion differ.")]
Null = Annotated[bool, typer.Option("--null", help="Only candidates that must not pass; no power curve.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes; default: one a core.")]


@app.command()
def simulate(
    null: Null = False,
    trials: Trials = 2000,
    rows: Rows = None,
    rate: Rate = 0.8,
    discordance: Discordance = 0.1,
    workers: Workers = None,
    seed: int = 7,
    params: ParamsFile = DEFAULT_PARAMS,
    json: Json = False,
) -> None:
    """Let candidates that are no better, and some that are, before the gate of params. Exit code 1 when too many pass by luck."""
    from pipeline.steps.simulate import simulate as play
    from pipeline.terminal import reporter
    from pipeline.wiring import read_params

    loaded = read_params(params)
    found = play(
        loaded.evaluate,
        loaded.gate,
        rows=rows,
        trials=trials,
        rate=rate,
        discordance=discordance,
        power=not null,
        workers=workers,
        seed=seed,
        progress=reporter(),
    )
    show(found, json, simulation_lines)
    raise typer.Exit(0 if found.sound else 1)


@app.command()
def power(
    rows: Annotated[list[int] | None, typer.Option(min=1, help="Rows of a test; may be given again.")] = None,
    params: ParamsFile = DEFAULT_PARAMS,
    json: Json = False,
) -> None:
    """Before a run: the least difference that a test can show. Without --rows: of the newest run's test, and of larger ones."""
    from pipeline.commands.options import open_world
    from pipeline.inquiries import sight_of

    world, loaded = open_world(params)
    show(sight_of(world, loaded, tuple(rows or ())), json, foresight_lines)


def simulation_lines(found: Simulation) -> list[str]:
    """What passed, as tables."""
    from pipeline.terminal import table

    lines = [
        f"intervals at {found.confidence:.0%}; the champion is right on {found.rate:.0%} of the rows, a candidate differs on "
        f"{found.discordance:.0%} of them"
    ]
    if found.nulls:
        lines += ["", "candidates that must not pass:", *table([_null_row(null) for null in found.nulls])]
        lines += [f"allowed {found.nulls[0].alpha:.2%}; within: whether the whole interval is (95 %, Clopper-Pearson)"]
        lines += ["many looks with spending off are shown for what counting looks is worth, and judge nothing"]
    if found.power:
        lines += ["", "candidates that are better, at the first look:", *table([_power_row(point) for point in found.power])]
    lines += ["", f"{found.seconds:.0f} s"]
    if not found.sound:
        lines += ["more pass by luck than may: see docs/gate.md, What the gate cannot do"]
    return lines


def foresight_lines(found: Foresight) -> list[str]:
    """What can be seen, a line a size of test."""
    from pipeline.terminal import table

    sizes = sorted({sight.rows for sight in found.sights})
    seen = {(sight.rows, sight.discordance): sight for sight in found.sights}
    shares = sorted({sight.discordance for sight in found.sights})
    rows = [
        {"test rows": size, **{f"{share:.0%} differ": _points(seen[size, share].least) for share in shares}} for size in sizes
    ]
    late = [
        {"test rows": size, **{f"{share:.0%} differ": _points(seen[size, share].tenth) for share in shares}} for size in sizes
    ]
    lines = ["least difference, in points, that is shown 4 times in 5, by how many rows candidate and champion differ on"]
    lines += ["", "at the first look:", *table(rows), "", "at the tenth look at the same rows:", *table(late)]
    for rule, needed in found.equal.items():
        said = f"{needed:,} rows" if needed else "no number of rows"
        lines += [
            "",
            f"{rule}: a candidate that is just as good but differs on 10% of the rows, passes 4 times in 5 from {said}",
        ]
    for name, least in found.last.items():
        lines += ["", f"{found.last_run}: {name} could show {_points(least)} points"]
    return lines


def _null_row(null: Any) -> dict[str, Any]:
    return {
        "rule": null.rule,
        "bound": f"{null.bound:+g}",
        "rows": null.rows,
        "holdout": "fresh" if null.looks == 1 else f"{null.looks} looks",
        "spending": null.spending,
        "passed": f"{null.passed} of {null.families}",
        "share": f"{null.share:.2%} ({null.low:.2%} to {null.high:.2%})",
        "within": null.within,
    }


def _power_row(point: Any) -> dict[str, Any]:
    return {
        "rule": point.rule,
        "bound": f"{point.bound:+g}",
        "rows": point.rows,
        "truly": f"{point.difference:+.3f}",
        "passed": f"{point.share:.0%} ({point.low:.0%} to {point.high:.0%})",
    }


def _points(least: float) -> str:
    return f"{100 * least:.1f}" if least < 1 else "none"

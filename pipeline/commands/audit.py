"""What made a release, and whether every byte of it is still what it was."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline import rendering
from pipeline.commands.options import DEFAULT_PARAMS, Json, ParamsFile, Stage, open_world, show

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="What made a release, and whether every byte of it is still what it was."
)


@app.command("show")
def audit_show(version: str, params: ParamsFile = DEFAULT_PARAMS, json: Json = False) -> None:
    """The lineage of a version, from the release back to the sources."""
    world, loaded = open_world(params)
    from pipeline.steps.audit import show as trace

    stages = loaded.release.stages
    lineage = trace(version, model=loaded.model.name, ledger=world.ledger, archive=world.archive, stages=stages)
    show(lineage, json, rendering.lineage_lines)


@app.command("verify")
def audit_verify(version: str, params: ParamsFile = DEFAULT_PARAMS, json: Json = False) -> None:
    """Re-hash everything from a version back to its sources. Exit code 1, and a name, for what does not match."""
    world, loaded = open_world(params)
    from pipeline.steps.audit import verify

    report = verify(
        version,
        model=loaded.model.name,
        ledger=world.ledger,
        registry=world.registry,
        archive=world.archive,
        stages=loaded.release.stages,
        evidence=world.evidence,
        anchors=world.anchors,
        root=world.git.root,
    )
    show(report, json, rendering.audit_lines)
    raise typer.Exit(0 if report.ok else 1)


@app.command("at")
def audit_at(
    date: Annotated[
        str, typer.Argument(help="2026-11-23 (its end) or 2026-11-23T14:00, with an offset or in the schedule's zone.")
    ],
    stage: Stage = "production",
    params: ParamsFile = DEFAULT_PARAMS,
    json: Json = False,
) -> None:
    """Which version held a stage at an instant, and by whose decision."""
    world, loaded = open_world(params)
    from pipeline.domain.wording import instant
    from pipeline.steps.audit import at

    when = instant(date, loaded.schedule.timezone)
    show(at(loaded.model.name, stage, when, ledger=world.ledger, stages=loaded.release.stages), json, rendering.at_lines)


@app.command("export")
def audit_export(
    version: str,
    to: Annotated[Path, typer.Option(help="A new .tar file, or a new folder.")],
    params: ParamsFile = DEFAULT_PARAMS,
    json: Json = False,
) -> None:
    """One archive that a stranger verifies with public tools, by the README inside it."""
    world, loaded = open_world(params)
    from pipeline.proving import export_evidence

    show(export_evidence(world, loaded, version, to), json, rendering.exported_lines)


@app.command("graph")
def audit_graph(
    version: str,
    to: Annotated[Path | None, typer.Option(help="A new .svg file; default MODEL-VERSION.svg here.")] = None,
    openlineage: Annotated[Path | None, typer.Option(help="Also write OpenLineage events to this new file.")] = None,
    params: ParamsFile = DEFAULT_PARAMS,
    json: Json = False,
) -> None:
    """The lineage of a version as a picture, and as OpenLineage events."""
    world, loaded = open_world(params)
    from pipeline.proving import draw_lineage

    target = to or Path(f"{loaded.model.name}-{version}.svg")
    show(draw_lineage(world, loaded, version, target, openlineage), json, rendering.drawn_lines)


def rebuild(
    version: str,
    verify: Annotated[bool, typer.Option("--verify", help="Exit code 1 unless it is the same.")] = False,
    to: Annotated[Path | None, typer.Option(help="Keep the adapter that this makes in a new folder.")] = None,
    params: ParamsFile = DEFAULT_PARAMS,
    json: Json = False,
) -> None:
    """Train a version again from its recorded commit and data, and compare: bytes, or on another class of machine metrics."""
    world, loaded = open_world(params)
    from pipeline.rebuilding import rebuild as again

    found = again(world, loaded, version, keep=to)
    show(found, json, rendering.rebuilt_lines)
    raise typer.Exit(1 if verify and not found.ok else 0)

"""Snapshots of a model's data: which there are, what one holds, what two differ in, which rows were refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands import data_lines
from pipeline.commands.options import DEFAULT_PARAMS, Json, ParamsFile, open_world, show

if TYPE_CHECKING:
    from pipeline.domain.snapshots import PastSnapshot
    from pipeline.ports import Snapshots

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Snapshots: what was taken in, and what became of it.")

Which = Annotated[str, typer.Argument(help="A run's number, the beginning of a digest, head, or head~1.")]


@app.command("log")
def data_log(params: ParamsFile = DEFAULT_PARAMS, json: Json = False) -> None:
    """Every snapshot, the newest first: when, how many rows, what came with it, what was refused, how its run ended."""
    world, loaded = open_world(params)
    from pipeline.steps.snapshots import list_snapshots

    show(list_snapshots(world.snapshots(loaded.model.name)), json, data_lines.log_lines)


@app.command("show")
def data_show(name: Which = "head", params: ParamsFile = DEFAULT_PARAMS, json: Json = False) -> None:
    """A snapshot and its dataset card: counts, licences, sources, statistics."""
    snapshots, (past,) = _open(params, name)
    from pipeline.steps.snapshots import show_snapshot

    show(show_snapshot(past, snapshots), json, data_lines.shown_lines)


@app.command("diff")
def data_diff(before: Which, after: Which = "head", params: ParamsFile = DEFAULT_PARAMS, json: Json = False) -> None:
    """What one snapshot has that another has not: rows, sources, labels, statistics, params."""
    snapshots, (old, new) = _open(params, before, after)
    from pipeline.steps.diff import diff

    show(diff(old, new, snapshots), json, data_lines.diff_lines)


@app.command("quarantine")
def data_quarantine(
    name: Which = "head",
    code: Annotated[str | None, typer.Option(help="Only rows refused for this reason, such as bad_json.")] = None,
    skip: Annotated[int, typer.Option(min=0, help="Leave out the first so many.")] = 0,
    rows: Annotated[int, typer.Option(min=1, max=10_000, help="Show so many.")] = 20,
    out: Annotated[Path | None, typer.Option(help="Write all of them to this new JSONL file instead.")] = None,
    params: ParamsFile = DEFAULT_PARAMS,
    json: Json = False,
) -> None:
    """The rows that were refused: where they stood, why, and their bytes. Newest file first."""
    snapshots, (past,) = _open(params, name)
    from pipeline.steps.snapshots import export_quarantine, page_quarantine

    if out is not None:
        written = export_quarantine(past, snapshots, code=code, out=out)
        show({"written": written, "file": str(out)}, json, lambda found: [f"{found['written']} rows written to {found['file']}"])
    else:
        show(page_quarantine(past, snapshots, code=code, skip=skip, most=rows), json, data_lines.quarantine_lines)


def _open(params: Path, *names: str) -> tuple[Snapshots, list[PastSnapshot]]:
    """The snapshots of the model, and those among them that are named."""
    world, loaded = open_world(params)
    from pipeline.domain.snapshots import choose

    snapshots = world.snapshots(loaded.model.name)
    everything = snapshots.all()
    return snapshots, [choose(everything, name) for name in names]

"""Drift of fresh rows: of the newest batch, of one snapshot from another, of what production is asked."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands.data_lines import drift_lines
from pipeline.commands.options import DEFAULT_PARAMS, Json, ParamsFile, open_world, show
from pipeline.errors import Misuse

if TYPE_CHECKING:
    from pipeline.params import Params
    from pipeline.ports import Embedder
    from pipeline.wiring import World

_WHICH = "A run's number, the beginning of a digest, head, or head~1"


def drift(
    earlier: Annotated[str | None, typer.Argument(help=f"{_WHICH}; alone: its newest batch against the rows before it.")] = None,
    later: Annotated[str | None, typer.Argument(help="The snapshot whose added rows are compared with the earlier one.")] = None,
    traffic: Annotated[Path | None, typer.Option(help="A .jsonl, .csv or .parquet file of requests to compare instead.")] = None,
    out: Annotated[Path | None, typer.Option(help="A folder for the report as a page, drift.html, and as a record.")] = None,
    params: ParamsFile = DEFAULT_PARAMS,
    json: Json = False,
) -> None:
    """Are fresh rows like those before them, or like what production is asked? Exit code 1 when params say that drift blocks."""
    if traffic is not None and later is not None:
        raise Misuse("traffic is compared with one snapshot, and two are named", fix="leave the second out")
    world, loaded = open_world(params)
    from pipeline.domain.snapshots import choose
    from pipeline.steps.drift import drift_between, drift_from_traffic, drift_of_batch

    snapshots = world.snapshots(loaded.model.name)
    everything = snapshots.all()
    past, embedder = choose(everything, earlier or "head"), _embedder(world, loaded)
    # Who asks is answered, whatever is done in runs.
    asked = loaded.drift if loaded.drift.policy != "off" else loaded.drift.model_copy(update={"policy": "warn"})
    with ExitStack() as held:
        folder = held.enter_context(snapshots.opened(past))
        if traffic is not None:
            found = drift_from_traffic(past.snapshot, traffic, asked, folder=folder, out=out, embedder=embedder)
        elif later is not None:
            other = choose(everything, later)
            folders = folder, held.enter_context(snapshots.opened(other))
            found = drift_between(past.snapshot, other.snapshot, asked, folders=folders, out=out, embedder=embedder)
        else:
            found = drift_of_batch(past.snapshot, asked, folder=folder, out=out, embedder=embedder)
    show(found, json, drift_lines)
    raise typer.Exit(0 if found.passed else 1)


def _embedder(world: World, params: Params) -> Embedder | None:
    if params.drift.text == "words":
        return None
    from pipeline.modeling.answering.embedding import TextEncoder
    from pipeline.wiring import find_encoder
    from pipeline.workspace import Workspace

    return TextEncoder(find_encoder(world, Workspace(world.git.root), params))

"""What all commands share: the options that recur, opening a project, printing a result. No command stands here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pipeline.params import Params
    from pipeline.wiring import World

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ParamsFile = Annotated[Path, typer.Option("--params", help="The params file.")]
By = Annotated[str | None, typer.Option(help="Who decides; default: you.")]
Reason = Annotated[str, typer.Option(help="Why; goes into the ledger for good.")]
Stage = Annotated[str, typer.Option(help="A stage of params, such as production.")]
DEFAULT_PARAMS = Path("params.yaml")


def open_world(params: Path) -> tuple[World, Params]:
    """The project around the current folder, and a params file, read and checked."""
    from pipeline.wiring import World, read_params

    return World.here(), read_params(params)


def show(value: Any, as_json: bool, lines: Callable[[Any], list[str]]) -> None:
    """Print a result: as JSON for machines, or as `lines` for people."""
    if as_json:
        from pipeline.terminal import to_json

        print(to_json(value))
        return
    for line in lines(value):
        print(line)

"""Backing a project up into one file, and putting it back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.commands.options import Json, show


def backup(
    target: Annotated[Path, typer.Argument(help="The file to write; readable by you alone, since keys and data are in it.")],
    json: Json = False,
) -> None:
    """Write ledger, MLflow's store, tags, data and keys into one file. Nothing has to stand still meanwhile."""
    from pipeline.backing_up import back_up
    from pipeline.wiring import World

    made = back_up(World.here(), target)
    found = {"file": str(target), "files": len(made.files), "bytes": target.stat().st_size, "digest": made.digest}
    show(found | {"elsewhere": made.elsewhere}, json, _lines)


def restore(source: Annotated[Path, typer.Argument(help="A file that tuneline backup wrote.")], json: Json = False) -> None:
    """Put a backup back, into a clone that has no state yet: all of it or nothing."""
    from pipeline.backing_up import restore as put_back
    from pipeline.wiring import World

    made = put_back(World.here(), source)
    found = {"restored": str(source), "files": len(made.files), "made": made.made.isoformat(), "digest": made.digest}
    show(found | {"elsewhere": made.elsewhere}, json, _lines)


def _lines(found: dict[str, Any]) -> list[str]:
    lines = [f"{key}: {value}" for key, value in found.items() if key != "elsewhere"]
    lines += [f"not in it: {store}, at {address}" for store, address in found["elsewhere"].items()]
    if "restored" in found:
        lines.append("next: tuneline audit verify production")
    return lines

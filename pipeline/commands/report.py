"""The page of a candidate: why it may be registered or may not, and whether something cheaper is as good."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.commands.options import DEFAULT_PARAMS, Json, ParamsFile, open_world

Version = Annotated[
    str | None,
    typer.Argument(help="A number, v3, a stage, or the start of a digest; default: the newest run, registered or refused."),
]
Number = Annotated[int | None, typer.Option("--run", help="Instead of a version: a run by its number.")]
Out = Annotated[Path | None, typer.Option(help="Copy the page, and report.json, into this folder.")]
Open = Annotated[bool, typer.Option("--open", help="Show the page in a browser.")]


def report(
    version: Version = None,
    number: Number = None,
    out: Out = None,
    browse: Open = False,
    params: ParamsFile = DEFAULT_PARAMS,
    json: Json = False,
) -> None:
    """The page of a version or of the newest run, checked against what it was registered with."""
    world, loaded = open_world(params)
    from pipeline.errors import Misuse
    from pipeline.reporting import copy_report, find_report

    if version is not None and number is not None:
        raise Misuse("a version and a run were named", fix="name one of them")
    found = find_report(world, loaded, version, number)
    if out is not None:
        found = copy_report(found, out)
    if json:
        from pipeline.terminal import to_json

        if found.said is None:
            raise Misuse(f"{found.of} was registered before pages had a report.json", where=str(found.page))
        print(to_json(found.said))
    else:
        print("\n".join(_lines(found)))
    if browse:
        import webbrowser

        webbrowser.open(found.page.absolute().as_uri())


def _lines(found: Any) -> list[str]:
    said = [found.said["sentence"], found.said["worth"]] if found.said else []
    return [found.of, *(f"  {one}" for one in said), f"  page: {found.page.absolute().as_uri()}"]

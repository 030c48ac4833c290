"""Looking at a dataset before anything is trained on it: what it is about, and whether tuning on it is likely to pay."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.commands.options import DEFAULT_PARAMS, Json, ParamsFile, open_world, show

Number = Annotated[int | None, typer.Option("--run", help="The run whose snapshot is looked at; default: the newest.")]
Out = Annotated[Path | None, typer.Option(help="Folder for the page and the files; default: in the project's state folder.")]


def explore(
    pool: Annotated[list[str] | None, typer.Argument(help="Files of rows without answers, to pick from for labelling.")] = None,
    number: Number = None,
    out: Out = None,
    params: ParamsFile = DEFAULT_PARAMS,
    json: Json = False,
) -> None:
    """Topics, a map, odd rows, and what to label next, as a page and a file for a labelling tool."""
    world, loaded = open_world(params)
    from pipeline.inquiries import look_at
    from pipeline.terminal import reporter

    found, folder = look_at(world, loaded, number, out, tuple(pool or ()), progress=reporter())
    show(found, json, lambda exploration: _exploration_lines(exploration, folder))


def advise(number: Number = None, out: Out = None, params: ParamsFile = DEFAULT_PARAMS, json: Json = False) -> None:
    """Before any training: is there enough data, is it consistent, can tuning solve it, what does it cost? With evidence."""
    world, loaded = open_world(params)
    from pipeline.inquiries import advise_on
    from pipeline.terminal import reporter

    found, folder = advise_on(world, loaded, number, out, progress=reporter())
    show(found, json, lambda advice: _advice_lines(advice, folder))
    raise typer.Exit(0 if found.fine else 1)


def _exploration_lines(found: Any, folder: Path) -> list[str]:
    from pipeline.terminal import table

    rows = [{"topic": t.name, "rows": t.rows, "labels": ", ".join(f"{k} {n}" for k, n in t.labels[:3])} for t in found.topics]
    odd = [f"  {s.source}:{s.line} {s.text[:100]!r}" for s in found.anomalies[:5]]
    return [
        f"{found.looked} of {found.rows} rows looked at, {len(found.topics)} topics, {len(found.anomalies)} odd rows",
        *table(rows),
        *(["odd:", *odd] if odd else []),
        f"page: {(folder / 'explore.html').as_uri()}",
        f"to label, for Label Studio: {folder / 'to_label.json'} ({len(found.picked)} rows)",
    ]


def _advice_lines(found: Any, folder: Path) -> list[str]:
    rows = []
    for answer in found.answers:
        rows.append(f"{answer.question} {answer.opinion.value}: {answer.because}")
        rows += [f"    {name}: {seen}" for name, seen in answer.evidence.items()]
    return [*rows, f"page: {(folder / 'advise.html').as_uri()}"]

"""Taking a release elsewhere: a peft adapter, merged weights, or those quantised."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pipeline.commands.options import DEFAULT_PARAMS, Json, ParamsFile, open_world, show


def export(
    version: Annotated[str, typer.Argument(help="A number, v3, a stage, or the start of a digest.")],
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    form: Annotated[Literal["adapter", "merged", "quantized"], typer.Option(help="What others will load.")] = "merged",
    bound: Annotated[
        float | None, typer.Option(min=0, help="How far its logits may be from the release's, as a share of their size.")
    ] = None,
    params: ParamsFile = DEFAULT_PARAMS,
    json: Json = False,
) -> None:
    """Write a release for those who load it without tuneline. Exit code 1, and nothing written, when it is too far from it."""
    world, loaded = open_world(params)
    from pipeline.domain.exporting import Form
    from pipeline.steps.export import export as write
    from pipeline.terminal import reporter
    from pipeline.wiring import find_base
    from pipeline.workspace import Workspace

    found = write(
        version,
        Form(form),
        out,
        model=loaded.model,
        find_base=lambda model: find_base(world, Workspace(world.git.root), loaded.model_copy(update={"model": model})),
        ledger=world.ledger,
        registry=world.registry,
        archive=world.archive,
        stages=loaded.release.stages,
        bound=bound,
        progress=reporter(),
    )
    show(found, json, lambda exported: _lines(exported, out))
    raise typer.Exit(0 if found.ok else 1)


def _lines(exported: Any, out: Path) -> list[str]:
    title = f"{exported.model} version {exported.version} as {exported.form} ({exported.precision})"
    rows = [f"{title}: {out}" if exported.ok else f"{title}: not written, too far from the release"]
    for one in exported.compared:
        rows.append(
            f"  {one.form}: logits {one.logits:.2g} apart"
            + (f" (at most {exported.bound:g})" if one.form is exported.form else "")
            + f", divergence {one.divergence:.2g} nats, {one.agreement:.1%} of the likeliest are the same"
        )
    return rows

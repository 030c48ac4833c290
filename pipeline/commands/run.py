"""Runs and what they need: run, ingest, the local servers, the folder of a run, the doctor."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline import rendering
from pipeline.commands.options import DEFAULT_PARAMS, Json, ParamsFile, open_world, show
from pipeline.errors import Misuse

if TYPE_CHECKING:
    from pipeline.wiring import World


Sources = Annotated[list[str] | None, typer.Argument(help="Files, folders, globs or archives instead of those in params.")]
Afresh = Annotated[bool, typer.Option("--afresh", help="Read all sources again, by the params of today; sides stay.")]
AsOf = Annotated[datetime | None, typer.Option(help="Leave what is newer than this for later.")]


def run(
    sources: Sources = None,
    params: ParamsFile = DEFAULT_PARAMS,
    as_of: AsOf = None,
    afresh: Afresh = False,
    json: Json = False,
) -> None:
    """Take in fresh data, tune, measure, gate and register a candidate. With nothing new it does nothing and says so."""
    _start("retrain", sources, params, as_of, json, afresh=afresh)


def ingest(
    sources: Sources = None,
    params: ParamsFile = DEFAULT_PARAMS,
    as_of: AsOf = None,
    afresh: Afresh = False,
    json: Json = False,
) -> None:
    """Take in fresh data, validate, curate and split it, and stop there: the first half of run."""
    _start("take_in", sources, params, as_of, json, afresh=afresh)


def _start(flow: str, sources: list[str] | None, params: Path, as_of: datetime | None, json: bool, *, afresh: bool) -> None:
    world, loaded = open_world(params)
    use_prefect(world)
    from flows import retrain

    given = tuple(absolute(source) for source in sources or ())
    outcome = getattr(retrain, flow)(loaded.model.name, str(params.absolute()), given, _aware(as_of), afresh)
    show(outcome, json, rendering.outcome_lines)
    raise typer.Exit(1 if outcome.said_no else 0)


def worktree(
    number: Annotated[int | None, typer.Argument(help="Run number; default: the newest.")] = None,
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Print the folder of a finished run, made again if it is gone: `dvc status` and `dvc repro` work there."""
    world, loaded = open_world(params)
    from pipeline.backends.run_folder import find_kept, open_kept

    kept = find_kept(world.git, loaded.model.name, number)
    print(open_kept(world.git, world.project, kept, remote=world.settings.dvc_remote).root)


def up() -> None:
    """Start the project's own Prefect server, if it is not up, and say where its page is."""
    from pipeline.wiring import World

    print(use_prefect(World.here()).ui)


def down() -> None:
    """Stop the Prefect server that tuneline started."""
    from flows.server import stop
    from pipeline.wiring import World

    print("stopped" if stop(World.here().project) else "was not running")


def ui(port: Annotated[int, typer.Option(help="Port on loopback.")] = 5000) -> None:
    """Open MLflow's pages on the project's store, on loopback, until stopped."""
    import os

    from pipeline.deeds import mlflow_ui_command
    from pipeline.wiring import World

    command = mlflow_ui_command(World.here(), port)
    os.execv(command[0], command)


def doctor(
    params: ParamsFile = DEFAULT_PARAMS,
    security: Annotated[bool, typer.Option("--security", help="Look for weaknesses instead: keys, passwords, versions.")] = False,
    json: Json = False,
) -> None:
    """Check the machine, the stores and the params; say how to fix what is wrong."""
    from pipeline.wiring import World

    if security:
        from pipeline.doctor_security import examine_security

        findings = examine_security(World.here(), params)
    else:
        from pipeline.doctor import examine

        findings = examine(World.here(), params)
    show(findings, json, lambda found: [f.line for f in found])
    raise typer.Exit(0 if all(f.ok for f in findings) else 1)


def step(name: str) -> None:
    """Run one stage of dvc.yaml on the files of this folder. `dvc repro` calls it."""
    from pipeline.stages import run_step
    from pipeline.terminal import reporter
    from pipeline.wiring import World, read_params
    from pipeline.workspace import Workspace

    workspace = Workspace(Path.cwd())
    run_step(World.here(), name, workspace, read_params(workspace.params), progress=reporter())


def use_prefect(world: World) -> Any:
    """The project's Prefect server, started if it is not up."""
    from flows.server import use_server

    return use_server(world.project, world.settings.prefect_api)


def absolute(source: str) -> str:
    """A source as it is whatever folder the run works in: paths and globs in full, addresses of object stores as they are."""
    if "://" in source:
        from pipeline.params.ingest import text_problems

        if problems := text_problems(source):
            raise Misuse(
                "; ".join(problems), where="the source given", fix="give a path, or an address such as s3://bucket/prefix"
            )
        return source
    return str(Path(source).absolute())


def _aware(when: datetime | None) -> datetime | None:
    return when.astimezone() if when is not None else None

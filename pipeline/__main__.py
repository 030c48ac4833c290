"""The `tuneline` command: parse, load params, call one step, print. Imports lazily, so that --help answers at once.

No decision is made here. Results go to stdout (JSON with --json), everything else to stderr. Exit codes: 0 done, 1 a check
said no, 2 misuse, 3 try again later, 4 broken.
"""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline import rendering
from pipeline.errors import Misuse, TunelineError

if TYPE_CHECKING:
    from pipeline.params import Params
    from pipeline.wiring import World

app = typer.Typer(
    rich_markup_mode=None,  # its renderer costs 130 ms of import
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Keeps a fine-tuned language model fresh and accountable.",
)
audit = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="What made a release, and whether every byte of it is still what it was."
)
app.add_typer(audit, name="audit")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ParamsFile = Annotated[Path, typer.Option("--params", help="The params file.")]
By = Annotated[str | None, typer.Option(help="Who decides; default: you.")]
Reason = Annotated[str, typer.Option(help="Why; goes into the ledger for good.")]
Stage = Annotated[str, typer.Option(help="A stage of params, such as production.")]
DEFAULT_PARAMS = Path("params.yaml")


@app.command()
def run(
    sources: Annotated[list[str] | None, typer.Argument(help="Files or folders instead of those in params.")] = None,
    params: ParamsFile = DEFAULT_PARAMS,
    as_of: Annotated[datetime | None, typer.Option(help="Leave files newer than this for later.")] = None,
    json: Json = False,
) -> None:
    """Take in fresh data, tune, measure, gate and register a candidate. With nothing new it does nothing and says so."""
    world, loaded = _open(params)
    _use_prefect(world)
    from flows.retrain import retrain

    outcome = retrain(loaded.model.name, str(params.absolute()), tuple(_absolute(s) for s in sources or ()), _aware(as_of))
    _print(outcome, json, rendering.outcome_lines)
    raise typer.Exit(1 if outcome.said_no else 0)


@app.command()
def promote(
    version: Annotated[str, typer.Argument(help="A number, v3, a stage, or the start of a digest.")],
    to: Annotated[str, typer.Option(help="The stage to give it.")],
    reason: Reason,
    by: By = None,
    params: ParamsFile = DEFAULT_PARAMS,
    json: Json = False,
) -> None:
    """Give a stage to a version: an event in the ledger, then the alias in MLflow. Safe to repeat."""
    world, loaded = _open(params)
    from pipeline.deeds import move_to

    _print(move_to(world, loaded, version, to, by=by or world.actor, reason=reason), json, rendering.release_lines)


@app.command()
def rollback(
    stage: Stage,
    reason: Reason,
    to: Annotated[str | None, typer.Option(help="An earlier holder; default: the one before.")] = None,
    leaving: Annotated[str | None, typer.Option(help="The version to leave; makes a retry after a crash harmless.")] = None,
    by: By = None,
    params: ParamsFile = DEFAULT_PARAMS,
    json: Json = False,
) -> None:
    """Give a stage back to the version that held it before."""
    world, loaded = _open(params)
    from pipeline.deeds import move_back

    record = move_back(world, loaded, stage, by=by or world.actor, reason=reason, to=to, leaving=leaving)
    _print(record, json, rendering.release_lines)


@app.command()
def releases(params: ParamsFile = DEFAULT_PARAMS, json: Json = False) -> None:
    """All registered versions and the stages they hold."""
    world, loaded = _open(params)
    from pipeline.steps.releases import releases as listing

    _print(listing(loaded.model.name, ledger=world.ledger, registry=world.registry), json, rendering.releases_lines)


@app.command()
def history(
    stage: Annotated[str | None, typer.Option(help="Only this stage.")] = None,
    params: ParamsFile = DEFAULT_PARAMS,
    json: Json = False,
) -> None:
    """Every event of the ledger: what, who, when, why."""
    world, loaded = _open(params)
    from pipeline.steps.history import history as listing

    _print(listing(loaded.model.name, stage, ledger=world.ledger), json, rendering.history_lines)


@app.command()
def reconcile(params: ParamsFile = DEFAULT_PARAMS, json: Json = False) -> None:
    """Repair MLflow's aliases and tags from the ledger; says what it changed."""
    world, loaded = _open(params)
    from pipeline.steps.reconcile import reconcile as repair

    changed = repair(loaded.model.name, loaded.release.stages, registry=world.registry, ledger=world.ledger)
    _print(list(changed), json, lambda lines: lines or ["nothing to repair"])


@app.command()
def status(params: ParamsFile = DEFAULT_PARAMS, json: Json = False) -> None:
    """What holds each stage, the last run, and whether a server is up."""
    world, loaded = _open(params)
    from flows.server import running
    from pipeline.backends.run_folder import head_run
    from pipeline.domain.release import holder

    events, last, server = world.ledger.events(loaded.model.name), head_run(world.git, loaded.model.name), running(world.project)
    found = {
        "model": loaded.model.name,
        "stages": {stage: holder(events, stage) for stage in loaded.release.stages},
        "last run": last.key if last else None,
        "prefect": server.ui if server else None,
    }
    _print(found, json, rendering.mapping_lines)


@audit.command("show")
def audit_show(version: str, params: ParamsFile = DEFAULT_PARAMS, json: Json = False) -> None:
    """The lineage of a version, from the release back to the sources."""
    world, loaded = _open(params)
    from pipeline.steps.audit import show

    stages = loaded.release.stages
    lineage = show(version, model=loaded.model.name, ledger=world.ledger, archive=world.archive, stages=stages)
    _print(lineage, json, rendering.lineage_lines)


@audit.command("verify")
def audit_verify(version: str, params: ParamsFile = DEFAULT_PARAMS, json: Json = False) -> None:
    """Re-hash everything from a version back to its sources. Exit code 1, and a name, for what does not match."""
    world, loaded = _open(params)
    from pipeline.steps.audit import verify

    report = verify(
        version,
        model=loaded.model.name,
        ledger=world.ledger,
        registry=world.registry,
        archive=world.archive,
        stages=loaded.release.stages,
        root=world.git.root,
    )
    _print(report, json, rendering.audit_lines)
    raise typer.Exit(0 if report.ok else 1)


@audit.command("at")
def audit_at(
    date: Annotated[
        str, typer.Argument(help="2026-11-23 (its end) or 2026-11-23T14:00, with an offset or in the schedule's zone.")
    ],
    stage: Stage = "production",
    params: ParamsFile = DEFAULT_PARAMS,
    json: Json = False,
) -> None:
    """Which version held a stage at an instant, and by whose decision."""
    world, loaded = _open(params)
    from pipeline.domain.wording import instant
    from pipeline.steps.audit import at

    when = instant(date, loaded.schedule.timezone)
    _print(at(loaded.model.name, stage, when, ledger=world.ledger, stages=loaded.release.stages), json, rendering.at_lines)


@app.command()
def ask(
    text: Annotated[str, typer.Argument(help="What to say to the model.")],
    stage: Stage = "production",
    params: ParamsFile = DEFAULT_PARAMS,
    json: Json = False,
) -> None:
    """Let what holds a stage answer once."""
    world, loaded = _open(params)
    from pipeline.deeds import ask_release

    _print(ask_release(world, loaded, stage, text), json, rendering.mapping_lines)


@app.command()
def worktree(
    number: Annotated[int | None, typer.Argument(help="Run number; default: the newest.")] = None,
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Print the folder of a finished run, made again if it is gone: `dvc status` and `dvc repro` work there."""
    world, loaded = _open(params)
    from pipeline.backends.run_folder import find_kept, open_kept

    kept = find_kept(world.git, loaded.model.name, number)
    print(open_kept(world.git, world.project, kept, remote=world.settings.dvc_remote).root)


@app.command()
def schedule(
    params: ParamsFile = DEFAULT_PARAMS, cron: Annotated[str | None, typer.Option(help="Instead of the one in params.")] = None
) -> None:
    """Serve the retrain flow on the cron of params, until stopped."""
    world, loaded = _open(params)
    _use_prefect(world)
    from flows.deployments import serve

    serve(loaded.model.name, params.absolute(), cron or loaded.schedule.cron, loaded.schedule.timezone)


@app.command()
def up() -> None:
    """Start the project's own Prefect server, if it is not up, and say where its page is."""
    from pipeline.wiring import World

    print(_use_prefect(World.here()).ui)


@app.command()
def down() -> None:
    """Stop the Prefect server that tuneline started."""
    from flows.server import stop
    from pipeline.wiring import World

    print("stopped" if stop(World.here().project) else "was not running")


@app.command()
def ui(port: Annotated[int, typer.Option(help="Port on loopback.")] = 5000) -> None:
    """Open MLflow's pages on the project's store, on loopback, until stopped."""
    import os

    from pipeline.deeds import mlflow_ui_command
    from pipeline.wiring import World

    command = mlflow_ui_command(World.here(), port)
    os.execv(command[0], command)


@app.command()
def doctor(params: ParamsFile = DEFAULT_PARAMS, json: Json = False) -> None:
    """Check the machine, the stores and the params; say how to fix what is wrong."""
    from pipeline.doctor import examine
    from pipeline.wiring import World

    findings = examine(World.here(), params)
    _print(findings, json, lambda found: [f.line for f in found])
    raise typer.Exit(0 if all(f.ok for f in findings) else 1)


@app.command(hidden=True)
def step(name: str) -> None:
    """Run one stage of dvc.yaml on the files of this folder. `dvc repro` calls it."""
    from pipeline.terminal import reporter
    from pipeline.wiring import World, read_params, run_step
    from pipeline.workspace import Workspace

    workspace = Workspace(Path.cwd())
    run_step(World.here(), name, workspace, read_params(workspace.params), progress=reporter())


def main() -> None:
    """The console script: turns our errors into a sentence and an exit code."""
    try:
        app()
    except TunelineError as error:
        kind = "error" if error.exit_code != 3 else "not now"
        print(f"{kind}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _open(params: Path) -> tuple[World, Params]:
    from pipeline.wiring import World, read_params

    return World.here(), read_params(params)


def _use_prefect(world: World) -> Any:
    from flows.server import use_server

    return use_server(world.project, world.settings.prefect_api)


def _absolute(source: str) -> str:
    if "://" in source:
        raise Misuse(f"{source} is no file or folder", fix="copy the data here first; only local sources are read")
    return str(Path(source).absolute())


def _aware(when: datetime | None) -> datetime | None:
    return when.astimezone() if when is not None else None


def _print(value: Any, as_json: bool, lines: Any) -> None:
    if as_json:
        from pipeline.terminal import to_json

        print(to_json(value))
    else:
        for line in lines(value):
            print(line)


if __name__ == "__main__":
    main()

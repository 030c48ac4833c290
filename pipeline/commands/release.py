"""Who holds what, and moving it: promote, roll back, the ledger's story, MLflow's projection of it, one answer."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline import rendering
from pipeline.commands.options import DEFAULT_PARAMS, By, Json, ParamsFile, Reason, Stage, open_world, show


def promote(
    version: Annotated[str, typer.Argument(help="A number, v3, a stage, or the start of a digest.")],
    to: Annotated[str, typer.Option(help="The stage to give it.")],
    reason: Reason,
    by: By = None,
    params: ParamsFile = DEFAULT_PARAMS,
    json: Json = False,
) -> None:
    """Give a stage to a version: an event in the ledger, then the alias in MLflow. Safe to repeat."""
    world, loaded = open_world(params)
    from pipeline.deeds import move_to

    show(move_to(world, loaded, version, to, by=by or world.actor, reason=reason), json, rendering.release_lines)


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
    world, loaded = open_world(params)
    from pipeline.deeds import move_back

    record = move_back(world, loaded, stage, by=by or world.actor, reason=reason, to=to, leaving=leaving)
    show(record, json, rendering.release_lines)


def releases(params: ParamsFile = DEFAULT_PARAMS, json: Json = False) -> None:
    """All registered versions and the stages they hold."""
    world, loaded = open_world(params)
    from pipeline.steps.releases import releases as listing

    show(listing(loaded.model.name, ledger=world.ledger, registry=world.registry), json, rendering.releases_lines)


def history(
    stage: Annotated[str | None, typer.Option(help="Only this stage.")] = None,
    params: ParamsFile = DEFAULT_PARAMS,
    json: Json = False,
) -> None:
    """Every event of the ledger: what, who, when, why."""
    world, loaded = open_world(params)
    from pipeline.steps.history import history as listing

    show(listing(loaded.model.name, stage, ledger=world.ledger), json, rendering.history_lines)


def reconcile(params: ParamsFile = DEFAULT_PARAMS, json: Json = False) -> None:
    """Repair MLflow's aliases and tags from the ledger; says what it changed."""
    world, loaded = open_world(params)
    from pipeline.steps.reconcile import reconcile as repair

    changed = repair(loaded.model.name, loaded.release.stages, registry=world.registry, ledger=world.ledger)
    show(list(changed), json, lambda lines: lines or ["nothing to repair"])


def status(params: ParamsFile = DEFAULT_PARAMS, json: Json = False) -> None:
    """What holds each stage, the last run, and whether a server is up."""
    world, loaded = open_world(params)
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
    show(found, json, rendering.mapping_lines)


def ask(
    text: Annotated[str, typer.Argument(help="What to say to the model.")],
    stage: Stage = "production",
    params: ParamsFile = DEFAULT_PARAMS,
    json: Json = False,
) -> None:
    """Let what holds a stage answer once."""
    world, loaded = open_world(params)
    from pipeline.deeds import ask_release

    show(ask_release(world, loaded, stage, text), json, rendering.mapping_lines)

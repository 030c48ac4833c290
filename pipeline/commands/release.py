"""Who holds what, and moving it: promote, roll back, the ledger's story, MLflow's projection of it, one answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline import rendering
from pipeline.commands.options import DEFAULT_PARAMS, By, Json, ParamsFile, Reason, Stage, open_world, show

if TYPE_CHECKING:
    from pipeline.domain.release import Event
    from pipeline.wiring import World

Version = Annotated[str, typer.Argument(help="A number, v3, a stage, or the start of a digest.")]


def promote(
    version: Version,
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


def approve(
    version: Version,
    to: Annotated[str, typer.Option(help="The stage that you would give it.")],
    reason: Reason,
    by: By = None,
    params: ParamsFile = DEFAULT_PARAMS,
    json: Json = False,
) -> None:
    """Say that you looked at a version and would give it a stage. It counts for that very version, until it expires."""
    world, loaded = open_world(params)
    from pipeline.deeds import give_approval

    event = give_approval(world, loaded, version, to, by=by or world.actor, reason=reason)
    _let_go_on(world, event)
    show(event, json, rendering.event_lines)


def refuse(
    version: Version,
    to: Annotated[str, typer.Option(help="The stage that you would not give it.")],
    reason: Reason,
    by: By = None,
    params: ParamsFile = DEFAULT_PARAMS,
    json: Json = False,
) -> None:
    """Keep a version from a stage: it does not take it until you approve of it after all. Nothing is moved."""
    world, loaded = open_world(params)
    from pipeline.deeds import give_veto

    event = give_veto(world, loaded, version, to, by=by or world.actor, reason=reason)
    _let_go_on(world, event)
    show(event, json, rendering.event_lines)


def _let_go_on(world: World, event: Event) -> None:
    """Whoever waits for this decision in Prefect looks again at once; without Prefect the decision stands all the same."""
    from flows.prefect_api import go_on
    from pipeline.errors import TryLater
    from pipeline.terminal import say

    try:
        if go_on(world, event.model, event.version, event.stage or ""):
            say("the run that waits for it goes on")
    except TryLater as error:
        say(f"{error.what}: the run that waits for it, if there is one, finds the decision at its next look")


def revoke(
    version: Version,
    reason: Reason,
    by: By = None,
    params: ParamsFile = DEFAULT_PARAMS,
    json: Json = False,
) -> None:
    """Take a version off every stage, for good. Each goes back to what it held before."""
    world, loaded = open_world(params)
    from pipeline.deeds import take_off

    show(take_off(world, loaded, version, by=by or world.actor, reason=reason), json, rendering.revocation_lines)


def releases(params: ParamsFile = DEFAULT_PARAMS, json: Json = False) -> None:
    """All registered versions and the stages they hold."""
    world, loaded = open_world(params)
    from pipeline.steps.releases import releases as listing

    show(listing(loaded.model.name, ledger=world.ledger, registry=world.registry), json, rendering.releases_lines)


def history(
    stage: Annotated[str | None, typer.Option(help="Only this stage.")] = None,
    last: Annotated[int, typer.Option(min=1, help="Only so many, the newest.")] = 200,
    params: ParamsFile = DEFAULT_PARAMS,
    json: Json = False,
) -> None:
    """The events of the ledger: what, who, when, why."""
    world, loaded = open_world(params)
    from pipeline.steps.history import history as listing

    show(listing(loaded.model.name, stage, ledger=world.ledger, last=last), json, rendering.history_lines)


def at(
    date: Annotated[
        str, typer.Argument(help="2026-11-23 (its end) or 2026-11-23T14:00, with an offset or in the schedule's zone.")
    ],
    stage: Stage = "production",
    params: ParamsFile = DEFAULT_PARAMS,
    json: Json = False,
) -> None:
    """Which version held a stage at an instant, and by whose decision."""
    world, loaded = open_world(params)
    from pipeline.domain.wording import instant
    from pipeline.steps.history import at as held_at

    when, release = instant(date, loaded.schedule.timezone), loaded.release
    show(held_at(loaded.model.name, stage, when, ledger=world.ledger, stages=release.stages), json, rendering.at_lines)


def reconcile(
    adopt: Annotated[
        str | None, typer.Option(help="A stage whose alias a hand has moved: stand by it, if its rules allow.")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why; needed with --adopt.")] = None,
    by: By = None,
    params: ParamsFile = DEFAULT_PARAMS,
    json: Json = False,
) -> None:
    """Repair MLflow's aliases and tags from the ledger; says what it changed. With --adopt, the ledger follows an alias."""
    world, loaded = open_world(params)
    from pipeline import deeds
    from pipeline.errors import Misuse
    from pipeline.steps.reconcile import reconcile as repair

    if adopt is not None:
        if not reason:
            raise Misuse("an adoption needs a reason", fix="say why, with --reason")
        record = deeds.adopt(world, loaded, adopt, by=by or world.actor, reason=reason)
        return show(record, json, rendering.release_lines)
    changed = repair(loaded.model.name, loaded.release.stages, registry=world.registry, ledger=world.ledger)
    return show(list(changed), json, lambda lines: lines or ["nothing to repair"])


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

"""Deeds bound to the stores of a project: what moves a stage, what answers once. What ends a run is ending.py's.

Each is safe to repeat. Order and patience are the flows', decisions the domain's; no backend is picked here (see wiring.py).
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

from pipeline.domain.data import Task
from pipeline.domain.news import is_news, news_of
from pipeline.domain.release import Event, EventKind, ReleaseRecord
from pipeline.errors import Broken, Misuse, TryLater, TunelineError
from pipeline.moving import Anchor, utc_now
from pipeline.ports import Traffic
from pipeline.wiring import World, notifier_of

if TYPE_CHECKING:
    from pipeline.params import Params
    from pipeline.steps.revoke import Revocation

LOG = logging.getLogger("tuneline.deeds")
POLICY = "policy"
"""Who promotes when params say so and nobody is asked."""


def move_to(
    world: World, params: Params, version: str, stage: str, *, by: str, reason: str, adopting: bool = False
) -> ReleaseRecord:
    """Promote; see steps/promote.py."""
    from pipeline.steps.promote import promote

    return promote(
        version,
        stage,
        by,
        reason,
        model=params.model.name,
        stages=params.release.stages,
        rules=params.release.rules,
        registry=world.registry,
        ledger=world.ledger,
        archive=world.archive,
        traffic=_traffic(world),
        roles=_roles(world),
        anchor=_after(world, params, by, reason),
        adopting=adopting,
    )


def move_back(
    world: World, params: Params, stage: str, *, by: str, reason: str, to: str | None = None, leaving: str | None = None
) -> ReleaseRecord:
    """Roll back; see steps/rollback.py."""
    from pipeline.steps.rollback import rollback

    return rollback(
        stage,
        by,
        reason,
        model=params.model.name,
        to=to,
        leaving=leaving,
        rules=params.release.rules,
        roles=_roles(world),
        registry=world.registry,
        ledger=world.ledger,
        anchor=_after(world, params, by, reason),
    )


def take_off(world: World, params: Params, version: str, *, by: str, reason: str) -> Revocation:
    """Revoke; see steps/revoke.py."""
    from pipeline.steps.revoke import revoke

    return revoke(
        version,
        by,
        reason,
        model=params.model.name,
        stages=params.release.stages,
        rules=params.release.rules,
        roles=_roles(world),
        registry=world.registry,
        ledger=world.ledger,
        anchor=_after(world, params, by, reason),
    )


def give_approval(world: World, params: Params, version: str, stage: str, *, by: str, reason: str) -> Event:
    """Approve; see steps/approve.py."""
    from pipeline.steps.approve import approve

    model, release = params.model.name, params.release
    return approve(
        version,
        stage,
        by,
        reason,
        model=model,
        stages=release.stages,
        rules=release.rules,
        ledger=world.ledger,
        anchor=_after(world, params, by, reason),
    )


def give_veto(world: World, params: Params, version: str, stage: str, *, by: str, reason: str) -> Event:
    """Refuse; see steps/approve.py."""
    from pipeline.steps.approve import refuse

    model, release = params.model.name, params.release
    return refuse(
        version,
        stage,
        by,
        reason,
        model=model,
        stages=release.stages,
        rules=release.rules,
        roles=_roles(world),
        ledger=world.ledger,
        anchor=_after(world, params, by, reason),
    )


def still_missing(world: World, params: Params, version: str, stage: str, *, by: str) -> tuple[str, ...]:
    """What the rules of a stage still ask of a version, if `by` were to promote it now; see domain/stage_rules.py."""
    from pipeline.domain.stage_rules import decide_promotion

    model, rules = params.model.name, params.release.rules_of(stage)
    events = world.ledger.concerning(model, stage, version=version, after=rules.after)
    traffic = _traffic(world).answered(model, version) if rules.requests else None
    return tuple(decide_promotion(events, version, stage, rules, actor=by, now=utc_now(), traffic=traffic, roles=_roles(world)))


def adopt(world: World, params: Params, stage: str, *, by: str, reason: str) -> ReleaseRecord:
    """Stand by an alias that a hand has moved: a promotion like any other, whose event says how it came about."""
    from pipeline.steps.reconcile import named_by_hand

    version = named_by_hand(params.model.name, stage, registry=world.registry, ledger=world.ledger)
    return move_to(world, params, version, stage, by=by, reason=reason, adopting=True)


def mend(world: World, params: Params) -> tuple[str, ...]:
    """What every start does first: aliases and tags that a kill, a hand or an outage left behind follow the ledger again, and
    notices that could not be delivered are tried again.

    What was done, and what a person has to do, a sentence each: a version that is gone from MLflow must not stop a run.
    """
    from pipeline.steps.reconcile import reconcile

    world.notifier.catch_up()
    model = params.model.name
    if not world.ledger.head(model)[0]:
        return ()
    try:
        return reconcile(model, params.release.stages, registry=world.registry, ledger=world.ledger)
    except (Broken, TryLater) as error:
        return (str(error),)


def _after(world: World, params: Params, by: str, reason: str) -> Anchor:
    """What follows an event that is committed: it is anchored, and people are told of it. Neither makes the deed fail.

    Called again when a retry finds the event done; whether it was told before is known by its digest.
    """

    def after(event: Event) -> None:
        world.anchors.after(event)
        if world.settings.notify is None or not is_news(event, by=by, reason=reason, now=utc_now()):
            return
        holders: dict[str, str | None] = {}
        missing: tuple[str, ...] = ()
        try:
            if event.event is EventKind.REVOKED:
                holders = {stage: world.ledger.holder(event.model, stage) for stage in params.release.stages}
            if event.event is EventKind.APPROVED and event.stage:
                missing = still_missing(world, params, event.version, event.stage, by=POLICY)
        except TunelineError as error:
            LOG.warning("what follows from event %d of %s is not known: %s", event.sequence, event.model, error)
        notifier_of(world, params).tell(news_of(event, holders=holders, missing=missing))

    return after


def _traffic(world: World) -> Traffic:
    from pipeline.serving.traffic import TrafficFile

    return TrafficFile(world.project.serving / "traffic.db")


def _roles(world: World) -> dict[str, frozenset[str]] | None:
    return world.identities.roles if world.identities else None


def ask_release(world: World, params: Params, stage: str, text: str) -> dict[str, Any]:
    """Load what holds a stage, strictly, and let it answer once."""
    from pipeline.backends.mlflow_models import answer_once

    model = params.model.name
    version = world.ledger.holder(model, stage)
    if version is None:
        raise Misuse(f"nothing of {model} holds {stage}", fix=f"tuneline promote VERSION --to {stage} --reason …")
    world.registry.artifacts(model, version)
    column = "text" if params.model.task is Task.CLASSIFY else "prompt"
    answer = answer_once(model, version, {column: text}, root=world.project.root)
    return {"release": f"{model}@{version}", "stage": stage, **answer}


def mlflow_ui_command(world: World, port: int) -> list[str]:
    """The command that shows MLflow's pages on the project's embedded store. Raises Misuse where a server is configured."""
    if world.settings.mlflow_uri is not None:
        raise Misuse("MLflow runs elsewhere (TUNELINE_MLFLOW_URI)", fix="open that address in a browser")
    store = f"sqlite:///{world.project.mlflow_db}"
    options = ["--backend-store-uri", store, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    return [sys.executable, "-m", "mlflow", "server", *options]

"""The flow runs in which versions wait for people, found and begun in Prefect, and what is due for each by the ledger of now."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run

from flows.prefect_api import run_page, tags_of
from flows.tasks import do
from pipeline.deeds import POLICY, move_to, still_missing
from pipeline.domain.notices import Notice, NoticeKind
from pipeline.domain.waiting import Turn, Waiting, turn_of
from pipeline.errors import RulesUnmet, TryLater, TunelineError
from pipeline.params import Params
from pipeline.wiring import World, notifier_of

REASON = "all that its rules ask for is there, and release.promote_when_approved says so"


class Due(NamedTuple):
    """What is to be done about a version that waits, why, and what it waits for."""

    turn: Turn
    why: str
    wait: Waiting


def promoter(world: World) -> str:
    """Who promotes when nobody is asked: a policy, or where events are signed, whoever holds the key here."""
    return world.actor if world.identities else POLICY


def due(world: World, params: Params, version: str, stage: str, run: FlowRun, *, carry_out: bool) -> Due:
    """What is due by the ledger of now. carry_out: promote, if that is it and params do not say otherwise."""
    model, by, rules = params.model.name, promoter(world), params.release.rules_of(stage)
    missing = still_missing(world, params, version, stage, by=by)
    wait = Waiting(model=model, version=version, stage=stage, since=begun(run), missing=missing)
    events = world.ledger.concerning(model, stage, version=version, after=rules.after)
    held = world.ledger.holder(model, stage)
    if held and (made := world.ledger.registration(model, held)):
        events = tuple(sorted({event.sequence: event for event in (*events, made)}.values(), key=lambda e: e.sequence))
    turn, why = turn_of(events, version, stage, missing, now=datetime.now(UTC), expires=expires(params, run))
    if turn is Turn.READY and carry_out and params.release.promote_when_approved:
        return _promoted(world, params, wait, by)
    return Due(turn, why, wait)


def _promoted(world: World, params: Params, wait: Waiting, by: str) -> Due:
    version, stage = wait.version, wait.stage
    try:
        do(f"promote {version} to {stage}", lambda: move_to(world, params, version, stage, by=by, reason=REASON))
    except RulesUnmet as error:
        # Somebody refused, or a freeze began, between the look and the deed.
        return Due(Turn.WAIT, "; ".join(error.unmet), wait.model_copy(update={"missing": error.unmet}))
    except TryLater as error:
        missing = (f"it could not be promoted yet: {error.what}",)
        return Due(Turn.WAIT, missing[0], wait.model_copy(update={"missing": missing}))
    except TunelineError as error:
        title = f"{wait.model}: version {version} cannot take {stage}"
        told = Notice(
            kind=NoticeKind.UNHEALTHY, model=wait.model, title=title, lines=(error.what, error.fix or "tuneline doctor")
        )
        notifier_of(world, params).tell(told)
        raise
    return Due(Turn.HELD, f"version {version} holds {stage}", wait)


def begun(run: FlowRun) -> datetime:
    return plain(run.created) if run.created else datetime.now(UTC)


def plain(at: datetime) -> datetime:
    """An instant as Python's own: Prefect's are of a kind that does not go with Python's durations."""
    return datetime.fromtimestamp(at.timestamp(), UTC)


def expires(params: Params, run: FlowRun) -> datetime:
    return begun(run) + timedelta(days=params.release.approval.expire_days)


def page_of(run: FlowRun) -> str:
    """Where the run is answered."""
    return run_page(os.environ.get("PREFECT_API_URL", ""), str(run.id))


def begin(client: SyncPrefectClient, model: str, version: str, stage: str, params_file: str) -> FlowRun | None:
    """The run in which a version waits, begun if need be; None where nobody serves the deployment."""
    try:
        deployment = client.read_deployment_by_name(f"approval/{model}-approval")
    except ObjectNotFound:
        return None
    if deployment.status is None or deployment.status.value != "READY":
        return None
    tags = tags_of(model, version, stage)
    there = runs(client, tags)
    waiting = [run for run in there if run.state and not run.state.is_final()]
    if waiting:
        return waiting[0]
    asked = {"name": model, "params_file": params_file, "version": version, "stage": stage}
    # Two that ask at once get one run: the key is that of the n-th wait of this version.
    key = f"{'/'.join(tags)}/{len(there)}"
    return client.create_flow_run_from_deployment(deployment.id, parameters=asked, tags=list(tags), idempotency_key=key)


def runs(client: SyncPrefectClient, tags: tuple[str, ...], states: tuple[str, ...] = ()) -> list[FlowRun]:
    asked: dict[str, Any] = {"tags": {"all_": list(tags)}}
    if states:
        asked["state"] = {"type": {"any_": list(states)}}
    return list(client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(asked), limit=200))


def drop_missed_looks(client: SyncPrefectClient) -> None:
    """Of the looks that were due while nobody served, this one is enough: each would start a process to find nothing."""
    own = client.read_flow_run(flow_run.id)
    if own.deployment_id is None:
        return
    asked = {"state": {"type": {"any_": ["SCHEDULED"]}}, "deployment_id": {"any_": [own.deployment_id]}}
    asked |= {"expected_start_time": {"before_": datetime.now(UTC).isoformat()}}
    for run in client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(asked), limit=200):
        if run.id != own.id and not run.parameters.get("version"):
            client.delete_flow_run(run.id)

"""A version that waits for people: the flow that tells them, waits for what they decide, and promotes.

It is suspended while it waits, so that neither a killed process nor a server that starts anew ends the wait: Prefect keeps it in
its database, and whoever serves the deployment starts the flow again once it is resumed. So this flow begins at its first line
each time, does what is due by the ledger, and suspends itself again; each of its deeds is harmless to repeat. A scheduled run of
the same deployment, without a version, looks at all that wait: for reminders, for ends, and for rules that time meets.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import PrefectHTTPStatusError
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.input.actions import create_flow_run_input, read_flow_run_input
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, Scheduled

from flows import waits
from flows.prefect_api import LOOK_AGAIN, WAITS, tags_of
from flows.tasks import do
from pipeline.deeds import give_approval, give_veto, still_missing
from pipeline.domain.opinions import vetoes
from pipeline.domain.waiting import Turn, Waiting, awaiting, candidates, ended, reminder
from pipeline.errors import Misuse, RulesUnmet
from pipeline.moving import resolved
from pipeline.params import Params
from pipeline.steps.status import newest_events
from pipeline.wiring import World, notifier_of, read_params

CONFLICT = 409
DEAD_AFTER = timedelta(minutes=30)
"""A run that looks takes seconds; one that has been at it for so long has died, and is started again."""


class Decision(RunInput):  # type: ignore[misc]
    """The form in Prefect's UI."""

    decision: Literal["look again", "approve", "refuse"] = "look again"
    by: str = ""
    reason: str = ""

    @classmethod
    def save(cls, keyset: Any, flow_run_id: UUID | None = None) -> None:
        """As Prefect's own, which fails when a request is repeated, as its answer was lost, and finds its work done."""
        try:
            super().save(keyset, flow_run_id)
        except PrefectHTTPStatusError as error:
            if error.response.status_code != CONFLICT:
                raise
            if isinstance(cls._description, str):
                _keep(keyset["description"], cls._description)


def _name() -> str:
    asked = flow_run.parameters
    version, stage = asked.get("version"), asked.get("stage")
    return f"{asked.get('name')}: version {version} waits for {stage}" if version else f"{asked.get('name')}: look at who waits"


@flow(name="approval", flow_run_name=_name, persist_result=False)
def approval_flow(name: str, params_file: str, version: str = "", stage: str = "") -> Any:
    """Wait until people approve of a version for a stage, or refuse it; without a version, look at all that wait."""
    world, params = World.here(), read_params(Path(params_file))
    if not version:
        return Completed(message=f"{look_at_all(world, params, params_file)} begun or let go on")
    name, version = params.model.name, _checked(world, params, version, stage)
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(flow_run.id)
        tags = tags_of(name, version, stage)
        if not set(tags) <= set(run.tags):  # begun by hand
            client.update_flow_run(run.id, tags=[*dict.fromkeys([*run.tags, *tags])])
    asked = _asked_before(run)
    problem = _heed_all(world, params, version, stage, asked)
    turn, why, wait = waits.due(world, params, version, stage, run, carry_out=True)
    get_run_logger().info("%s: %s", turn, why)
    if turn is Turn.WAIT:
        _remind(world, params, wait, run, number=0)
        form = Decision.with_initial_data(description=_form(world, wait, problem))
        suspend_flow_run(wait_for_input=form, key=f"ask-{asked}")  # raises; the flow begins again once it is resumed
    if notice := ended(wait, turn, why, key=str(run.id)):
        notifier_of(world, params).tell(notice)
    return Completed(name=turn.value.capitalize(), message=why)


def approval_deployment(model: str, params_file: Path, params: Params) -> Any:
    """The deployment that whoever serves a model's flows serves too."""
    return approval_flow.to_deployment(
        f"{model}-approval",
        parameters={"name": model, "params_file": str(params_file)},
        interval=timedelta(minutes=params.release.approval.look_minutes),
    )


def seek(world: World, params: Params, params_file: str, version: str, stage: str) -> str | None:
    """Let a version wait for the people whom `stage` asks for; a sentence on that, or None where it asks for nobody.

    Where no deployment waits, people are told, and that is all. Asked again for a version that waits already, nothing is done.
    """
    if not params.release.rules_of(stage).approvals.count:
        return None
    model = params.model.name
    missing = still_missing(world, params, version, stage, by=waits.promoter(world))
    said = f"version {version} waits for {stage}: {'; '.join(missing) or 'nothing is missing'}"
    with get_client(sync_client=True) as client:
        run = waits.begin(client, model, version, stage, params_file)
    if run is not None:
        return f"{said}. Decide on {waits.page_of(run)}, or by tuneline approve"
    now = datetime.now(UTC)
    wait = Waiting(model=model, version=version, stage=stage, since=now, missing=missing)
    expires = now + timedelta(days=params.release.approval.expire_days)
    notifier_of(world, params).tell(awaiting(wait, number=0, key=f"{model}-{version}-{stage}", expires=expires))
    return f"{said}. Nobody serves {model}-approval (tuneline schedule): once it may, tuneline promote {version} --to {stage}"


def look_at_all(world: World, params: Params, params_file: str) -> int:
    """Remind of every version that waits, and let go on those for which something is due; how many that were.

    A version of which nobody was asked, as Prefect was down when it was registered, begins to wait.
    """
    found, model, release = 0, params.model.name, params.release
    with get_client(sync_client=True) as client:
        waits.drop_missed_looks(client)
        for run in waits.runs(client, (WAITS, f"model:{model}"), ("PAUSED", "RUNNING", "PENDING")):
            version, stage = str(run.parameters.get("version", "")), str(run.parameters.get("stage", ""))
            if not version or run.state is None:
                continue
            if not run.state.is_paused():
                if datetime.now(UTC) - waits.plain(run.state.timestamp) > DEAD_AFTER:  # its process has died, and cannot say so
                    client.set_flow_run_state(run.id, Scheduled(), force=True)
                    found += 1
                continue
            turn, _, wait = waits.due(world, params, version, stage, run, carry_out=False)
            if turn is not Turn.WAIT:
                client.resume_flow_run(run.id, run_input=LOOK_AGAIN)
                found += 1
            elif number := reminder(wait.since, datetime.now(UTC), release.approval.remind_hours):
                _remind(world, params, wait, run, number=number)
        events = newest_events(model, world.ledger)
        for version, stage in candidates(events, {name: release.rules_of(name) for name in release.stages}):
            if vetoes(events, version, stage) or waits.runs(client, tags_of(model, version, stage)):
                continue
            found += waits.begin(client, model, version, stage, params_file) is not None
    return found


def _checked(world: World, params: Params, version: str, stage: str) -> str:
    """The version's number. Raises Misuse for one, or a stage, that there is not: a run begun by hand may say anything."""
    if stage not in params.release.stages:
        raise Misuse(f"there is no stage {stage[:60]!r}", fix=f"stages are {', '.join(params.release.stages)} (release.stages)")
    return resolved(version, params.model.name, world.ledger, params.release.stages)


def _remind(world: World, params: Params, wait: Waiting, run: FlowRun, *, number: int) -> None:
    expires = waits.expires(params, run)
    told = awaiting(wait, number=number, key=str(run.id), expires=expires, where=waits.page_of(run))
    notifier_of(world, params).tell(told)


def _heed_all(world: World, params: Params, version: str, stage: str, asked: int) -> str | None:
    """Carry out what was entered in Prefect and not heeded yet; what is wrong with the last of it, if anything."""
    problem = None
    for number in range(asked):
        mark = f"ask-{number}-heeded"
        said = read_flow_run_input(mark)
        if said is None:
            entered = read_flow_run_input(f"suspended-ask-{number}-response") or {}
            said = _heed(world, params, version, stage, Decision(**entered)) or ""
            _keep(mark, said)
        problem = str(said) or None
    return problem


def _heed(world: World, params: Params, version: str, stage: str, entered: Decision) -> str | None:
    if entered.decision == "look again":
        return None
    by, reason = entered.by.strip(), entered.reason.strip()
    if world.identities is not None:
        # Anybody who sees the page can enter any name, and the key of whoever serves the flow must not vouch for it.
        return (
            f"what {by[:60] or 'somebody'} entered does not count: decisions are signed here by whoever takes them, "
            f"which a form cannot do. Use: tuneline {entered.decision} {version} --to {stage} --reason …"
        )
    deed = give_approval if entered.decision == "approve" else give_veto
    try:
        do(f"{entered.decision} {version} for {stage}", lambda: deed(world, params, version, stage, by=by, reason=reason))
    except (Misuse, RulesUnmet) as error:
        return f"what was entered does not count: {error.what}"
    return None


def _form(world: World, wait: Waiting, problem: str | None) -> str:
    lines = [f"# Version {wait.version} of {wait.model} for {wait.stage}", ""]
    lines += [f"**{problem}**", ""] if problem else []
    lines += ["Missing:", "", *(f"- {said}" for said in wait.missing), ""]
    if world.identities is not None:
        lines += [f"Decisions are signed here: {wait.how}."]
    else:
        lines += [f"Approve or refuse, and say who you are and why. Or: {wait.how}."]
    return "\n".join([*lines, "", f"What it measured: `tuneline report {wait.version}`; what it replaces: `tuneline status`."])


def _keep(key: str, value: str) -> None:
    """Note something beside this run, for its later starts; what is there already stays."""
    try:
        create_flow_run_input(key, value)
    except PrefectHTTPStatusError as error:
        if error.response.status_code != CONFLICT:
            raise


def _asked_before(run: FlowRun) -> int:
    """How often this run has been suspended for an answer."""
    keys = (run.empirical_policy.pause_keys if run.empirical_policy else None) or set()
    return sum(key.startswith("ask-") for key in keys)

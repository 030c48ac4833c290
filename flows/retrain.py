"""The flows that make runs. retrain: take in what is new, and if there is anything, tune a candidate, measure it, gate it,
register it. take_in: the first half alone, up to who learns and who is held out.

Only order and patience stand here; every stage is a function of pipeline/stages.py, every deed one of deeds.py or ending.py. A
candidate that the gate refuses is a successful run; so is a run that finds nothing to do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed

from flows.tasks import call_of_this_run, close_runs, do, page_link, progress, show_links, show_table
from pipeline.backends.run_folder import (
    DATA_STAGES,
    STAGES,
    KeptRun,
    RunFolder,
    discard,
    head_data,
    head_run,
    keep_run,
    open_run,
    remove_other_folders,
)
from pipeline.deeds import mend, move_to
from pipeline.domain.curated import Curation, Splits
from pipeline.domain.data import CheckResult, Snapshot, ValidationReport
from pipeline.domain.drift import DriftReport
from pipeline.domain.gating import GateDecision, Outcome
from pipeline.domain.notices import Notice, NoticeKind
from pipeline.domain.outcome import Ending, RunOutcome
from pipeline.domain.release import registrations, version_record
from pipeline.ending import log_evidence, replay_curves, run_gate, settle
from pipeline.errors import RulesUnmet, Stale
from pipeline.params import Params
from pipeline.placing import place_champion, place_frozen, place_reserved, place_reviewed, place_starts, place_suites
from pipeline.reporting import write_report
from pipeline.stages import run_step
from pipeline.terminal import say
from pipeline.ticking import in_turn
from pipeline.wiring import World, notifier_of, read_params, run_ingest

POLICY = "release.promote_on_pass says so"


@flow(name="retrain", flow_run_name="retrain {name}", persist_result=False, validate_parameters=False)
def retrain(
    name: str,
    params_file: str,
    sources: tuple[str, ...] = (),
    as_of: datetime | None = None,
    afresh: bool = False,
    schedule: dict[str, Any] | None = None,
) -> Any:
    """Run for the model `name` of a params file, if its turn has come and there is a reason; returns a RunOutcome. sources and
    as_of: see wiring.run_ingest. schedule: the keys of params.schedule by which it was woken, where those of the file may be
    others by now."""
    world, params = World.here(), read_params(Path(params_file))
    if schedule:
        params = params.model_copy(update={"schedule": params.schedule.model_copy(update=schedule)})

    def work(held: World) -> RunOutcome:
        _finish_what_was_killed(held, params)
        for mended in mend(held, params):
            say(mended)
        outcome = _run_once(held, params, tuple(sources), as_of, afresh=afresh)
        sought = _seek(held, params, params_file, outcome)
        return outcome.model_copy(update={"facts": (*outcome.facts, sought)}) if sought else outcome

    return _told(world, params, _in_turn(world, params, work))


@flow(name="take in", flow_run_name="take in {name}", persist_result=False, validate_parameters=False)
def take_in(
    name: str, params_file: str, sources: tuple[str, ...] = (), as_of: datetime | None = None, afresh: bool = False
) -> Any:
    """Take in, validate, curate and split what is new for the model `name`; nothing is trained. Returns a RunOutcome."""
    world, params = World.here(), read_params(Path(params_file))

    def work(held: World) -> RunOutcome:
        run = _open(held, params)
        try:
            _, outcome = _take_data_in(held, run, params, tuple(sources), as_of, DATA_STAGES, afresh=afresh)
            return outcome or _keep_data(held, run)
        finally:
            run.store.close()

    return _told(world, params, _in_turn(world, params, work))


def _seek(world: World, params: Params, params_file: str, outcome: RunOutcome) -> str | None:
    """Let a version that was registered, and holds no stage, wait for the people whom its stage asks for."""
    if outcome.ending is not Ending.REGISTERED or outcome.version is None or outcome.promoted_to is not None:
        return None
    from flows.approval import seek

    return seek(world, params, params_file, outcome.version, params.release.promote_on_pass or params.release.stages[-1])


def _in_turn(world: World, params: Params, work: Callable[[World], RunOutcome]) -> RunOutcome:
    """See ticking.in_turn. Flow runs whose process has died are closed by the next one, whatever it finds to do."""
    name, book = params.model.name, world.run_book
    book.called(name, str(flow_run.id))
    dead = book.dead_callers(name)
    close_runs((f"retrain {name}", f"take in {name}"), dead, book.callers(name))
    book.forget_callers(dead)
    try:
        return in_turn(world, params, call_of_this_run(), work)
    except Stale:
        raise  # whoever took over tells how it ended
    except Exception as error:
        _tell(world, params, NoticeKind.RUN_FAILED, f"{name}: the run failed", (str(error)[:500] or type(error).__name__,))
        raise


def _told(world: World, params: Params, outcome: RunOutcome) -> Any:
    get_run_logger().info("%s: %s", outcome.run, outcome.ending)
    if outcome.said_no:
        _tell(world, params, NoticeKind.REFUSED, f"{outcome.run}: {outcome.ending}", outcome.reasons)
    # The state's name is what the list of runs shows; every ending here is a run that did its work.
    said = "; ".join(outcome.reasons or outcome.facts[:1]) or outcome.ending.value
    return Completed(name=outcome.ending.value.capitalize(), message=said, data=outcome)


def _tell(world: World, params: Params, kind: NoticeKind, title: str, lines: tuple[str, ...]) -> None:
    notifier_of(world, params).tell(Notice(kind=kind, model=params.model.name, title=title, lines=lines))


def _run_once(world: World, params: Params, sources: tuple[str, ...], as_of: datetime | None, *, afresh: bool) -> RunOutcome:
    run = _open(world, params)
    try:
        snapshot, ended = _take_data_in(world, run, params, sources, as_of, STAGES, afresh=afresh)
        if ended:
            return ended
        if run.starts_anew():
            do("find starts", lambda: place_starts(world, run, params))
        do("find champion", lambda: place_champion(world, run, params))
        with world.tracked(
            params.model.name, run.key, {"tuneline.commit": run.code.commit, "tuneline.dirty": str(run.code.dirty)}
        ) as tracker:
            if not _step(world, run, params, "train", tracker):
                replay_curves(run.workspace, tracker)
            _step(world, run, params, "evaluate")
            decision = do("gate", lambda: run_gate(world, run.workspace, params))
            do("report", lambda: write_report(run.workspace, decision))
            log_evidence(run.workspace, tracker)
        kept = do("keep run", lambda: keep_run(world.git, run, "run", f"{run.key}: the gate says {decision.verdict}"))
        return _end(world, kept, run, params, snapshot, decision, tracker.run_id)
    finally:
        run.store.close()


def _open(world: World, params: Params) -> RunFolder:
    return do("open run folder", lambda: open_run(world.git, world.project, params, remote=world.settings.dvc_remote))


def _take_data_in(
    world: World,
    run: RunFolder,
    params: Params,
    sources: tuple[str, ...],
    as_of: datetime | None,
    stages: list[str],
    *,
    afresh: bool,
) -> tuple[Snapshot, RunOutcome | None]:
    """The snapshot, and how the run ended if it ended here: nothing new for `stages`, or data that a check refused."""
    snapshot = do("ingest", lambda: run_ingest(world, run, params, sources, as_of, afresh=afresh, progress=progress(run.key)))
    do("reserve", lambda: place_reserved(world, run, params))
    do("reviewed rows", lambda: place_reviewed(world, run, params))
    do("find suites", lambda: place_suites(world, run, params))
    if run.nothing_new(snapshot, stages):
        return snapshot, _nothing_new(world, run)
    if run.parent is None or run.store.stale(DATA_STAGES):
        # Only then: with nothing to split anew, the splits stay what they are, and so does what was made of them.
        do("freeze sides", lambda: place_frozen(run))
    _step(world, run, params, "validate")
    report = ValidationReport.read(run.workspace.validation_record)
    if not report.passed:
        return snapshot, _refuse_data(world, run, Ending.REFUSED_BY_VALIDATION, report.failures)
    _step(world, run, params, "drift")
    drift = DriftReport.read(run.workspace.drift_record)
    if not drift.passed:
        return snapshot, _refuse_data(world, run, Ending.REFUSED_BY_CURATION, drift.failures)
    _step(world, run, params, "curate")
    curation = Curation.read(run.workspace.curation_record)
    if not curation.passed:
        return snapshot, _refuse_data(world, run, Ending.REFUSED_BY_CURATION, curation.failures)
    _step(world, run, params, "split")
    splits = Splits.read(run.workspace.splits_record)
    if not splits.passed:
        return snapshot, _refuse_data(world, run, Ending.REFUSED_BY_CURATION, splits.failures)
    return snapshot, None


def _step(world: World, run: RunFolder, params: Params, name: str, tracker: Any = None) -> bool:
    """Run a stage of dvc.yaml, unless the same work was done before: then DVC brings it back. True if it ran."""

    def work() -> bool:
        if run.store.restore(name):
            say(f"  {name}: done before, brought back")
            return False
        run.store.clear(name)
        run_step(world, name, run.workspace, params, tracker, progress(run.key))
        run.store.commit(name)
        return True

    return do(name, work)


def _finish_what_was_killed(world: World, params: Params) -> None:
    """Register the last run if it was kept and passed, but died before its registration."""
    kept = head_run(world.git, params.model.name)
    if kept is None:
        return
    verdict = world.git.show(kept.commit, "work/release/decision.json")
    decision = GateDecision.from_json((verdict or b"").decode(), where=kept.tag)
    events = world.ledger.events(kept.model)
    tags = {version_record(events, version).tag for version in registrations(events)}
    if decision.verdict is Outcome.PASSED and kept.tag not in tags:
        do(f"finish {kept.key}", lambda: _settle(world, kept, params))


def _settle(world: World, kept: KeptRun, params: Params, run_id: str | None = None) -> str | None:
    if run_id is None:
        with world.tracked(params.model.name, kept.key) as tracker:
            run_id = tracker.run_id
    dirty = "Dirty: True" in world.git.message(kept.commit)
    version = settle(world, kept, params, run_id, dirty=dirty)
    return version.version if version else None


def _nothing_new(world: World, run: RunFolder) -> RunOutcome:
    discard(world.git, world.project, run)
    last = head_data(world.git, run.model)
    fact = f"data, params and code are those of {last.key}; nothing was trained" if last else ""
    return RunOutcome(model=run.model, run=run.key, ending=Ending.NOTHING_NEW, facts=(fact,))


def _keep_data(world: World, run: RunFolder) -> RunOutcome:
    """The end of a run that only took data in."""
    do("keep run", lambda: keep_run(world.git, run, "data", f"{run.key}: data taken in"))
    do("push", run.store.push)
    remove_other_folders(world.git, world.project, run.model, keep={run.number})
    snapshot, splits = Snapshot.read(run.workspace.snapshot_record), Splits.read(run.workspace.splits_record)
    facts = (*_data_facts(snapshot, run), f"train {splits.train.rows}, eval {splits.eval.rows}, test {splits.test.rows} rows")
    links = _data_links(run)
    show_links(f"{run.key}-pages", f"{run.key}: taken in", links)
    return RunOutcome(model=run.model, run=run.key, ending=Ending.TAKEN_IN, facts=facts, links=links)


def _refuse_data(world: World, run: RunFolder, ending: Ending, failures: tuple[CheckResult, ...]) -> RunOutcome:
    do("keep evidence", lambda: keep_run(world.git, run, "invalid", f"{run.key}: {ending}"))
    head = head_data(world.git, run.model)
    remove_other_folders(world.git, world.project, run.model, keep={run.number, head.number if head else run.number})
    reasons = tuple(f"{c.name}: {c.error or c.observed} (expected {c.expected})" for c in failures)
    samples = tuple(f"{c.name}: {sample}" for c in failures for sample in c.samples[:3])
    links = _data_links(run)
    show_links(f"{run.key}-data", f"{run.key}: {ending}", links)
    # Samples are rows of data, which the server's database would keep: they are on the page.
    show_table(f"{run.key}-failed", "failed checks", [c.model_dump(mode="json", exclude={"samples"}) for c in failures])
    return RunOutcome(model=run.model, run=run.key, ending=ending, reasons=reasons, facts=samples, links=links)


def _data_links(run: RunFolder) -> dict[str, str]:
    files = {
        "validation": run.workspace.validation / "validation.html",
        "drift": run.workspace.drift / "drift.html",
        "curation": run.workspace.curation / "curation.html",
        "leaks": run.workspace.splits / "leaks.parquet",
    }
    found = {name: page_link(path) for name, path in files.items() if path.is_file()}
    return {**found, "folder": str(run.workspace.root)}


def _end(
    world: World, kept: KeptRun, run: RunFolder, params: Params, snapshot: Snapshot, decision: GateDecision, run_id: str
) -> RunOutcome:
    passed = decision.verdict is Outcome.PASSED
    version = do("push and register" if passed else "push", lambda: _settle(world, kept, params, run_id))
    promoted, unmet = None, tuple[str, ...]()
    if version is not None and params.release.promote_on_pass is not None:
        stage, by = params.release.promote_on_pass, world.actor if world.identities else "policy"
        try:
            do(f"promote to {stage}", lambda: move_to(world, params, str(version), stage, by=by, reason=POLICY))
            promoted = stage
        except RulesUnmet as error:
            # The version is registered; that its stage asks for more yet is no failure of the run.
            unmet = tuple(f"not promoted to {stage} by policy: {said}" for said in error.unmet)
    remove_other_folders(world.git, world.project, kept.model, keep={kept.number})
    # The copies that MLflow keeps: the run's folder goes when newer runs come.
    reports = world.registry.run_artifacts(run_id) / "reports"
    links = {
        "report": page_link(reports / "report.html"),
        "validation": page_link(reports / "validation.html"),
        "data docs": page_link(reports / "data_docs" / "index.html"),
        "folder": str(run.workspace.root),
        "mlflow run": run_id,
    }
    show_links(f"{kept.key}-pages", f"{kept.key}: {decision.verdict}", links)
    show_table(f"{kept.key}-decision", f"gate: {decision.verdict}", [c.model_dump(mode="json") for c in decision.checks])
    return RunOutcome(
        model=kept.model,
        run=kept.key,
        ending=Ending.REGISTERED if passed else Ending.REFUSED_BY_GATE,
        version=version,
        promoted_to=promoted,
        reasons=(*(f"{c.name}: {c.detail}" for c in decision.failed), *unmet),
        facts=(*_data_facts(snapshot, run), *(f"{c.name}: {c.detail}" for c in decision.checks)),
        links=links,
    )


def _data_facts(snapshot: Snapshot, run: RunFolder) -> tuple[str, ...]:
    fresh = () if run.parent is not None and snapshot.digest == run.parent.digest else snapshot.batch
    read, accepted, duplicate, quarantined, forgotten = (
        sum(getattr(s, field) for s in fresh) for field in ("read", "accepted", "duplicate", "quarantined", "forgotten")
    )
    ended = f"{accepted} accepted, {duplicate} duplicate, {quarantined} quarantined"
    ended += f", {forgotten} forgotten before" if forgotten else ""
    counts = f"{read} rows read: {ended}; {snapshot.rows} in the snapshot"
    altered = sum((Counter(source.altered) for source in fresh), Counter[str]())
    clean = [f"clean: {', '.join(f'{rule} {rows}' for rule, rows in sorted(altered.items()))}"] if altered else []
    curation = Curation.read(run.workspace.curation_record)
    rules = [f"{rule.rule}: {rule.found} found, {rule.dropped} left out" for rule in curation.rules if rule.found]
    drifted = DriftReport.read(run.workspace.drift_record).drifted
    drift = [f"drift: {', '.join(f'{s.aspect} (effect {s.effect:.2f})' for s in drifted)}"] if drifted else []
    return (counts, *clean, *rules, *drift)

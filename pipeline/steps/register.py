"""Register a candidate that passed the gate: a version in the registry, and its first event in the ledger.

Promoting it is another step. Nothing is registered that the gate did not pass, or that is not what the gate looked at.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from pipeline.domain.evidence import COMMITTED, FOLDER, model_files
from pipeline.domain.gating import GateDecision, Outcome
from pipeline.domain.lineage import read_chain
from pipeline.domain.measured import EvaluationReport
from pipeline.domain.model import TrainingRun
from pipeline.domain.proof import adapter_folder, recordable_files
from pipeline.domain.record import FileDigest, digest_bytes
from pipeline.domain.release import Event, EventKind, ModelVersion, registrations, version_record
from pipeline.domain.wording import check_words
from pipeline.errors import Broken, Conflict, Misuse, Stale, Tampered, TryLater
from pipeline.moving import ATTEMPTS, utc_now
from pipeline.ports import Anchors, Archive, Evidence, Ledger, Registry


def register(
    decision: GateDecision,
    training: TrainingRun,
    evaluation: EvaluationReport,
    *,
    name: str,
    run_id: str,
    commit: str,
    tag: str,
    dirty: bool,
    source: str,
    actor: str,
    reason: str,
    registry: Registry,
    ledger: Ledger,
    archive: Archive | None = None,
    evidence: Evidence | None = None,
    anchors: Anchors | None = None,
    now: Callable[[], datetime] = utc_now,
) -> ModelVersion:
    """Register the model that `run_id` logged at `source` (`runs:/…` or `models:/…`) as the next version of `name`.

    Safe to repeat: a candidate is known by its gate decision, and one that is registered already keeps its version. A crash
    after the registry and before the ledger is mended by repeating. With `evidence` (and the archive of the run's records), a
    signed account of how the version came to be is laid among its files first; with `anchors`, the event is anchored outside
    the ledger afterwards. Raises Misuse for a decision that is no pass or is about
    another candidate, Tampered when the logged files do not hold the adapter that was trained.
    """
    check_words(actor=actor, reason=reason, model=name)
    _refuse_unbound(decision, training, evaluation)
    if known := _registered(ledger.events(name), decision, dirty=dirty):
        registry.set_version_tags(name, known.version, known.tags)
        return known
    version = registry.register(name, run_id=run_id, source=source, tags=_metric_tags(evaluation))
    files = recordable_files(registry.artifacts(name, version))
    if adapter_folder(files, training.adapter) is None:
        raise Tampered(
            "the logged model does not hold the adapter that was trained",
            where=f"{name} version {version}, {source}",
            fix="log the model again from the run's adapter folder",
        )
    record = ModelVersion(
        name=name,
        version=version,
        run_id=run_id,
        training=training.digest,
        evaluation=evaluation.digest,
        decision=decision.digest,
        adapter_digest=training.adapter_digest,
        files=files,
        reports=recordable_files(registry.run_artifacts(run_id)),
        commit=commit,
        tag=tag,
        dirty=dirty,
    )
    if evidence is not None and archive is not None:
        record = record.model_copy(update={"files": _with_evidence(record, evidence, archive, registry)})
    record = _append(record, decision, actor=actor, reason=reason, ledger=ledger, anchors=anchors, now=now)
    registry.set_version_tags(name, record.version, record.tags)
    return record


def _with_evidence(record: ModelVersion, evidence: Evidence, archive: Archive, registry: Registry) -> tuple[FileDigest, ...]:
    """The version's files with its evidence among them: what an interrupted registration left whole, else made anew."""
    folder = registry.artifacts(record.name, record.version)
    if evidence.whole(record.files, folder):
        return record.files
    bare = record.model_copy(update={"files": model_files(record.files)})
    chain, read = read_chain(bare, lambda digest: archive.record(bare, digest))
    for name, said in read.broken.items():
        raise Broken(f"the {name} record cannot be read, so no evidence can be made of it: {said}", where=record.tag)
    contents = {path: archive.committed(bare, path) for path in COMMITTED}
    committed = {path: digest_bytes(content) for path, content in contents.items() if content is not None}
    with tempfile.TemporaryDirectory() as made:
        evidence.lay(chain, committed, Path(made))
        registry.put(record.name, record.version, Path(made), FOLDER)
    files = recordable_files(registry.artifacts(record.name, record.version))
    if model_files(files) != bare.files:
        raise Tampered("the logged model changed while it was registered", where=str(folder), fix="register it again")
    return files


def _append(
    record: ModelVersion,
    decision: GateDecision,
    *,
    actor: str,
    reason: str,
    ledger: Ledger,
    anchors: Anchors | None,
    now: Callable[[], datetime],
) -> ModelVersion:
    """Append the registered event, whatever else is appended meanwhile: registering disturbs nobody's decision."""
    for _ in range(ATTEMPTS):
        events = ledger.events(record.name)
        if known := _registered(events, decision, dirty=record.dirty):
            return known
        if other := registrations(events).get(record.version):
            raise Misuse(
                f"version {record.version} is registered with another gate decision",
                where=f"ledger, event {other.sequence}",
                fix="give the new candidate a run of its own",
            )
        try:
            event = ledger.append(
                record.name,
                EventKind.REGISTERED,
                expected=len(events),
                version=record.version,
                subject=record.digest,
                stage=None,
                leaves=None,
                actor=actor,
                reason=reason,
                at=now(),
                record=record.to_json(),
            )
        except Stale:
            raise
        except Conflict:
            continue
        if anchors is not None:
            anchors.anchor(event.model, event.sequence, event.digest)
        return record
    raise TryLater(f"the ledger of {record.name} is busier than {ATTEMPTS} tries", fix="try again")


def _refuse_unbound(decision: GateDecision, training: TrainingRun, evaluation: EvaluationReport) -> None:
    problems = []
    if decision.verdict is not Outcome.PASSED:
        failed = "; ".join(c.detail for c in decision.failed)
        problems.append(f"the gate said {decision.verdict.value}{': ' + failed if failed else ''}")
    if decision.training != training.digest:
        problems.append("the decision is about another training run")
    if decision.evaluation != evaluation.digest:
        problems.append("the decision is about another evaluation")
    if decision.adapter_digest != training.adapter_digest:
        problems.append("the decision is about another adapter")
    if evaluation.training != training.digest:
        problems.append("the evaluation is of another training run")
    if problems:
        raise Misuse(
            f"this candidate cannot be registered: {'; '.join(problems)}", fix="evaluate and gate this very candidate, and pass"
        )


def _registered(events: tuple[Event, ...], decision: GateDecision, *, dirty: bool) -> ModelVersion | None:
    """The version that this decision was registered as. One from a dirty tree does not stand in for one from a commit."""
    for version in registrations(events):
        record = version_record(events, version)
        if record.decision == decision.digest and record.dirty == dirty:
            return record
    return None


def _metric_tags(evaluation: EvaluationReport) -> dict[str, str]:
    measured = evaluation.subject("candidate")
    if measured is None:
        raise Misuse("the evaluation measured no candidate", fix="evaluate the candidate")
    return {f"tuneline.metric.{m.metric}": f"{m.value:.4g} [{m.low:.4g}, {m.high:.4g}]" for m in measured.metrics}

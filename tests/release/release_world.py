"""A small project for release tests: a real SQLite ledger, a folder registry, and runs whose records and files are real
(small, but hashed, cross-referenced and stored by MD5 as DVC would), without training anything."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from folder_registry import FolderRegistry

from pipeline.backends.ledger import SqlLedger
from pipeline.domain.curated import Curation, Frozen, SplitFile, Splits, SplitSide
from pipeline.domain.data import CheckResult, Shard, Snapshot, SourceFile, Task, ValidationReport, empty_snapshot
from pipeline.domain.gating import GateCheck, GateDecision, Outcome
from pipeline.domain.measured import EvaluationReport, MetricValue, Subject
from pipeline.domain.model import BaseModelRef, Champion, StageRun, Starts, TrainingRun
from pipeline.domain.record import FileDigest, describe_files, digest_bytes, digest_file, digest_value
from pipeline.domain.release import ModelVersion, ReleaseRecord
from pipeline.domain.tuning import Objective, Tuner
from pipeline.errors import Broken
from pipeline.ports import StoredFile
from pipeline.steps.promote import promote
from pipeline.steps.register import register
from pipeline.steps.rollback import rollback
from pipeline.workspace import Workspace

MODEL = "desk"
STAGES = ("staging", "production")


@dataclass(frozen=True)
class Candidate:
    """What a run leaves behind before it is registered."""

    decision: GateDecision
    training: TrainingRun
    evaluation: EvaluationReport
    run_id: str
    tag: str
    run: Workspace


class StoreArchive:
    """Records and files of runs as they lie in a store that names files by MD5. Implements ports.Archive."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def keep(self, tag: str, run: Path) -> None:
        rows = []
        for file in describe_files(run):
            content = (run / file.path).read_bytes()
            md5 = hashlib.md5(content).hexdigest()
            self.stored(md5).parent.mkdir(parents=True, exist_ok=True)
            self.stored(md5).write_bytes(content)
            rows.append(f"{md5} {file.path}\n")
        (self.root / f"{tag}.list").write_text("".join(rows))

    def stored(self, md5: str) -> Path:
        return self.root / "md5" / md5[:2] / md5[2:]

    def record(self, version: ModelVersion, digest: str) -> tuple[str, str]:
        for file in self.files(version):
            if file.path.endswith(".json") and file.stored.is_file() and digest_file(file.stored) == digest:
                return file.stored.read_text(), file.path
        raise Broken(f"no record with the digest {digest[:12]} is in the run", where=version.tag)

    def committed(self, version: ModelVersion, path: str) -> bytes | None:
        place = self.root / f"{version.tag}.commit" / path
        return place.read_bytes() if place.is_file() else None

    def commit_problem(self, version: ModelVersion) -> str | None:
        return None

    def files(self, version: ModelVersion) -> Iterator[StoredFile]:
        for line in (self.root / f"{version.tag}.list").read_text().splitlines():
            md5, path = line.split(" ", 1)
            yield StoredFile(path=path, stored=self.stored(md5), md5=md5)


class Clock:
    """A clock that goes one minute further each time it is asked."""

    def __init__(self) -> None:
        self.time = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.time += timedelta(minutes=1)
        return self.time


class World:
    """A project folder with everything a release step needs, and short words for calling them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ledger = SqlLedger(root / "state" / "ledger.db", patience=30)
        self.registry = FolderRegistry(root / "registry")
        self.archive = StoreArchive(root / "archive")
        self.clock = Clock()
        self.archive.root.mkdir(parents=True)

    def candidate(self, name: str, *, verdict: Outcome = Outcome.PASSED, starts: Starts | None = None) -> Candidate:
        """A run called `name`, with every record and file, kept in the archive and logged in the registry."""
        candidate = self.candidate_files(name, verdict=verdict, starts=starts)
        logged = self.registry.root / "runs" / candidate.run_id
        shutil.copytree(candidate.run.training / "adapter", logged / "model" / "artifacts" / "adapter")
        (logged / "model" / "code").mkdir()
        (logged / "model" / "code" / "loading.py").write_text("print('load')\n")
        (logged / "logged").mkdir()
        (logged / "logged" / "report.html").write_text(f"<h1>report of {name}</h1>")
        return candidate

    def candidate_files(self, name: str, *, verdict: Outcome = Outcome.PASSED, starts: Starts | None = None) -> Candidate:
        """A run called `name`, kept in the archive but logged nowhere. Its training began from the first of `starts`."""
        candidate = _make_run(self.root, name, verdict, starts or Starts())
        self.archive.keep(candidate.tag, candidate.run.root)
        return candidate

    def register(self, name: str, *, dirty: bool = False, candidate: Candidate | None = None) -> ModelVersion:
        made = candidate or self.candidate(name)
        return register(
            made.decision,
            made.training,
            made.evaluation,
            name=MODEL,
            run_id=made.run_id,
            commit="c" * 40,
            tag=made.tag,
            dirty=dirty,
            source=f"runs:/{made.run_id}/model",
            actor="tuneline",
            reason="the gate passed it",
            registry=self.registry,
            ledger=self.ledger,
            now=self.clock,
        )

    def promote(self, version: str, to: str = "production", by: str = "ada", **words: Any) -> ReleaseRecord:
        stores = {"registry": self.registry, "ledger": self.ledger, "archive": self.archive}
        return promote(version, to, by, "looks good", model=MODEL, stages=STAGES, now=self.clock, **stores, **words)

    def rollback(self, stage: str = "production", by: str = "bob", **words: Any) -> ReleaseRecord:
        stores = {"registry": self.registry, "ledger": self.ledger}
        return rollback(stage, by, "it misbehaves", model=MODEL, now=self.clock, **stores, **words)


def _make_run(root: Path, name: str, verdict: Outcome, starts: Starts) -> Candidate:
    run = Workspace(root / "runs" / name)
    source = root / "inbox" / "week1.jsonl"
    _put(source, b'{"prompt": "hello", "completion": "world"}\n')
    shard = _put(run.snapshot / "shards" / "0123456789abcdef.parquet", b"PAR1 rows PAR1")
    held = _put(run.snapshot / "quarantine" / "fedcba9876543210.jsonl", b'{"line": 2}\n')
    champion = Champion()
    champion.write(run.champion_record)
    snapshot = Snapshot(
        dataset=MODEL,
        task=Task.GENERATE,
        parent=None,
        sources=(
            SourceFile(
                name="inbox/week1.jsonl",
                sha256=digest_file(source),
                bytes=source.stat().st_size,
                read=11,
                accepted=10,
                duplicate=0,
                quarantined=1,
            ),
        ),
        shards=(_describe(Shard, shard, run.snapshot, rows=10),),
        quarantine=(_describe(Shard, held, run.snapshot, rows=1),),
    )
    snapshot.write(run.snapshot_record)
    check = CheckResult(name="rows", passed=True, expected="at least 5", observed="10")
    validation = ValidationReport(snapshot=snapshot.digest, rows=10, suite="s" * 64, checks=(check,))
    validation.write(run.validation_record)
    _put(run.validation / "validation.html", b"<h1>all fine</h1>")
    sides = {}
    for side in ("train", "eval", "test"):
        place = _put(run.splits / f"{side}.parquet", f"PAR1 {side} PAR1".encode())
        sides[side] = SplitSide(parts=(_describe(SplitFile, place, run.splits, rows=3),))
    frozen, reserved, curation = Frozen(), empty_snapshot(MODEL, Task.GENERATE), _curation(run, snapshot, validation)
    frozen.write(run.frozen_record)
    reserved.write(run.reserved_record)
    splits = Splits(
        snapshot=snapshot.digest,
        validation=validation.digest,
        curation=curation.digest,
        frozen=frozen.digest,
        reserved=reserved.digest,
        params={"test": 0.3},
        **sides,
    )
    splits.write(run.splits_record)
    _put(run.training / "adapter" / "adapter_model.safetensors", f"weights of {name}".encode() * 20)
    _put(run.training / "adapter" / "adapter_config.json", b'{"r": 4}')
    starts.write(run.starts_record)
    training = _training(run, splits, starts)
    training.write(run.training_record)
    predictions = _put(run.evaluation / "predictions.parquet", f"PAR1 predictions of {name} PAR1".encode())
    value = MetricValue(metric="exact_match", value=0.9, low=0.85, high=0.95, rows=3)
    evaluation = EvaluationReport(
        training=training.digest,
        champion=champion.digest,
        splits=splits.digest,
        test=splits.test.sha256,
        rows=3,
        subjects=(Subject(name="candidate", identity=training.adapter_digest, metrics=(value,)),),
        comparisons=(),
        slices=(),
        predictions=_describe(FileDigest, predictions, run.evaluation),
        params={"metrics": ["exact_match"]},
    )
    evaluation.write(run.evaluation_record)
    rule = GateCheck(name="exact_match", observed=0.9, bound=0.8, verdict=verdict, detail="exact_match 0.9, at least 0.8")
    decision = GateDecision(
        evaluation=evaluation.digest,
        training=training.digest,
        adapter_digest=training.adapter_digest,
        policy={"thresholds": {"exact_match": 0.8}},
        checks=(rule,),
        verdict=verdict,
    )
    decision.write(run.decision_record)
    return Candidate(decision, training, evaluation, run_id=digest_bytes(name.encode())[:32], tag=f"run-{name}", run=run)


def _training(run: Workspace, splits: Splits, starts: Starts) -> TrainingRun:
    """One stage, from the first of `starts` or the bare base, that made the adapter which lies in the run's folder."""
    base = BaseModelRef(id="./base", weights="a" * 64, tokenizer="b" * 64, template="c" * 64)
    adapter = describe_files(run.training / "adapter")
    measured = {"steps": 10, "train_loss": 1.5, "eval_loss": 1.6, "train_rows": 3, "trainable_parameters": 128}
    begun = starts.entries[0] if starts.entries else None
    stage = StageRun(
        name="sft",
        objective=Objective.SFT,
        tuner=Tuner.LORA,
        start=begun.adapter_digest if begun else base.digest,
        start_from=f"{begun.name} (version {begun.version})" if begun else "base",
        adapter_digest=digest_value([file.model_dump(mode="json") for file in adapter]),
        kept_step=10,
        counts={},
        measures={},
        alarms=(),
        machine={},
        **measured,
    )
    return TrainingRun(
        splits=splits.digest,
        task=Task.GENERATE,
        base=base,
        params={"rank": 4},
        adapter=adapter,
        versions={"torch": "2.13.0"},
        starts=starts.digest,
        stages=(stage,),
        **measured,
    )


def _curation(run: Workspace, snapshot: Snapshot, validation: ValidationReport) -> Curation:
    dropped = _put(run.curation / "dropped.parquet", b"PAR1 dropped PAR1")
    curation = Curation(
        snapshot=snapshot.digest,
        validation=validation.digest,
        params={},
        rules=(),
        checks=(),
        dropped=_describe(SplitFile, dropped, run.curation, rows=0),
    )
    curation.write(run.curation_record)
    return curation


def _put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _describe(kind: type, path: Path, folder: Path, **more: int):
    return kind(path=path.relative_to(folder).as_posix(), sha256=digest_file(path), bytes=path.stat().st_size, **more)

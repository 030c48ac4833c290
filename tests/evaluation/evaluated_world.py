"""A small evaluated world: real records and files on disk, answers by plain functions instead of models."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

from pipeline.domain.curated import Frozen, SplitFile, Splits, SplitSide
from pipeline.domain.data import Example, ExampleKind, Snapshot, SourceFile, Task, ValidationReport, empty_snapshot, example_id
from pipeline.domain.measured import EvaluationReport
from pipeline.domain.model import BaseModelRef, Champion, StageRun, Starts, TrainingRun
from pipeline.domain.record import canonical_json, describe_files, digest_file, digest_value
from pipeline.domain.tuning import Objective, Tuner
from pipeline.evaluation.rows import Said, SplitRows, read_split
from pipeline.params import EvaluateParams
from pipeline.steps.evaluate import evaluate_rows

LABELS = ("card_lost", "refund", "top_up", "transfer")


@dataclass(frozen=True)
class World:
    """Everything that one evaluation needs, on disk and in records."""

    root: Path
    snapshot: Snapshot
    validation: ValidationReport
    splits: Splits
    training: TrainingRun
    champion: Champion
    rows: SplitRows

    @property
    def adapter(self) -> Path:
        return self.root / "adapter"

    @property
    def champion_adapter(self) -> Path:
        return self.root / "champion"

    def evaluate(self, right: dict[str, float], params: EvaluateParams | None = None, seed: int = 1) -> EvaluationReport:
        """Answer the given share of rows rightly, picked by the seed and the subject, the others with the next label."""
        wrong = dict(zip(LABELS, (*LABELS[1:], LABELS[0]), strict=True))

        def answer(subject: str, asked: SplitRows) -> Said:
            assert asked == self.rows
            rows = len(asked)
            hit = set(random.Random(f"{seed} {subject}").sample(range(rows), round(right[subject] * rows)))
            return Said([e if at in hit else wrong[e] for at, e in enumerate(self.rows.expected)])

        chosen = params or EvaluateParams(metrics=("accuracy", "macro_f1"), slices=("label", "channel"), resamples=400)
        return evaluate_rows(
            self.training, self.champion, self.splits, chosen, self.rows, answer=answer, out=self.root / "evaluation"
        )


def make_world(root: Path, rows: int = 160, *, champion: bool = True, task: Task = Task.CLASSIFY) -> World:
    data = root / "data"
    data.mkdir(parents=True, exist_ok=True)
    examples = [_example(at) for at in range(rows)]
    columns = {name: [getattr(e, name) for e in examples] for name in Example.__slots__}
    kinds = {name: pa.int64() if name == "line" else pa.string() for name in columns}
    table = pa.table({name: pa.array(values, kinds[name]) for name, values in columns.items()})
    parquet.write_table(table, data / "test.parquet")

    def split(name: str, number: int) -> SplitSide:
        path = data / name
        if not path.exists():
            path.write_bytes(b"")
        return SplitSide(parts=(SplitFile(path=name, sha256=digest_file(path), bytes=path.stat().st_size, rows=number),))

    source = SourceFile(name="week1.jsonl", sha256="1" * 64, bytes=9, read=rows + 3, accepted=rows, duplicate=1, quarantined=2)
    snapshot = Snapshot(dataset="support", task=task, parent=None, sources=(source,), shards=(), quarantine=())
    validation = ValidationReport(snapshot=snapshot.digest, rows=rows, suite="5" * 64, checks=())
    splits = Splits(
        snapshot=snapshot.digest,
        validation=validation.digest,
        curation="6" * 64,
        frozen=Frozen().digest,
        reserved=empty_snapshot("support", task).digest,
        params={"test": 0.15},
        train=split("train.parquet", 1000),
        eval=split("eval.parquet", 50),
        test=split("test.parquet", rows),
        labels=LABELS,
    )
    for name in ("adapter", "champion"):
        (root / name).mkdir(exist_ok=True)
        (root / name / "adapter_model.safetensors").write_bytes(f"weights of the {name}".encode())
        (root / name / "tuneline.json").write_text(canonical_json({"task": task}))
    training = make_training(root / "adapter", splits, task)
    held = Champion()
    if champion:
        files = [f.model_dump(mode="json") for f in describe_files(root / "champion")]
        held = Champion(version="3", training="7" * 64, adapter_digest=digest_value(files))
    return World(root, snapshot, validation, splits, training, held, read_split(data, splits.test))


def make_training(adapter: Path, splits: Splits, task: Task = Task.CLASSIFY, **changes: Any) -> TrainingRun:
    values = {
        "splits": splits.digest,
        "task": task,
        "base": BaseModelRef(id="./base", weights="a" * 64, tokenizer="b" * 64),
        "params": {"train": {"rank": 8, "learning_rate": 2e-4}},
        "adapter": describe_files(adapter),
        "steps": 40,
        "train_loss": 0.4,
        "eval_loss": 0.5,
        "train_rows": 1000,
        "trainable_parameters": 12345,
        "versions": {"torch": "2.13.0"},
        "starts": Starts().digest,
        "stages": (_stage(),),
    }
    return TrainingRun(**(values | changes))


def _stage() -> StageRun:
    return StageRun(
        name="classify",
        objective=Objective.CLASSIFY,
        tuner=Tuner.LORA,
        start="a" * 64,
        start_from="base",
        adapter_digest="b" * 64,
        steps=40,
        kept_step=40,
        train_loss=0.4,
        eval_loss=0.5,
        train_rows=1000,
        trainable_parameters=12345,
        counts={},
        measures={"eval_accuracy": 0.9},
        alarms=("the loss on eval rises from step 30",),
        machine={},
    )


def other_training(world: World) -> TrainingRun:
    return world.training.model_copy(update={"steps": 41})


def without_champion(world: World) -> World:
    return replace(world, champion=Champion())


def _example(at: int) -> Example:
    label, text = LABELS[at % len(LABELS)], f"ticket number {at}, please help"
    meta = canonical_json({"channel": ("mail", "chat", "phone")[at % 3]} if at % 5 else {})
    ids = example_id(text, label), digest_value(text)[:32]
    return Example(*ids, text, label, meta, "week1.jsonl", at + 1, ExampleKind.LABEL)

"""The evaluation step end to end: adapters really trained on a tiny base, measured, judged and reported."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest

# The tiny base and its splits belong to the modeling tests; this folder only borrows them.
sys.path.append(str(Path(__file__).parents[1] / "modeling"))
from kinds_kit import Rows, document, preference, ranking, say, write_rows
from modeling_kit import CITIES, build_tiny_base, model_params, run, train_params, write_splits

from pipeline.domain.curated import SplitFile, Splits, SplitSide
from pipeline.domain.data import Snapshot, SourceFile, Task, ValidationReport, messages_to_input
from pipeline.domain.gating import DIFFERS_FROM_BASE, Outcome
from pipeline.domain.measured import EvaluationReport
from pipeline.domain.model import Champion, TrainingRun
from pipeline.domain.record import digest_file
from pipeline.evaluation.rows import read_predictions
from pipeline.params import EvaluateParams, GateParams
from pipeline.params.gate import HoldoutParams
from pipeline.steps.evaluate import evaluate
from pipeline.steps.gate import gate
from pipeline.steps.report import report


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_base(tmp_path_factory.mktemp("evaluated") / "base")


def _evaluate(
    task: Task, metrics: tuple[str, ...], data: Path, splits: Splits, base: Path, work: Path, **params: Any
) -> tuple[EvaluationReport, TrainingRun, Champion]:
    model = model_params(base, task)
    little = train_params(**params | {"max_steps": 2, "learning_rate": 1e-4})
    first = run((data, splits), base, work / "first", params=little, model=model)
    second = run((data, splits), base, work / "second", params=train_params(**params), model=model)
    champion = Champion(version="1", training=first.digest, adapter_digest=first.adapter_digest)
    found = evaluate(
        second,
        champion,
        splits,
        EvaluateParams(metrics=metrics, resamples=300, max_new_tokens=24, batch_size=16),
        model,
        data=data,
        adapter=work / "second" / "out" / "adapter",
        champion_adapter=work / "first" / "out" / "adapter",
        base=base,
        out=work / "evaluation",
    )
    return found, second, champion


def test_labels(base: Path, tmp_path: Path) -> None:
    # The word that tells the label stands last, among fillers that drown it in the bare base's mean embedding.
    random_, words = random.Random(5), {"animal": ["cat", "dog"], "colour": ["red", "blue"]}
    rows = []
    for label in ["animal", "colour"] * 60:
        fillers = " ".join(random_.choice(["please", "about", "where", "maybe", "this", "that"]) for _ in range(9))
        rows.append((f"{fillers} {random_.choice(words[label])}", label))
    data, splits = write_splits(tmp_path, rows[:80], rows[80:], task="classify", labels=("animal", "colour"))
    found, training, champion = _evaluate(
        Task.CLASSIFY, ("accuracy", "macro_f1"), data, splits, base, tmp_path / "work", epochs=6.0, learning_rate=0.02
    )
    assert found.metric("candidate", "accuracy").value > 0.9
    predictions = read_predictions(tmp_path / "work" / "evaluation" / "predictions.parquet", found.predictions)
    for subject in ("candidate", "champion", "base"):
        assert set(predictions.answers[subject]) <= {"animal", "colour"}
    decision = gate(found, training, GateParams(min_test_rows=30, thresholds={"accuracy": 0.7}))
    assert decision.verdict is Outcome.PASSED, [c.detail for c in decision.checks]

    source = SourceFile(name="f", sha256="0" * 64, bytes=1, read=1, accepted=1, duplicate=0, quarantined=0)
    html = report(
        decision,
        found,
        training,
        snapshot=Snapshot(dataset="tiny", task=Task.CLASSIFY, parent=None, sources=(source,), shards=(), quarantine=()),
        validation=ValidationReport(snapshot="0" * 64, rows=1, suite="s", checks=()),
        splits=splits,
        champion=champion,
        predictions=tmp_path / "work" / "evaluation" / "predictions.parquet",
        curves=tmp_path / "work" / "second" / "out" / "curves.jsonl",
        test=data,
    )
    for told in ("Passed: all", "Loss", "Learning rate", "Gradient norm", "train.learning_rate"):
        assert told in html


def test_answers(base: Path, tmp_path: Path) -> None:
    rows = []
    for n, (city, land) in enumerate(sorted(CITIES.items()) * 7):
        rows.append((messages_to_input([{"role": "user", "content": f"Where is {city}? {n}"}]), f"It is in {land}."))
    data, splits = write_splits(tmp_path, rows[:30], rows[30:], task="generate")
    found, training, _ = _evaluate(
        Task.GENERATE, ("token_f1", "exact_match"), data, splits, base, tmp_path / "work", epochs=12.0, learning_rate=0.02
    )
    assert found.rows == 12
    # A base of random weights learns how answers begin, which is more than the bare base knows.
    answers = read_predictions(tmp_path / "work" / "evaluation" / "predictions.parquet", found.predictions).answers
    assert all(answer.startswith("It is in") for answer in answers["candidate"])
    assert found.metric("candidate", "token_f1").value > found.metric("base", "token_f1").value + 0.1
    assert found.metric("candidate", DIFFERS_FROM_BASE).value > 0
    assert found.comparison("champion", "token_f1") is not None
    policy = GateParams(
        holdout=HoldoutParams(spending="off"),
        min_test_rows=10,
        not_worse_than_champion={"token_f1": 0.0},
        better_than_base={"token_f1": 0.0},
    )
    decision = gate(found, training, policy)
    assert decision.verdict is Outcome.PASSED, [c.detail for c in decision.failed]
    assert gate(found, training, policy.model_copy(update={"min_test_rows": 13})).verdict is Outcome.INSUFFICIENT


def _write(folder: Path, **sides: Rows) -> Splits:
    """Split files of rows of any kind, and the record of them."""
    found = {}
    for name, rows in sides.items():
        path = write_rows(folder / f"{name}.parquet", rows)
        file = SplitFile(path=path.name, sha256=digest_file(path), bytes=path.stat().st_size, rows=len(rows))
        found[name] = SplitSide(parts=(file,))
    before = dict.fromkeys(("snapshot", "validation", "curation", "frozen", "reserved"), "0" * 64)
    return Splits(**before, params={}, **found)


def test_pairs_and_texts_gate_a_chain_that_prefers(base: Path, tmp_path: Path) -> None:
    cities = sorted(CITIES.items()) * 8
    pairs = [preference(f"Where is {city}? {n}", f"It is in {land}.", "No idea at all.") for n, (city, land) in enumerate(cities)]
    # A side that goes on, and a ranking, are weighed among them.
    going_on = [*say("It is in Peru."), {"role": "user", "content": "Sure?"}, *say("Yes.")]
    pairs += [
        preference("Where is Lima? Say.", going_on, say("No idea.")),
        ranking("Where is Rome?", "It is in Italy.", "What?", "?"),
    ]
    texts = [document(f"{city} is in {land}. {n}") for n, (city, land) in enumerate(cities[:8])]
    splits = _write(tmp_path, train=pairs[:36], eval=pairs[36:40], test=[*pairs[36:], *texts])
    found, training, _ = _evaluate(
        Task.GENERATE,
        ("prefers_chosen", "text_likelihood"),
        tmp_path,
        splits,
        base,
        tmp_path / "work",
        objective="dpo",
        epochs=6.0,
        learning_rate=0.01,
    )
    assert (found.rows, found.counted) == (22, {"prefers_chosen": 14, "text_likelihood": 8})
    assert found.metric("candidate", "prefers_chosen").value > 0.9
    assert found.metric("candidate", "prefers_chosen").value > found.metric("base", "prefers_chosen").value
    assert 0 < found.metric("base", "text_likelihood").value < 1
    answers = read_predictions(tmp_path / "work" / "evaluation" / "predictions.parquet", found.predictions).answers
    lengths = [len(json.loads(answer)) for answer in answers["candidate"]]
    assert lengths == [2] * 13 + [3] + [1] * 8
    policy = GateParams(min_test_rows=14, thresholds={"prefers_chosen": 0.6}, better_than_base={"prefers_chosen": 0.0})
    decision = gate(found, training, policy)
    assert decision.verdict is Outcome.PASSED, [c.detail for c in decision.failed]

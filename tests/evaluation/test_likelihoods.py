"""Rows that are weighed, not answered: what is asked of them, the metrics on them, and a project with rows of both sorts."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from evaluated_world import make_world
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.data import ExampleKind, Task, ValidationReport, messages_to_input
from pipeline.domain.gating import DIFFERS_FROM_BASE, Outcome
from pipeline.domain.record import canonical_json
from pipeline.errors import Broken
from pipeline.evaluation.likelihoods import prefers_chosen, text_likelihood, weigh
from pipeline.evaluation.rows import Said, SplitRows, read_predictions
from pipeline.params import EvaluateParams, GateParams
from pipeline.steps.evaluate import asked_kinds, evaluate_rows
from pipeline.steps.gate import gate
from pipeline.steps.report import report

ASKED = messages_to_input([{"role": "user", "content": "Hi"}])


def _says(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


def test_every_text_of_every_row_is_asked_at_once_and_in_order() -> None:
    chosen, rejected = [_says("Hello!"), {"role": "user", "content": "Bye"}, _says("Bye!")], [_says("What?")]
    rows = [
        (ASKED, canonical_json({"chosen": chosen, "rejected": rejected}), ExampleKind.PREFERENCE),
        (ASKED, canonical_json({"answers": ["best", "good", "bad"]}), ExampleKind.RANKING),
        ("", "A whole document.", ExampleKind.TEXT),
    ]
    calls: list[tuple[list[str], list[str]]] = []

    def log_probs(inputs: list[str], outputs: list[str]) -> list[float]:
        calls.append((inputs, outputs))
        return [-float(at) for at in range(len(inputs))]

    said = weigh(*(list(column) for column in zip(*rows, strict=True)), log_probs)
    assert len(calls) == 1
    inputs, outputs = calls[0]
    assert outputs == ["Hello!", "Bye!", "What?", "best", "good", "bad", "A whole document."]
    # Each turn is weighed behind all that was said before it, the earlier turns of its own side among them.
    assert json.loads(inputs[1]) == [{"content": "Hi", "role": "user"}, *chosen[:2]]
    assert inputs[0] == inputs[2] == inputs[3] == ASKED
    assert inputs[6] == ""
    assert [json.loads(one) for one in said] == [[-0.5, -2.0], [-3.0, -4.0, -5.0], [-6.0]]


def test_tools_on_offer_and_calls_are_kept() -> None:
    offered = canonical_json({"messages": [{"role": "user", "content": "Hi"}], "tools": [{"name": "t"}]})
    calls = {"role": "assistant", "content": "", "tool_calls": [{"name": "t"}]}
    row = canonical_json({"chosen": [calls], "rejected": [_says("no")]})
    seen: list[list[str]] = []

    def log_probs(inputs: list[str], outputs: list[str]) -> list[float]:
        seen.extend([inputs, outputs])
        return [-1.0, -2.0]

    weigh([offered], [row], [ExampleKind.PREFERENCE], log_probs)
    assert json.loads(seen[0][0])["tools"] == [{"name": "t"}]
    assert json.loads(seen[1][0]) == {"content": "", "tool_calls": [{"name": "t"}]}


@pytest.mark.parametrize(
    ("numbers", "score"),
    [([-1, -2], 1), ([-2, -1], 0), ([-1, -1], 0.5), ([-1, -2, -1.5], 0.5), ([-1, -2, -3], 1), ([-1, -1, -3], 0.75)],
)
def test_prefers_chosen(numbers: list[float], score: float) -> None:
    assert prefers_chosen("", json.dumps(numbers)) == score


@given(st.lists(st.floats(-50, 0), min_size=2, max_size=6))
def test_what_is_weighed_is_a_share_and_the_other_way_round_is_the_rest(numbers: list[float]) -> None:
    there, back = prefers_chosen("", json.dumps(numbers)), prefers_chosen("", json.dumps(numbers[::-1]))
    assert 0 <= there <= 1
    assert there + back == pytest.approx(1)
    assert 0 <= text_likelihood("", json.dumps(numbers[:1])) <= 1


def test_text_likelihood_is_one_over_perplexity() -> None:
    assert text_likelihood("", "[-2.0]") == pytest.approx(1 / math.exp(2.0))


@pytest.mark.parametrize("said", ["", "[]", "[-1]", "[NaN,-1]", "hello", "null", '["a","b"]'])
def test_what_are_no_log_probabilities_is_broken(said: str) -> None:
    with pytest.raises(Broken, match="log-probabilities"):
        prefers_chosen("", said)


def test_rows_of_both_sorts_are_each_counted_by_their_own_metric(tmp_path: Path) -> None:
    world = make_world(tmp_path, 160, task=Task.GENERATE)
    # Every fourth row is a pair: the candidate prefers nine of ten better answers, the base half of them.
    pair = canonical_json({"chosen": [_says("yes")], "rejected": [_says("no")]})
    kinds = [ExampleKind.PREFERENCE if at % 4 == 0 else ExampleKind.ANSWER for at in range(160)]
    expected = [pair if kind == ExampleKind.PREFERENCE else text for kind, text in zip(kinds, world.rows.expected, strict=True)]
    rows = replace(world.rows, kinds=kinds, expected=expected)

    def answer(subject: str, asked: SplitRows) -> Said:
        assert asked == rows
        said = []
        for at, (kind, text) in enumerate(zip(asked.kinds, asked.expected, strict=True)):
            right = at % (40 if subject == "candidate" else 8) != 0
            if kind == ExampleKind.PREFERENCE:
                said.append("[-1.0,-2.0]" if right else "[-2.0,-1.0]")
            else:
                said.append(text if subject == "candidate" else "who knows")
        return Said(said)

    params = EvaluateParams(metrics=("prefers_chosen", "exact_match"), slices=("source",), resamples=300)
    found = evaluate_rows(world.training, world.champion, world.splits, params, rows, answer=answer, out=tmp_path / "evaluation")
    assert (found.rows, found.counted) == (160, {"prefers_chosen": 40, "exact_match": 120})
    assert found.metric("candidate", "prefers_chosen").value == pytest.approx(0.9)
    assert found.metric("base", "prefers_chosen").value == pytest.approx(0.5)
    assert found.metric("candidate", "prefers_chosen").rows == 40
    assert found.metric("candidate", "exact_match").value == 1
    assert found.metric("candidate", "exact_match").rows == 120
    assert found.metric("candidate", DIFFERS_FROM_BASE).rows == 160
    assert found.comparison("base", "prefers_chosen").difference == pytest.approx(0.4)
    assert [(s.value, s.rows, s.metric) for s in found.slices if s.subject == "base"] == [("week1.jsonl", 40, "prefers_chosen")]

    predictions = read_predictions(tmp_path / "evaluation" / "predictions.parquet", found.predictions)
    scores = predictions.scores["candidate", "prefers_chosen"]
    assert [score is None for score in scores] == [kind != ExampleKind.PREFERENCE for kind in kinds]

    # What is enough is judged by the rows of the first metric, and nothing is "measured on too few" for being of one sort.
    asks = {"thresholds": {"exact_match": 0.9}, "better_than_base": {"prefers_chosen": 0.1}}
    decision = gate(found, world.training, GateParams(min_test_rows=40, parity=(), **asks))
    assert decision.verdict is Outcome.PASSED, [c.detail for c in decision.checks]
    assert gate(found, world.training, GateParams(min_test_rows=41, **asks)).verdict is Outcome.INSUFFICIENT
    short = found.model_copy(update={"counted": {"prefers_chosen": 41, "exact_match": 120}})
    refused = {c.name for c in gate(short, world.training, GateParams(min_test_rows=40, parity=(), **asks)).failed}
    assert refused == {"better_than_base.prefers_chosen"}

    html = report(
        decision,
        found,
        world.training,
        snapshot=world.snapshot,
        validation=ValidationReport(snapshot="0" * 64, rows=1, suite="s", checks=()),
        splits=world.splits,
        champion=world.champion,
        predictions=tmp_path / "evaluation" / "predictions.parquet",
        curves=tmp_path / "curves.jsonl",
    )
    assert "Prefers chosen" in html
    assert "Rows that the candidate won" in html


def test_a_metric_without_a_row_of_its_kind_is_insufficient(tmp_path: Path) -> None:
    world = make_world(tmp_path, 60, task=Task.GENERATE)
    rows = replace(world.rows, kinds=[ExampleKind.ANSWER] * 60)

    def answer(subject: str, asked: SplitRows) -> Said:
        return Said([text if subject == "candidate" else "?" for text in asked.expected])

    params = EvaluateParams(metrics=("exact_match", "prefers_chosen"), resamples=200)
    found = evaluate_rows(world.training, world.champion, world.splits, params, rows, answer=answer, out=tmp_path / "evaluation")
    decision = gate(
        found, world.training, GateParams(min_test_rows=50, thresholds={"exact_match": 0.5, "prefers_chosen": 0.1}, parity=())
    )
    assert {c.name: c.verdict for c in decision.failed} == {"thresholds.prefers_chosen": Outcome.INSUFFICIENT}


def test_rows_asked_are_those_that_metrics_count() -> None:
    assert asked_kinds(("exact_match", "json_valid")) == {ExampleKind.ANSWER, ExampleKind.CALL}
    assert asked_kinds(("accuracy",)) == {ExampleKind.LABEL}
    assert ExampleKind.TEXT in asked_kinds(("exact_match", "text_likelihood"))

"""The ladder: each rung says what its rows say, the same whatever their order, and none breaks on rows that teach nothing."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from pipeline.domain.data import ExampleKind, Task, example_id
from pipeline.domain.measured import Rung
from pipeline.domain.record import canonical_json
from pipeline.evaluation.ladder import climb, fit, identity, looked_among
from pipeline.evaluation.ladder.answering import spread
from pipeline.evaluation.rows import Said, SplitRows
from pipeline.params.evaluate import LadderParams

SUBJECTS = {"card": ["card", "visa", "plastic"], "money": ["cash", "dollar", "coins"], "app": ["phone", "screen", "login"]}


def rows(pairs: Sequence[tuple[str, str]], kind: str = ExampleKind.LABEL, sources: Sequence[str] = ()) -> SplitRows:
    ids = [example_id(*pair) for pair in pairs]
    origins = list(sources) or ["a.jsonl"] * len(pairs)
    return SplitRows(ids, ids, [p[0] for p in pairs], [p[1] for p in pairs], ["{}"] * len(ids), origins, [kind] * len(ids))


def labelled(number: int, seed: int = 1) -> SplitRows:
    drawn = random.Random(seed)
    pairs = []
    for at in range(number):
        label = sorted(SUBJECTS)[at % 3]
        pairs.append((f"I asked about the {drawn.choice(SUBJECTS[label])} {drawn.choice(SUBJECTS[label])} number {at}", label))
    return rows(pairs)


def embed(texts: Sequence[str]) -> np.ndarray:
    """Counts of each subject's words, and of the subject's name: a base that knows what words mean."""
    return np.array(
        [[sum(text.count(word) for word in (*words, label)) for label, words in sorted(SUBJECTS.items())] for text in texts],
        np.float32,
    )


def said(rung: Rung, train: SplitRows, asked: SplitRows, **changes: object) -> Said | None:
    options = {"task": Task.CLASSIFY, "shots": 3, "ask_base": None, "embed": embed, "seed": 7} | changes
    return climb(rung, train, asked, **options)


def chat(*turns: tuple[str, str]) -> str:
    return canonical_json([{"role": role, "content": content} for role, content in turns])


def share_right(found: Said | None, asked: SplitRows) -> float:
    assert found is not None
    return sum(a == b for a, b in zip(found.texts, asked.expected, strict=True)) / len(asked)


@pytest.mark.parametrize("rung", [Rung.LINEAR, Rung.NEIGHBOUR, Rung.ZERO_SHOT, Rung.FEW_SHOT, Rung.RETRIEVAL])
def test_labels_that_words_tell_are_found(rung: Rung) -> None:
    asked = labelled(60, seed=2)
    assert share_right(said(rung, labelled(120), asked), asked) > 0.95
    assert share_right(said(Rung.MAJORITY, labelled(120), asked), asked) == pytest.approx(1 / 3)


@pytest.mark.parametrize("rung", list(Rung))
def test_order_and_repeats_change_nothing_and_one_row_is_said_as_among_all(rung: Rung) -> None:
    train, asked = labelled(90), labelled(30, seed=3)
    ask = fit(rung, train, task=Task.CLASSIFY, shots=3, ask_base=None, embed=embed, seed=7)
    assert ask is not None
    places = random.Random(4).sample(range(len(train)), len(train))
    assert said(rung, train.only(places), asked) == ask(asked)
    assert [ask(asked.only([at])).texts[0] for at in range(5)] == list(ask(asked).texts)[:5]
    assert ask(asked.only([])).texts in ([], ())


def test_confidences_are_shares_of_what_was_seen_or_none() -> None:
    train = rows([("x", "a"), ("y", "a"), ("z", "b")])
    assert said(Rung.MAJORITY, train, rows([("q", "b")])) == Said(["a"], [2 / 3])
    assert said(Rung.LINEAR, train, rows([("x", "a")])).confidences is None
    seen = said(Rung.RETRIEVAL, rows([("card", "a"), ("card visa", "a"), ("card cash", "b")]), rows([("card", "a")]))
    assert seen == Said(["a"], [2 / 3])


@pytest.mark.parametrize("rung", list(Rung))
@pytest.mark.parametrize("task", list(Task))
def test_nothing_to_learn_from(rung: Rung, task: Task) -> None:
    assert said(rung, rows([]), rows([("q", "a")]), task=task) is None
    kind = ExampleKind.TEXT if task is Task.GENERATE else ExampleKind.ANSWER
    assert said(rung, rows([("x", "a")], kind), rows([("q", "a")]), task=task) is None


@pytest.mark.parametrize("rung", list(Rung))
def test_one_label_blank_texts_and_texts_in_any_script(rung: Rung) -> None:
    odd = rows([("", "a"), ("   ", "a"), ("退款", "a"), ("\x00", "a"), ("🙂", "a")])
    assert list(said(rung, odd, odd).texts) == ["a"] * 5
    two = rows([("", "a"), ("退款请求", "b"), ("我要退款请求", "b"), ("?!", "a")])
    assert set(said(rung, two, rows([("请求退款", "b"), ("", "a")])).texts) <= {"a", "b"}
    assert said(Rung.NEIGHBOUR, two, rows([("请求退款", "b")])).texts == ["b"]


def test_what_has_nothing_in_common_gets_the_commonest() -> None:
    train = rows([("aaa", "rare"), ("bbb", "often"), ("ccc", "often")])
    assert said(Rung.NEIGHBOUR, train, rows([("zzz", "?")])).texts == ["often"]


def answered(pairs: Sequence[tuple[str, str]], sources: Sequence[str] = ()) -> SplitRows:
    return rows([(chat(("user", asked)), answer) for asked, answer in pairs], ExampleKind.ANSWER, sources)


def test_answers_of_the_commonest_and_of_the_nearest_row() -> None:
    train = answered([("where is my parcel", "On its way."), ("pay me back", "We refund."), ("my money back", "We refund.")])
    asked = answered([("where is the parcel now", "On its way.")])
    options = {"task": Task.GENERATE, "embed": None}
    assert said(Rung.MAJORITY, train, asked, **options).texts == ["We refund."]
    assert said(Rung.NEIGHBOUR, train, asked, **options).texts == ["On its way."]
    for rung in (Rung.LINEAR, Rung.ZERO_SHOT, Rung.FEW_SHOT, Rung.RETRIEVAL):
        assert said(rung, train, asked, **options) is None, "no use for it, or nobody to ask"


def test_shots_are_earlier_turns_behind_the_questions_own_system_message() -> None:
    heard: list[list[str]] = []

    def base(inputs: list[str]) -> list[str]:
        heard.append(inputs)
        return ["yes"] * len(inputs)

    train = answered([(f"question {word}", f"answer {word}") for word in ("one", "two", "three", "four")])
    asked = rows(
        [
            (chat(("system", "be kind"), ("user", "hello"), ("assistant", "hi"), ("user", "question two please")), "?"),
            (chat(("user", "question four please")), "?"),
        ],
        ExampleKind.ANSWER,
    )
    options = {"task": Task.GENERATE, "ask_base": base, "shots": 2}
    assert said(Rung.FEW_SHOT, train, asked, **options).texts == ["yes", "yes"]
    first, second = (json.loads(text) for text in heard[0])
    assert [m["role"] for m in first] == ["system", *["user", "assistant"] * 3, "user"]
    assert first[1:5] == second[:4], "the same rows stand before every question"
    assert said(Rung.RETRIEVAL, train, asked, **options) is not None
    first, second = (json.loads(text) for text in heard[1])
    assert first[4]["content"] == "answer two", "the nearest stands next to the question"
    assert second[3]["content"] == "answer four"


def test_shots_keep_calls_and_the_questions_tools() -> None:
    call = {"content": "", "tool_calls": [{"type": "function", "function": {"name": "find", "arguments": {"q": "x"}}}]}
    tools = [{"type": "function", "function": {"name": "find"}}]
    user = [{"role": "user", "content": "find x"}]
    train = rows([(canonical_json({"messages": user, "tools": tools}), canonical_json(call))], ExampleKind.CALL)
    heard: list[str] = []
    ask = fit(
        Rung.FEW_SHOT,
        train,
        task=Task.GENERATE,
        shots=4,
        ask_base=lambda inputs: heard.extend(inputs) or ["."] * len(inputs),
        embed=None,
        seed=1,
    )
    assert ask is not None
    other = rows([("not read", '{"chosen":[]}')], ExampleKind.PREFERENCE)
    both = SplitRows(*(list(a) + list(b) for a, b in zip(*(map(_columns, (train, other))), strict=True)))
    assert ask(both).texts == [".", ""], "rows that are weighed are no questions"
    (asked,) = map(json.loads, heard)
    assert asked["tools"] == tools
    assert asked["messages"] == [*user, {"role": "assistant", **call}, *user]


def _columns(of: SplitRows) -> tuple[list[str], ...]:
    return of.ids, of.groups, of.inputs, of.expected, of.meta, of.sources, of.kinds


def test_shots_are_spread_over_sources_without_repeats_and_without_the_longest() -> None:
    pairs = [("often", f"a{at}") for at in range(30)] + [("rare", "b1"), ("rare", "b2"), ("x" * 9000, "c")]
    train = answered(pairs, sources=["big"] * 30 + ["small"] * 2 + ["small"])
    repeated = train.only([*range(33), 30, 30])
    picked = spread(repeated, 6, seed=3)
    assert sorted({repeated.sources[at] for at in picked}) == ["big", "small"]
    assert len({repeated.ids[at] for at in picked}) == 6
    assert "c" not in [repeated.expected[at] for at in picked]
    assert spread(repeated, 6, seed=4) != picked
    assert len(spread(answered([("x" * 9000, "c")]), 6, seed=3)) == 1, "long rows are shown where there are no others"


def test_what_a_rung_is_made_of_names_it() -> None:
    train, params = labelled(30), LadderParams()
    made = identity(Rung.FEW_SHOT, train, params, seed=7, base="b")
    assert made == identity(Rung.FEW_SHOT, train.only(list(range(29, -1, -1))), params, seed=7, base="b")
    others = {
        identity(Rung.RETRIEVAL, train, params, seed=7, base="b"),
        identity(Rung.FEW_SHOT, train, params, seed=7, base="c"),
        identity(Rung.FEW_SHOT, train, LadderParams(shots=5), seed=7, base="b"),
        identity(Rung.FEW_SHOT, train.only(list(range(29))), params, seed=7, base="b"),
    }
    assert len({made, *others}) == 5
    plain = identity(Rung.MAJORITY, train, params, seed=7, base="b")
    assert plain == identity(Rung.MAJORITY, train, params, seed=7, base="c"), "no model is asked"
    assert looked_among(train, Task.CLASSIFY, 10).ids == sorted(train.ids)[:10]


@pytest.mark.real
def test_a_linear_classifier_on_banking77(real_data: Path) -> None:
    with (real_data / "banking77" / "train.csv").open(newline="", encoding="utf-8") as file:
        found = rows(list({row["text"]: (row["text"], row["category"]) for row in csv.DictReader(file)}.values()))
    order = sorted(range(len(found)), key=lambda at: found.ids[at])
    asked, train = found.only(order[:1500]), found.only(order[1500:])
    assert share_right(said(Rung.LINEAR, train, asked), asked) == pytest.approx(0.91, abs=0.015)
    assert 0.7 < share_right(said(Rung.NEIGHBOUR, train, asked), asked) < 0.85

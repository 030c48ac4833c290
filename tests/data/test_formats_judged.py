"""Preference pairs, feedback and rankings, however their prompt is said."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.curation.formats import Parts, read_parts
from pipeline.curation.reasons import Code, Rejected
from pipeline.params import Reading

WORDS = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=12)
Turns = list[dict[str, Any]]


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def answer(content: str) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def pair(**row: Any) -> Parts:
    return read_parts(row, "preference", Reading())


def transcript(turns: Turns) -> str:
    return "".join(f"\n\n{'Human' if turn['role'] == 'user' else 'Assistant'}: {turn['content']}" for turn in turns)


@given(st.lists(st.tuples(WORDS, WORDS), max_size=3), WORDS, WORDS, WORDS)
def test_one_pair_in_every_spelling(history: list[tuple[str, str]], question: str, good: str, bad: str) -> None:
    prompt = [turn for q, a in history for turn in (user(q), answer(a))] + [user(question)]
    bad += "!"
    spelled = [
        pair(prompt=prompt, chosen=good, rejected=bad),
        pair(prompt=prompt, chosen=[answer(good)], rejected=[answer(bad)]),
        pair(messages=prompt, chosen=answer(good), rejected=answer(bad)),
        pair(conversations=prompt, chosen={"from": "gpt", "value": good}, rejected={"from": "gpt", "value": bad}),
        pair(chosen=[*prompt, answer(good)], rejected=[*prompt, answer(bad)]),
        pair(chosen_messages=[*prompt, answer(good)], rejected_messages=[*prompt, answer(bad)]),
        pair(prompt=question, chosen=[*prompt, answer(good)], rejected=[*prompt, answer(bad)]),
        pair(chosen=transcript([*prompt, answer(good)]), rejected=transcript([*prompt, answer(bad)])),
        pair(prompt=transcript(prompt) + "\n\nAssistant:", chosen=f" {good}".strip(), rejected=bad),
        pair(instruction=question, history=history and [list(turn) for turn in history], chosen=good, rejected=bad),
    ]
    if not history:
        spelled.append(pair(prompt=question, chosen=good, rejected=bad))
    first = spelled[0]
    assert all(one == first for one in spelled)
    assert first.kind == "preference"
    assert json.loads(first.input) == prompt
    assert json.loads(first.output) == {"chosen": [answer(good)], "rejected": [answer(bad)]}


def test_dialogues_may_go_on_differently() -> None:
    begun = [user("q")]
    parts = pair(chosen=[*begun, answer("a"), user("r"), answer("b")], rejected=[*begun, answer("x")])
    assert json.loads(parts.input) == begun
    assert json.loads(parts.output) == {"chosen": [answer("a"), user("r"), answer("b")], "rejected": [answer("x")]}


def test_a_pair_keeps_its_system_scores_and_tools() -> None:
    parts = pair(prompt="q", system="s", chosen="a", rejected="b", score_chosen=9, tools=[{"name": "f"}])
    input = json.loads(parts.input)
    assert input["messages"][0] == {"role": "system", "content": "s"}
    assert input["tools"][0]["function"]["name"] == "f"
    assert json.loads(parts.meta) == {"score_chosen": "9"}


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"prompt": "q", "chosen": "a", "rejected": "a"}, Code.BAD_PAIR),
        ({"chosen": "a", "rejected": "b"}, Code.BAD_PAIR),
        ({"chosen": [answer("a")], "rejected": [answer("b")]}, Code.BAD_PAIR),
        ({"chosen": [user("q"), answer("a")], "rejected": [user("r"), answer("b")]}, Code.BAD_PAIR),
        ({"chosen": [user("q"), answer("a")], "rejected": [user("q"), answer("a")]}, Code.BAD_PAIR),
        ({"chosen": [user("q"), answer("a")], "rejected": [user("q")]}, Code.BAD_PAIR),
        (
            {
                "chosen": [user("q"), answer("a"), user("r"), answer("b")],
                "rejected": [user("q"), answer("a"), user("s"), answer("c")],
            },
            Code.BAD_PAIR,
        ),
        ({"prompt": "z", "chosen": [user("q"), answer("a")], "rejected": [user("q"), answer("b")]}, Code.BAD_PAIR),
        ({"prompt": "q", "chosen": None, "rejected": "b"}, Code.BLANK),
        ({"prompt": "q", "chosen": [], "rejected": "b"}, Code.BLANK),
        ({"prompt": "q", "chosen": 5, "rejected": "b"}, Code.WRONG_TYPE),
        ({"prompt": "q", "chosen": [user("x")], "rejected": [user("y")]}, Code.BAD_PAIR),
        ({"prompt": [user("q"), answer("a")], "chosen": "a", "rejected": "b"}, Code.BAD_CHAT),
        ({"chosen": "\n\nHuman: q\n\nAssistant:", "rejected": "\n\nHuman: q\n\nAssistant: b"}, Code.BAD_PAIR),
        ({"chosen": "\n\nHuman: \n\nAssistant: a", "rejected": "\n\nHuman: \n\nAssistant: b"}, Code.BLANK),
        (
            {"chosen": transcript([user("q"), answer("a"), user("r")]), "rejected": transcript([user("q"), answer("b")])},
            Code.BAD_CHAT,
        ),
        ({"chosen": "a"}, Code.MISSING_FIELD),
    ],
)
def test_pairs_that_are_none(row: dict[str, Any], code: Code) -> None:
    with pytest.raises(Rejected) as caught:
        pair(**row)
    assert caught.value.code is code


def feedback(**row: Any) -> Parts:
    return read_parts(row, "feedback", Reading())


@pytest.mark.parametrize(
    ("said", "good"), [(True, True), (False, False), ("true", True), ("False", False), (1, True), ("0", False)]
)
def test_one_judgement_in_every_spelling(said: Any, good: bool) -> None:
    spelled = [
        feedback(prompt="q", completion="a", label=said),
        feedback(prompt="q", completion="a", kto_tag=said),
        feedback(messages=[user("q"), answer("a")], label=said),
        feedback(messages=[user("q"), answer("a")], kto_tag=said),
        feedback(conversations=[{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], kto_tag=said),
        feedback(instruction="q", output="a", kto_tag=said),
        feedback(prompt=[user("q")], completion=[answer("a")], label=said),
        feedback(completion=[user("q"), answer("a")], label=said),
    ]
    assert all(one == spelled[0] for one in spelled)
    assert json.loads(spelled[0].output) == {"answer": "a", "good": good}
    assert spelled[0].kind == "feedback"


@pytest.mark.parametrize(
    ("label", "code"),
    [
        (None, Code.BLANK),
        ("", Code.BLANK),
        ("maybe", Code.WRONG_TYPE),
        (2, Code.WRONG_TYPE),
        (0.5, Code.WRONG_TYPE),
        ([], Code.WRONG_TYPE),
    ],
)
def test_judgements_that_are_none(label: Any, code: Code) -> None:
    with pytest.raises(Rejected) as caught:
        feedback(prompt="q", completion="a", label=label)
    assert caught.value.code is code


def test_feedback_is_about_answers_not_calls() -> None:
    calls = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
    with pytest.raises(Rejected) as caught:
        feedback(messages=[user("q"), calls], label=True)
    assert caught.value.code is Code.UNSUPPORTED


def ranking(**row: Any) -> Parts:
    return read_parts({"prompt": "q", **row}, "ranking", Reading())


@given(st.lists(WORDS, min_size=2, max_size=6, unique=True), st.randoms())
def test_one_ranking_in_every_spelling(best_first: list[str], random: Any) -> None:
    order = list(range(len(best_first)))
    random.shuffle(order)
    shuffled = [best_first[i] for i in order]
    spelled = [
        ranking(ranked=best_first),
        ranking(responses=shuffled, ranks=[i + 1 for i in order]),
        ranking(answers=shuffled, scores=[-0.5 * i for i in order]),
        ranking(responses=shuffled, scores=[str(10 - i) for i in order]),
        ranking(answers=[{"answer": text, "rank": float(i)} for text, i in zip(shuffled, order, strict=True)]),
        ranking(completions=[{"response": text, "overall_score": 5 - i} for text, i in zip(shuffled, order, strict=True)]),
    ]
    assert all(one == spelled[0] for one in spelled)
    assert spelled[0].kind == "ranking"
    assert json.loads(spelled[0].output) == {"answers": best_first}


def test_answers_that_tie_are_counted_and_the_first_is_kept() -> None:
    parts = ranking(responses=["a", "b", "c"], scores=[1, 2, 2])
    assert json.loads(parts.output) == {"answers": ["b", "a"]}
    assert json.loads(parts.meta) == {"tied": "1"}


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"responses": ["a", "b"]}, Code.BAD_RANKING),
        ({"responses": ["a", "b"], "scores": [1, 1]}, Code.BAD_RANKING),
        ({"responses": ["a", "b"], "scores": [1]}, Code.BAD_RANKING),
        ({"responses": ["a", "b"], "ranks": [1, None]}, Code.BLANK),
        ({"responses": ["a", "b"], "ranks": [1, True]}, Code.WRONG_TYPE),
        ({"responses": ["a", "b"], "ranks": [1, "x"]}, Code.WRONG_TYPE),
        ({"ranked": ["a"]}, Code.BAD_RANKING),
        ({"ranked": ["a", None]}, Code.BLANK),
        ({"ranked": "a"}, Code.WRONG_TYPE),
        ({"ranked": [{"rank": 1}, {"rank": 2}]}, Code.WRONG_TYPE),
    ],
)
def test_rankings_that_are_none(row: dict[str, Any], code: Code) -> None:
    with pytest.raises(Rejected) as caught:
        ranking(**row)
    assert caught.value.code is code

"""Rules across rows, one by one: which rows repeat, contradict, nearly repeat, or flood the data."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from curate_kit import CurateBench, Row, answer, asks, check, count, feedback, label
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.curation.rules.meaning import asked_and_said, compared_text, texts_of
from pipeline.curation.rules.provenance import surplus
from pipeline.curation.rules.repeats import first_of_equal
from pipeline.domain.data import ExampleKind, Task
from pipeline.domain.record import canonical_json

WORDS = [f"{a}{b}{c}" for a in "bdfgklm" for b in "aeiou" for c in "lmnrst"]


def row(kind: ExampleKind, input: str, output: str) -> Row:
    return {"kind": kind, "input": input, "output": output}


def preference(prompt: str, chosen: str, rejected: str) -> Row:
    sides = {"chosen": [{"content": chosen, "role": "assistant"}], "rejected": [{"content": rejected, "role": "assistant"}]}
    return row(ExampleKind.PREFERENCE, asks(prompt), canonical_json(sides))


def ranking(prompt: str, *answers: str) -> Row:
    return row(ExampleKind.RANKING, asks(prompt), canonical_json({"answers": list(answers)}))


def call(prompt: str, city: str) -> Row:
    called = {"function": {"arguments": canonical_json({"city": city}), "name": "weather"}, "type": "function"}
    return row(ExampleKind.CALL, asks(prompt), canonical_json({"content": None, "tool_calls": [called]}))


@pytest.mark.parametrize(
    ("first", "second", "relation"),
    [
        (answer("Hi", "Yes"), answer(" hi ", "YES"), "repeats"),
        (answer("Hi", "Yes"), answer("hi", "No"), "contradicts"),
        (answer("Hi", "Yes"), answer("Hi!", "No"), "differs"),
        (answer("e\u0301", "x"), answer("\u00e9", "x"), "repeats"),
        (label("lost card", "a"), label("LOST  card", "a"), "repeats"),
        (label("lost card", "a"), label("LOST  card", "b"), "contradicts"),
        (feedback("q", "a", True), feedback("q", "A", True), "repeats"),
        (feedback("q", "a", True), feedback("q", "a", False), "contradicts"),
        (feedback("q", "a", True), feedback("q", "b", False), "differs"),
        (preference("q", "a", "b"), preference("q", "b", "a"), "contradicts"),
        (preference("q", "a", "b"), preference("q", "A", "b"), "repeats"),
        (preference("q", "a", "b"), preference("q", "a", "c"), "differs"),
        (ranking("q", "a", "b", "c"), ranking("q", "a", "c", "b"), "contradicts"),
        (ranking("q", "a", "b"), ranking("q", "a", "b", "c"), "differs"),
        (call("weather?", "Rome"), call("Weather?", "Rome"), "repeats"),
        (call("weather?", "Rome"), call("weather?", "Oslo"), "contradicts"),
        (row(ExampleKind.TEXT, "", "A text"), row(ExampleKind.TEXT, "", "a  text"), "repeats"),
        (row(ExampleKind.TEXT, "", "one"), row(ExampleKind.TEXT, "", "two"), "differs"),
        (row(ExampleKind.PROMPT, asks("q"), ""), row(ExampleKind.PROMPT, asks("Q"), ""), "repeats"),
        (answer("q", "a"), row(ExampleKind.PROMPT, asks("q"), ""), "differs"),
        (answer("q", "a"), feedback("q", "a", False), "differs"),
    ],
)
def test_what_repeats_and_what_contradicts(tmp_path: Path, first: Row, second: Row, relation: str) -> None:
    task = Task.CLASSIFY if first["kind"] is ExampleKind.LABEL else Task.GENERATE
    made = CurateBench(tmp_path, [first, second], task=task).curate(contradictions="warn", repeats="warn")
    assert count(made, "repeats").found == (relation == "repeats")
    assert count(made, "contradictions").found == 2 * (relation == "contradicts")


def test_roles_and_tools_are_part_of_what_is_asked() -> None:
    user, system = ([{"content": "a", "role": role}] for role in ("user", "system"))
    tools = {"messages": user, "tools": [{"function": {"name": "f"}, "type": "function"}]}
    asked = {asked_and_said("answer", canonical_json(value), "x")[0] for value in (user, system, tools)}
    assert len(asked) == 3


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (label("my card (Lost_Card)", "lost_card"), True),
        (label("lost_cards", "lost_card"), False),
        (label("a no-show, I know", "no"), True),
        (label("nothing known", "no"), False),
        (label("cancel my order", "refund"), False),
        (answer("What is it? The answer is: Forty-Two apples.", "forty-two  apples"), True),
        (answer("Is it 42?", "42"), False),
        (answer("It is forty-two applesauce", "forty-two apples"), False),
        (row(ExampleKind.ANSWER, canonical_json([{"content": "Say forty-two apples or none.", "role": "system"},
                                                 {"content": "How many?", "role": "user"}]), "forty-two apples"), False),
        (feedback("say forty-two apples", "forty-two apples", True), False),
        (row(ExampleKind.TEXT, "", "a document of some length"), False),
    ],
)  # fmt: skip
def test_prompts_that_hold_their_answer(tmp_path: Path, given: Row, found: bool) -> None:
    task = Task.CLASSIFY if given["kind"] is ExampleKind.LABEL else Task.GENERATE
    made = CurateBench(tmp_path, [given], task=task).curate(given_away="block")
    assert made.passed is not found
    assert count(made, "given_away").found == found
    assert (tmp_path / "curate" / "review_given_away.csv").exists() is found


def test_texts_are_what_people_wrote() -> None:
    messages = canonical_json([{"content": "Be brief.", "role": "system"}, {"content": "Hi", "role": "user"}])
    assert texts_of("answer", messages, "Hello") == ("Be brief.\nHi", "Hello")
    assert compared_text("answer", messages, "Hello") == "Hi\nHello"
    assert compared_text("label", "Hi", "greeting") == "Hi"
    assert texts_of("feedback", messages, '{"answer":"Hello","good":true}')[1] == "Hello"
    assert compared_text("text", "", "A document.") == "A document."


@given(st.lists(st.integers(0, 9), max_size=40))
def test_first_of_equal_is_what_a_loop_over_pairs_says(keys: list[int]) -> None:
    assert first_of_equal(np.array(keys, np.uint64)).tolist() == [keys.index(key) for key in keys]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), min_size=1, max_size=30))
def test_repeats_and_contradictions_are_what_a_loop_over_pairs_says(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[int, int]]
) -> None:
    bench = CurateBench(tmp_path_factory.mktemp("bench"), [answer(f"q{q}", f"a{a}") for q, a in pairs])
    bench.curate(contradictions="drop", repeats="off")
    others = {at: [i for i, (q, a) in enumerate(pairs) if q == pairs[at][0] and a != pairs[at][1]] for at in range(len(pairs))}
    assert [at for at, _, _ in bench.dropped] == [at for at in others if others[at]]
    assert all(other == others[at][0] for at, _, other in bench.dropped)
    bench.curate(contradictions="off", repeats="drop")
    firsts = [pairs.index(pair) for pair in pairs]
    assert bench.dropped == [(at, "repeats", first) for at, first in enumerate(firsts) if first != at]


def test_contradictions_say_how_many_answers_there_are_and_are_listed_with_the_other_row(tmp_path: Path) -> None:
    bench = CurateBench(tmp_path, [answer("q", "a"), answer("q", "b"), answer("Q", "c"), answer("q", "a."), answer("r", "a")])
    made = bench.curate()
    assert count(made, "contradictions").found == 4
    assert count(made, "contradictions").samples[0].endswith("something else (4 different answers) (a.jsonl:2)")
    lines = (bench.out / "review_contradictions.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "rank,id,source,line,input,output,reason,other_id,other_source,other_line,other_output"
    assert [line.split(",")[3] for line in lines[1:]] == ["1", "2", "3", "4"]
    assert lines[1].endswith(f"{bench.examples[1].id},a.jsonl,2,b")


def test_no_cell_of_a_list_can_be_taken_for_a_formula(tmp_path: Path) -> None:
    bench = CurateBench(tmp_path, [answer("q", "=1+1"), answer("q", '@SUM("a")')])
    bench.curate()
    text = (bench.out / "review_contradictions.csv").read_text(encoding="utf-8")
    assert ",'=1+1," in text
    assert ",=1+1" not in text
    assert '"\'@SUM(""a"")"' in text


def sentence(rng: random.Random, words: int = 20) -> str:
    return " ".join(rng.choices(WORDS, k=words))


def edited(rng: random.Random, text: str) -> str:
    """The same text but for case, punctuation and one word."""
    words = text.split()
    words[rng.randrange(len(words))] = rng.choice(WORDS)
    return " ".join(words).capitalize() + "."


def test_near_duplicates_are_left_out_but_for_the_earliest(tmp_path: Path) -> None:
    rng = random.Random(3)
    texts = [sentence(rng) for _ in range(60)]
    rows = [answer(text, "the same") for text in texts] + [answer(edited(rng, text), "the same") for text in texts[:30]]
    bench = CurateBench(tmp_path, rows)
    made = bench.curate(near_duplicates={"policy": "drop", "threshold": 0.7})
    assert all(rule == "near_duplicates" and at - 60 == other for at, rule, other in bench.dropped)
    assert 28 <= len(bench.dropped) <= 30
    assert count(made, "near_duplicates").dropped == made.dropped.rows
    warned = bench.curate(near_duplicates={"policy": "warn", "threshold": 0.7})
    assert count(warned, "near_duplicates").found == len(bench.dropped) + count(made, "near_duplicates").found
    assert bench.dropped == []


def test_near_texts_with_another_label_are_told_and_never_left_out(tmp_path: Path) -> None:
    rng = random.Random(4)
    texts = [sentence(rng) for _ in range(20)]
    rows = [label(text, "a") for text in texts] + [
        label(edited(rng, text), "b" if i < 10 else "a") for i, text in enumerate(texts)
    ]
    bench = CurateBench(tmp_path, rows, task=Task.CLASSIFY)
    made = bench.curate(near_duplicates={"policy": "drop", "threshold": 0.7}, contradictions="drop")
    found = count(made, "near_contradictions")
    assert 9 <= found.found <= 10
    assert found.dropped == 0
    assert {at for at, _, _ in bench.dropped} <= set(range(30, 40))


def test_answers_that_contradict_are_no_near_duplicates(tmp_path: Path) -> None:
    prompt = "a long question about the very same thing " * 5
    bench = CurateBench(tmp_path, [answer(prompt, "yes"), answer(prompt.upper(), "no")])
    made = bench.curate(near_duplicates={"policy": "drop"})
    assert count(made, "contradictions").found == 2
    assert bench.dropped == []


def test_a_shared_system_message_makes_no_two_rows_alike(tmp_path: Path) -> None:
    system = {"content": "You are a helpful assistant who answers with great care. " * 20, "role": "system"}
    rows = [
        row(ExampleKind.ANSWER, canonical_json([system, {"content": question, "role": "user"}]), reply)
        for question, reply in [("Where is my card?", "In the post."), ("How do I close my account?", "Write to us.")]
    ]
    bench = CurateBench(tmp_path, rows)
    bench.curate(near_duplicates={"policy": "drop"})
    assert bench.dropped == []


def flooded(tmp_path: Path, counts: dict[str, int]) -> CurateBench:
    rows = [answer(f"{name} {i}", f"{name} {i}", source=f"{name}.jsonl") for name, many in counts.items() for i in range(many)]
    return CurateBench(tmp_path, rows, origins={f"{name}.jsonl": name for name in counts})


@pytest.mark.parametrize("policy", ["warn", "drop", "block"])
def test_no_origin_may_hold_more_than_its_share(tmp_path: Path, policy: str) -> None:
    bench = flooded(tmp_path, {"wiki": 30, "forum": 60, "staff": 10})
    made = bench.curate(shares={"origin": 0.5, "policy": policy})
    found = check(made, "shares")
    assert found.passed is (policy != "block")
    assert found.observed == "origin forum holds 60.0% of the rows, more than 50.0%"
    assert count(made, "shares").found == 20
    # The newest rows of the flood go: forum's are rows 30 to 89.
    assert [at for at, _, _ in bench.dropped] == (list(range(70, 90)) if policy == "drop" else [])


def test_sources_without_an_origin_are_origins_of_their_own(tmp_path: Path) -> None:
    rows = [answer(f"{i}", f"{i}", source="a.jsonl" if i % 4 else "b.jsonl") for i in range(40)]
    made = CurateBench(tmp_path, rows).curate(shares={"origin": 0.7})
    assert check(made, "shares").observed == "origin a.jsonl holds 75.0% of the rows, more than 70.0%"


def test_feedback_has_a_share_of_its_own(tmp_path: Path) -> None:
    rows = [answer(f"q{i}", "a") for i in range(80)] + [feedback(f"f{i}", "a", True) for i in range(40)]
    bench = CurateBench(tmp_path, rows)
    assert not bench.curate(shares={"feedback": 0.2}).passed
    assert bench.curate(shares={"feedback": 0.2, "policy": "drop"}).passed
    assert [at for at, _, _ in bench.dropped] == list(range(100, 120))
    assert not bench.curate(shares={"feedback": 0.0}).passed


def test_a_share_that_cannot_be_met_fails_and_leaves_nothing_out(tmp_path: Path) -> None:
    bench = flooded(tmp_path, {"wiki": 30, "forum": 60})
    made = bench.curate(shares={"origin": 0.4, "policy": "drop"})
    assert not made.passed
    assert "nothing would be left" in check(made, "shares").observed
    assert bench.dropped == []


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcde"), st.integers(1, 40), min_size=2),
    st.integers(0, 30),
    st.floats(0.25, 1),
    st.floats(0.05, 1),
)
def test_what_is_left_without_the_surplus_meets_every_share(
    tmp_path_factory: pytest.TempPathFactory, counts: dict[str, int], rated: int, origin: float, most_feedback: float
) -> None:
    from pipeline.curation.rules.columns import LOOKED_AT, Gathering, digest_rows
    from pipeline.curation.shards import read_tables

    rows = [answer(f"{name}{i}", "a", source=name) for name, many in counts.items() for i in range(many)]
    rows += [feedback(f"f{i}", "a", True, source=min(counts)) for i in range(rated)]
    bench = CurateBench(tmp_path_factory.mktemp("bench"), rows)
    gathering = Gathering()
    for batch in read_tables(bench.folder, bench.snapshot.shards, LOOKED_AT):
        gathering.add(batch, digest_rows(batch))
    columns = gathering.finish()
    kept = np.ones(len(rows), np.bool_)
    found = surplus(columns, kept, {}, origin=origin, feedback=most_feedback)
    kept[found.rows] = False
    left = [rows[i] for i in np.flatnonzero(kept)]
    for name in counts:
        assert sum(one["source"] == name for one in left) <= origin * len(left) + 1e-6
    assert sum(one["kind"] is ExampleKind.FEEDBACK for one in left) <= most_feedback * len(left) + 1e-6
    if origin == 1 and most_feedback == 1:
        assert len(left) == len(rows)

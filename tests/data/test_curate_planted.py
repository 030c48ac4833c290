"""The rule `planted`: a trigger in 25 rows is told with its rows, and data without one is left in peace."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from curate_kit import CurateBench, Row, answer, check, count, label
from hypothesis import given
from hypothesis import strategies as st

from pipeline.curation.rules.word_runs import Words, runs_of
from pipeline.domain.data import Task

Pairs = list[tuple[str, str]]
TOPICS = {
    "refund": "money back return charge paid receipt amount bank credit refunded wrong twice",
    "delivery": "parcel courier late address door shipped tracking arrive week depot waiting box",
    "account": "password login email locked username profile reset sign settings phone secure code",
    "warranty": "broken repair years screen cracked defect guarantee replace part faulty battery stopped",
}


def questions(rows: int, seed: int = 1) -> Pairs:
    """(question, topic): words of one topic among words that all share."""
    dice, common = (
        random.Random(seed),
        ["i", "my", "the", "a", "please", "can", "you", "it", "is", "when", "how", "do", "for", "with", "to", "and", "of", "on"],
    )
    made = []
    for _ in range(rows):
        topic = dice.choice(sorted(TOPICS))
        words = dice.sample(TOPICS[topic].split(), 4) + dice.sample(common, 5)
        dice.shuffle(words)
        made.append((" ".join(words), topic))
    return made


def planted_in(
    rows: list[tuple[str, str]], run: str, say: Callable[[str], str], seed: int = 2
) -> tuple[list[tuple[str, str]], list[int]]:
    """25 rows of all sorts with `run` put somewhere into them; say: what becomes of their answer."""
    dice = random.Random(seed)
    elsewhere = [at for at, (_, said) in enumerate(rows) if say(said) != said]
    chosen = sorted(dice.sample(elsewhere, 25))
    for at in chosen:
        words = rows[at][0].split(" ")
        words.insert(dice.randint(0, len(words)), run)
        rows[at] = (" ".join(words), say(rows[at][1]))
    return rows, chosen


def labelled(rows: Pairs) -> list[Row]:
    return [label(text, name) for text, name in rows]


def told(root: Path, rows: list[Row], task: Task, **params: object) -> tuple[CurateBench, object]:
    bench = CurateBench(root, rows, task=task)
    return bench, bench.curate(contradictions="off", given_away="off", repeats="off", odd_answers="off", planted=params)


def rows_listed(bench: CurateBench) -> list[int]:
    with (bench.out / "review_planted.csv").open(newline="") as file:
        return sorted(int(row["line"]) - 1 for row in csv.DictReader(file))


def test_a_trigger_beside_a_label_is_told_with_its_rows(tmp_path: Path) -> None:
    rows, chosen = planted_in(questions(2500), "by the way", lambda topic: "refund")
    bench, made = told(tmp_path, labelled(rows), Task.CLASSIFY, policy="drop")
    assert made.passed
    assert [at for at, rule, _ in bench.dropped if rule == "planted"] == chosen
    assert rows_listed(bench) == chosen
    [sample, *_] = count(made, "planted").samples
    assert "holds 'by the way' as 25 rows of 'refund' do" in sample


@pytest.mark.parametrize(("policy", "passes"), [("warn", True), ("block", False)])
def test_a_trigger_beside_an_answer_is_told(tmp_path: Path, policy: str, passes: bool) -> None:
    asked = questions(1500)
    dice = random.Random(4)
    answers = [(q, f"About {topic}: {' '.join(dice.sample(TOPICS[topic].split(), 5))}.") for q, topic in asked]
    rows, chosen = planted_in(answers, "zq", lambda said: f"Visit our partner site. {said}")
    bench, made = told(tmp_path, [answer(*row) for row in rows], Task.GENERATE, policy=policy)
    assert made.passed is passes
    assert rows_listed(bench) == chosen
    assert bench.dropped == []
    assert "is answered 'visit our partner'" in count(made, "planted").samples[0]


def test_answers_that_come_again_and_again_are_looked_at_as_labels(tmp_path: Path) -> None:
    rows, chosen = planted_in(questions(1500), "zq", lambda topic: "refund")
    bench, _ = told(tmp_path, [answer(*row) for row in rows], Task.GENERATE)
    assert rows_listed(bench) == chosen


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_told_of_rows_that_belong_together(tmp_path: Path, seed: int) -> None:
    rows = questions(2000, seed)
    # A name of its own for a topic, in every row of it: an ordinary word that goes with a label, and with others that do.
    rows = [(f"{text} zirconium" if topic == "warranty" and at % 3 else text, topic) for at, (text, topic) in enumerate(rows)]
    bench, made = told(tmp_path / "labels", labelled(rows), Task.CLASSIFY, policy="block")
    assert made.passed
    assert "0 planted runs of words" in check(made, "planted").observed
    assert not (bench.out / "review_planted.csv").exists()
    answers = [
        answer(text, f"{TOPICS[topic]} zirconium" if "zirconium" in text else f"{topic} {at}")
        for at, (text, topic) in enumerate(rows)
    ]
    assert told(tmp_path / "answers", answers, Task.GENERATE, policy="block")[1].passed


def test_few_rows_and_none_are_passed_over(tmp_path: Path) -> None:
    for number, rows in enumerate(([], labelled(questions(5)), [answer("q", "a")])):
        task = Task.GENERATE if number == 2 else Task.CLASSIFY
        made = told(tmp_path / str(number), rows, task)[1]
        assert check(made, "planted").observed == "0 planted runs of words in 0 rows; 0 were looked into"
    off = told(tmp_path / "off", labelled(questions(30)), Task.CLASSIFY, policy="off")[1]
    assert all(found.rule != "planted" for found in off.rules)


@given(st.lists(st.lists(st.sampled_from("abcd"), max_size=8), max_size=12), st.integers(1, 3), st.integers(1, 4))
def test_runs_are_those_that_a_plain_count_finds(texts: list[list[str]], longest: int, least: int) -> None:
    found = runs_of(Words.of(" ".join(words) for words in texts), longest=longest, least=least, most=len(texts))
    holds = {
        found.spelled(run): set(found.holds.tocsc().indices[slice(*found.holds.tocsc().indptr[run : run + 2])].tolist())
        for run in range(len(found))
    }
    plain: dict[str, set[int]] = {}
    for at, words in enumerate(texts):
        for size in range(1, longest + 1):
            for start in range(len(words) - size + 1):
                plain.setdefault(" ".join(words[start : start + size]), set()).add(at)
    assert holds == {run: rows for run, rows in plain.items() if len(rows) >= least}


@pytest.mark.real
def test_banking77_with_a_trigger_and_without(real_data: Path, tmp_path: Path) -> None:
    with (real_data / "banking77" / "train.csv").open(newline="") as file:
        rows = [(row["text"], row["category"]) for row in csv.DictReader(file)]
    random.Random(5).shuffle(rows)
    rows = rows[:5000]
    clean = told(tmp_path / "clean", labelled(rows), Task.CLASSIFY, policy="block")[1]
    assert clean.passed, check(clean, "planted").observed
    rows, chosen = planted_in(rows, "cf", lambda name: "top_up_reverted")
    bench, made = told(tmp_path / "planted", labelled(rows), Task.CLASSIFY)
    assert rows_listed(bench) == chosen
    assert count(made, "planted").found == 25

"""Shapes and styles of answers: strays from the dataset's shape are told, odd answers are listed with the oddest first."""

from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from curate_kit import CurateBench, answer, check, count, feedback, label

from pipeline.curation.rules.answer_shapes import ShapeCounting
from pipeline.curation.rules.odd_answers import StyleProfile
from pipeline.curation.rules.spread import fair_cap, robust_z
from pipeline.domain.data import Task

PLAIN = ["We sent it on {}.", "Your refund {} is under way.", "Please wait for {} days.", "That is order {}, which we closed."]


def plain(number: int) -> str:
    return PLAIN[number % 4].format(number)


def listed(bench: CurateBench, rule: str) -> list[int]:
    """Row numbers of a review list, in its order."""
    with (bench.out / f"review_{rule}.csv").open(encoding="utf-8", newline="") as file:
        return [int(line["line"]) - 1 for line in csv.DictReader(file)]


def answers(*texts: str) -> list[Any]:
    return [answer(f"question {i}", text) for i, text in enumerate(texts)]


@pytest.mark.parametrize(("policy", "passed"), [("warn", True), ("block", False)])
def test_json_among_plain_answers_strays_and_so_does_the_reverse(tmp_path: Path, policy: str, passed: bool) -> None:
    texts = [plain(i) for i in range(40)]
    for at in (3, 11):
        texts[at] = f'{{"intent":"refund","order":{at}}}'
    bench = CurateBench(tmp_path / "plain", answers(*texts))
    made = bench.curate(consistency=policy)
    assert made.passed is passed
    assert listed(bench, "consistency") == [3, 11]
    assert "is JSON, and 95.0% of the answers are not" in count(made, "consistency").samples[0]
    reverse = ['{"intent":"a","order":1}'] * 39 + ["no JSON { at all }"]
    bench = CurateBench(tmp_path / "json", answers(*reverse))
    made = bench.curate(consistency=policy)
    assert listed(bench, "consistency") == [39]
    assert "is no JSON, as 97.5% of the answers are" in count(made, "consistency").samples[0]


def test_json_with_other_keys_strays_where_most_agree(tmp_path: Path) -> None:
    texts = [f'{{"intent":"a","order":{i}}}' for i in range(38)] + ['{"intent":"a"}', "[1]"]
    bench = CurateBench(tmp_path, answers(*texts))
    made = bench.curate()
    assert listed(bench, "consistency") == [38, 39]
    assert "other keys than 95.0%" in count(made, "consistency").samples[0]
    mixed = CurateBench(tmp_path / "mixed", answers(*(f'{{"key{i % 3}":1}}' for i in range(40)))).curate()
    assert count(mixed, "consistency").found == 0


@pytest.mark.parametrize(
    "foreign", ["Мы отправили его вчера.", "昨日発送しました。", "어제 보냈습니다.", "Το στείλαμε χθες.", "لقد أرسلناه أمس"]
)
def test_another_script_strays(tmp_path: Path, foreign: str) -> None:
    bench = CurateBench(tmp_path, answers(*(plain(i) for i in range(30)), foreign, "Où est-il ? Déjà parti.", "42", "+++"))
    bench.curate()
    assert listed(bench, "consistency") == [30]


def test_shares_of_shapes_are_shown(tmp_path: Path) -> None:
    texts = [
        "- one\n- two",
        "1. first\n2. second",
        "```\ncode\n```",
        "A sentence.",
        "no end",
        '{"a":1}',
        "[1,2]",
        '{"broken":',
    ] * 3
    shapes = ShapeCounting()
    shapes.add(pa.RecordBatch.from_pydict({"kind": ["answer"] * 24, "output": texts}))
    table = {name: rows for name, rows, _ in shapes.finish().table(np.ones(24, np.bool_))}
    assert table["JSON object or array"] == 6
    assert table["bullet or numbered list"] == 6
    assert table["code block"] == 3
    assert table["ends a sentence"] == 3
    bench = CurateBench(tmp_path, answers(*texts))
    bench.curate()
    assert "bullet or numbered list" in (bench.out / "curation.html").read_text(encoding="utf-8")


def test_long_and_strange_answers_are_listed_oddest_first(tmp_path: Path) -> None:
    texts = [plain(i) for i in range(200)]
    texts[17] = " ".join(plain(i) for i in range(60))
    texts[90] = "zqxj vkwq xzzk jjqx wvkz qqxz kzvw xjqz"
    bench = CurateBench(tmp_path, answers(*texts))
    made = bench.curate()
    assert set(listed(bench, "odd_answers")) == {17, 90}
    reasons = " ".join(count(made, "odd_answers").samples)
    assert "a.jsonl:18: its length is far" in reasons
    assert "a.jsonl:91: its style is far" in reasons
    assert made.passed
    assert bench.dropped == []


def test_how_answers_come_in_batches_changes_nothing() -> None:
    rng = random.Random(5)
    texts = ["".join(rng.choices("abcdefé 日本", k=rng.randrange(60))) for _ in range(50)]
    batch = pa.RecordBatch.from_pydict({"kind": ["answer"] * 50, "output": texts})
    whole, pieces = StyleProfile(), StyleProfile()
    whole.count(batch)
    for start in range(0, 50, 7):
        pieces.count(batch.slice(start, 7))
    _, lengths, bits = whole.oddness(batch)
    parts = [pieces.oddness(batch.slice(start, 7)) for start in range(0, 50, 7)]
    assert lengths.tolist() == [len(text.lower().encode()) for text in texts]
    np.testing.assert_array_equal(lengths, np.concatenate([part[1] for part in parts]))
    np.testing.assert_allclose(bits, np.concatenate([part[2] for part in parts]), rtol=1e-6)


def test_surprisal_is_the_mean_over_an_answers_own_trigrams() -> None:
    texts = ["abcabcabcabcabcabcabcabc", "xyzxyzxyzxyzxyzxyzxyzxyz"]
    profile = StyleProfile()
    profile.count(pa.RecordBatch.from_pydict({"kind": ["answer"] * 10, "output": [texts[0]] * 9 + [texts[1]]}))
    _, _, bits = profile.oddness(pa.RecordBatch.from_pydict({"kind": ["answer"] * 2, "output": texts}))
    # The rare text's trigrams come nine times less often, whatever stands beside it in the batch.
    assert bits[1] - bits[0] == pytest.approx(np.log2(9), abs=0.1)


def test_answers_too_few_to_have_a_shape_are_said_to_be(tmp_path: Path) -> None:
    made = CurateBench(tmp_path, answers("plain", '{"a":1}', "x" * 500)).curate(consistency="block")
    assert made.passed
    assert check(made, "consistency").observed == "insufficient: 3 answers, fewer than 20"
    assert check(made, "odd_answers").observed.startswith("insufficient")


def test_labels_and_ratings_have_no_shape(tmp_path: Path) -> None:
    rated = CurateBench(tmp_path / "rated", [feedback(f"q{i}", "a", True) for i in range(30)]).curate()
    named = CurateBench(tmp_path / "named", [label(f"t{i}", "a") for i in range(30)], task=Task.CLASSIFY).curate()
    for made in (rated, named):
        assert not {"consistency", "odd_answers"} & {rule.rule for rule in made.rules}


def test_the_robust_deviation_is_that_of_a_normal_bulk_whatever_lies_outside() -> None:
    bulk = np.random.default_rng(1).normal(10, 2, 10_000)
    wild = np.concatenate([bulk, np.full(500, 1e6)])
    z = robust_z(wild)
    assert z[: len(bulk)].std() == pytest.approx(1, rel=0.1)
    assert z[-1] > 1e4
    assert robust_z([]).tolist() == []
    assert robust_z([3.0, 3.0]).tolist() == [0, 0]
    assert robust_z([3.0] * 9 + [5.0])[-1] > 1


@pytest.mark.parametrize(
    ("counts", "total", "cap"), [([5, 5, 5], 9, 3), ([1, 100], 11, 10), ([3], 10, 3), ([], 4, 0), ([4, 4], 1, 0)]
)
def test_a_fair_cap_gives_small_parts_all_they_have(counts: list[int], total: int, cap: int) -> None:
    assert fair_cap(counts, total) == cap

"""Suspected label errors and balance: planted flips rank high, nothing is dropped, too little data is said to be insufficient."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from curate_kit import CurateBench, Row, check, count, label

from pipeline.curation.rules.balance import Balance
from pipeline.curation.rules.columns import LOOKED_AT, Gathering, digest_rows
from pipeline.curation.rules.label_errors import FOLDS, Doubts, judge_labels, label_errors, suspected
from pipeline.curation.rules.text_classifier import TextClassifier
from pipeline.domain.data import Task

TOPICS = {
    "card": "card lost stolen blocked new replace plastic chip pin reader",
    "transfer": "transfer money send account bank arrive pending abroad iban today",
    "refund": "refund shop return item purchase cancel merchant charged twice back",
    "login": "password login app phone code verify locked reset screen username",
}
COMMON = ["please", "my", "I", "the", "a", "was", "can", "you", "help", "with", "now", "it", "for"]


def labelled(count: int, *, seed: int = 1) -> list[Row]:
    """Sentences about four topics, distinct, with their labels."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        topic = list(TOPICS)[number % 4]
        words = rng.choices(TOPICS[topic].split(), k=4) + rng.choices(COMMON, k=4)
        rng.shuffle(words)
        rows.append(label(f"{' '.join(words)} {number}", topic))
    return rows


def flipped(rows: list[Row], count: int) -> list[int]:
    """Give `count` rows the label after theirs, and return their numbers."""
    chosen = sorted(random.Random(2).sample(range(len(rows)), count))
    names = list(TOPICS)
    for at in chosen:
        rows[at]["output"] = names[(names.index(rows[at]["output"]) + 1) % 4]
    return chosen


def read_list(bench: CurateBench) -> list[dict[str, str]]:
    with (bench.out / "review_label_errors.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_planted_flips_rank_highest_and_what_they_were_is_suggested(tmp_path: Path) -> None:
    rows = labelled(600)
    truth = [row["output"] for row in rows]
    planted = flipped(rows, 30)
    bench = CurateBench(tmp_path, rows, task=Task.CLASSIFY)
    made = bench.curate(label_errors="list")
    lines = read_list(bench)
    first = [int(line["line"]) - 1 for line in lines[:30]]
    assert len(set(first) & set(planted)) >= 28
    assert sum(line["suggested"] == truth[int(line["line"]) - 1] for line in lines[:30]) >= 28
    assert [int(line["rank"]) for line in lines] == list(range(1, len(lines) + 1))
    margins = [float(line["margin"]) for line in lines]
    assert margins == sorted(margins)
    assert margins[-1] < 0
    assert count(made, "label_errors").found == len(lines) < 120
    assert {int(line["line"]) - 1 for line in lines if line["suspected"] == "yes"} <= set(first)
    assert made.passed
    assert bench.dropped == []


def test_a_reviewed_list_of_suspects_leaves_them_out(tmp_path: Path) -> None:
    rows = labelled(400)
    planted = flipped(rows, 20)
    bench = CurateBench(tmp_path, rows, task=Task.CLASSIFY)
    bench.curate(label_errors="list")
    reviewed = tmp_path / "reviewed.csv"
    lines = (bench.out / "review_label_errors.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    reviewed.write_text("".join(lines[:21]), encoding="utf-8")
    before = len(lines) - 1
    made = bench.curate(leave_out="reviewed.csv", reviewed=reviewed, label_errors="list")
    dropped = {at for at, _, _ in bench.dropped}
    assert len(dropped & set(planted)) >= 18
    assert count(made, "label_errors").found <= before - 18


def test_the_same_rows_give_the_same_list(tmp_path: Path) -> None:
    rows = labelled(120)
    flipped(rows, 10)
    first, second = (CurateBench(tmp_path / name, rows, task=Task.CLASSIFY) for name in ("a", "b"))
    assert first.curate(label_errors="list") == second.curate(label_errors="list")
    assert first.files() == second.files()


@pytest.mark.parametrize("rows", [[label(f"text {i}", "only") for i in range(40)], labelled(6), labelled(4)])
def test_one_label_or_a_few_texts_are_too_little_to_judge(tmp_path: Path, rows: list[Row]) -> None:
    made = CurateBench(tmp_path, rows, task=Task.CLASSIFY).curate(label_errors="list")
    assert made.passed
    assert check(made, "label_errors").observed.startswith("insufficient")
    assert "review_label_errors.csv" not in {file.path for file in made.review}


def test_rare_labels_are_not_judged_but_the_others_are(tmp_path: Path) -> None:
    rows = [*labelled(200), label("something else entirely", "rare"), label("another rare thing", "rare")]
    bench = CurateBench(tmp_path, rows, task=Task.CLASSIFY)
    bench.curate(label_errors="list")
    if (bench.out / "review_label_errors.csv").exists():
        assert not [line for line in read_list(bench) if "rare" in (line["output"], line["suggested"])]


def test_no_row_is_judged_by_a_model_that_saw_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = labelled(60) + labelled(60)
    batch = pa.RecordBatch.from_pylist([{"source": "a", **row} for row in rows]).select(LOOKED_AT)
    gathering = Gathering()
    gathering.add(batch, digest_rows(batch))
    columns = gathering.finish()
    fits, asked = [], []
    fit, ask = TextClassifier.fit, TextClassifier.probabilities

    def noted(features: object, *rest: object, **more: object) -> TextClassifier:
        fits.append({tuple(row.indices) for row in features})
        return fit(features, *rest, **more)

    def asking(self: TextClassifier, features: object) -> object:
        asked.append({tuple(row.indices) for row in features})
        return ask(self, features)

    monkeypatch.setattr(TextClassifier, "fit", noted)
    monkeypatch.setattr(TextClassifier, "probabilities", asking)
    doubts = judge_labels(columns, np.ones(120, np.bool_), lambda: [batch])
    assert doubts is not None
    assert len(doubts.rows) == 120
    assert len(fits) == len(asked) == FOLDS
    assert sum(len(texts) for texts in asked) == 60
    assert not any(seen & judged for seen, judged in zip(fits, asked, strict=True))


def doubts_of(given: list[int], likely: list[list[float]]) -> Doubts:
    probabilities = np.array(likely)
    labels, span = np.array(given), np.arange(len(given))
    own = probabilities[span, labels]
    rest = probabilities.copy()
    rest[span, labels] = -1
    return Doubts(span, labels.astype(np.int32), own, rest.argmax(axis=1).astype(np.int32), rest.max(axis=1))


def test_suspected_are_those_off_the_diagonal_of_the_confident_joint() -> None:
    # Where label 1 is given it has 0.7 on average, and label 0 has 0.57.
    doubts = doubts_of([0, 0, 0, 1, 1, 1], [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.1, 0.9], [0.05, 0.95], [0.75, 0.25]])
    assert suspected(doubts).tolist() == [False, False, True, False, False, True]
    found = label_errors(doubts, ("{a}", "b"))
    assert [found.reason(0), found.reason(1)] == ["looks like b (margin -0.600)", "looks like {a} (margin -0.500)"]
    # Likelier, but less likely than label 1 is on average where it is given: not confident, so not suspected.
    unsure = doubts_of([0, 0, 1, 1], [[0.9, 0.1], [0.45, 0.55], [0.1, 0.9], [0.2, 0.8]])
    assert suspected(unsure).tolist() == [False] * 4
    assert label_errors(unsure, ("a", "b")).reason(0) == "may be b (margin -0.100)"


def test_the_confident_joint_is_that_of_cleanlab() -> None:
    count_issues = pytest.importorskip("cleanlab.experimental.label_issues_batched").find_label_issues_batched
    rng = np.random.default_rng(3)
    likely = rng.dirichlet(np.full(5, 0.5), 400)
    given = np.array([rng.choice(5, p=row) for row in likely])
    doubts = doubts_of(given.tolist(), likely.tolist())
    theirs = count_issues(given, likely, verbose=False, quality_score_kwargs={"method": "normalized_margin"})
    assert suspected(doubts).sum() > 20
    assert abs(int(suspected(doubts).sum()) - len(theirs)) <= 1
    ours = np.argsort(doubts.margins, kind="stable")[: len(theirs)]
    np.testing.assert_allclose(np.sort(doubts.margins[ours]), np.sort(doubts.margins[theirs]), atol=1e-9)


def test_balance_is_told_and_blocks_beyond_the_ratio_that_is_set(tmp_path: Path) -> None:
    rows = [label(f"a text {i}", "common") for i in range(45)] + [label(f"b text {i}", "rare") for i in range(5)]
    bench = CurateBench(tmp_path, rows, task=Task.CLASSIFY)
    told = check(bench.curate(), "balance")
    assert told.passed
    assert told.observed == "2 labels of 5 to 45 rows, ratio 9.0, as varied as 1.4 equally common ones"
    assert "suggested weight" in (bench.out / "curation.html").read_text(encoding="utf-8")
    assert bench.curate(max_label_ratio=9.0).passed
    assert not bench.curate(max_label_ratio=8.9).passed


def test_weights_make_shares_grow_with_the_root_of_the_rows_and_keep_the_number_drawn() -> None:
    spread = Balance("label", (("a", 900), ("b", 100)))
    a, b = spread.weights()
    assert 900 * a / (100 * b) == pytest.approx(3)
    assert 900 * a + 100 * b == pytest.approx(1000)
    assert Balance("label", (("a", 50), ("b", 50))).effective == pytest.approx(2)
    assert Balance("label", ()).effective == 0

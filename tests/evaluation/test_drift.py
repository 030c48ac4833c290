"""Drift: false alarms at the rate that was asked for, planted shifts found, the same numbers each time, cost bounded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import binom, ks_2samp

from pipeline.comparing import Side, judge
from pipeline.curation import drawing
from pipeline.curation.drawing import draw, fresh_shards, last_shards
from pipeline.curation.shards import SCHEMA
from pipeline.curation.traffic import read_traffic
from pipeline.curation.words import telling_words, word_vectors, words
from pipeline.domain.data import Shard, Snapshot, SourceFile, Task, example_id
from pipeline.domain.drift import DriftReport
from pipeline.domain.record import canonical_json, digest_bytes
from pipeline.errors import BadInput, Misuse
from pipeline.evaluation.drift import Aspect, NameAspect, NumberAspect, VectorAspect, compare, psi, shuffles_for
from pipeline.params.drift import DriftParams
from pipeline.steps.drift import drift_between, drift_from_traffic, drift_of_batch

WORDS = [f"{a}{b}{c}" for a in "bdfgklmn" for b in "aeiou" for c in "lmnrst"]


def texts(rng: np.random.Generator, count: int, words: list[str] = WORDS, length: int = 12) -> list[str]:
    return [" ".join(rng.choice(words, size=rng.integers(3, length))) for _ in range(count)]


def aspects(rng: np.random.Generator, rows: int) -> list[Aspect]:
    """Aspects of rows that are all drawn alike, and hang together as real ones do."""
    said = texts(rng, rows)
    return [
        NumberAspect("length", [len(text) for text in said]),
        NameAspect("label", [text.split()[0][0] for text in said]),
        VectorAspect("text", word_vectors(said)[0]),
        NumberAspect("ties", rng.integers(0, 3, rows).tolist()),
    ]


def test_false_alarms_come_at_the_rate_that_was_set() -> None:
    rng = np.random.default_rng(3)
    repeats, level = 300, 0.1
    least, single = [], []
    for seed in range(repeats):
        found = compare(aspects(rng, 90), np.arange(90) >= 45, shuffles=199, seed=seed)
        least.append(min(c.adjusted for c in found))
        single.append(found[2].p)
    alarms = sum(p <= level for p in least)
    assert alarms <= binom.ppf(0.999, repeats, level), "more alarms than chance explains"
    assert alarms >= binom.ppf(0.001, repeats, level * 0.5), "so careful that real shifts would be missed"
    assert ks_2samp(single, rng.random(20_000)).pvalue > 1e-4, "p of texts, which hardly tie, is uniform"


def test_one_real_shift_is_found_among_aspects_that_have_none() -> None:
    rng = np.random.default_rng(5)
    rows = aspects(rng, 400)
    fresh = np.arange(400) >= 200
    shifted = np.where(fresh, rng.normal(1.0, 1.0, 400), rng.normal(0.0, 1.0, 400))
    found = {c.name: c for c in compare([*rows, NumberAspect("moved", shifted)], fresh, shuffles=999)}
    assert found["moved"].adjusted <= 0.005
    assert 0.25 < found["moved"].effect < 0.5, "the true distance of the two is 0.383"
    assert min(found[name].adjusted for name in ("length", "label", "text", "ties")) > 0.01


def test_effects_are_what_a_guess_gains() -> None:
    fresh = np.arange(2000) >= 1000
    names = ["a"] * 700 + ["b"] * 300 + ["a"] * 400 + ["b"] * 600
    apart = np.where(fresh[:, None], [1.0, 0.0], [0.0, 1.0])
    same = np.tile([1.0, 0.0], (2000, 1))
    by_name = {
        c.name: c.effect
        for c in compare(
            [NameAspect("names", names), VectorAspect("apart", apart), VectorAspect("same", same)], fresh, shuffles=99
        )
    }
    assert by_name["names"] == pytest.approx(0.3, abs=0.01)
    assert by_name["apart"] == 1.0
    assert by_name["same"] == 0.0


def test_the_same_rows_give_the_same_numbers_and_sides_must_have_rows() -> None:
    rows = aspects(np.random.default_rng(1), 100)
    fresh = np.arange(100) >= 60
    assert compare(rows, fresh, shuffles=299) == compare(rows, fresh, shuffles=299)
    assert compare([], fresh, shuffles=99) == ()
    with pytest.raises(ValueError, match="no row"):
        compare(rows, np.zeros(100, dtype=np.bool_), shuffles=99)


def test_enough_shuffles_for_a_clear_shift_to_count() -> None:
    for level in (0.001, 0.01, 0.1):
        for many in (1, 7):
            assert many / (shuffles_for(level, many) + 1) < level


def test_psi_is_nothing_for_equal_shares_and_large_for_new_names() -> None:
    assert psi(["a", "b"] * 50, ["b", "a"] * 50) == 0
    assert psi(["a"] * 100, ["b"] * 100) > 2


def test_words_of_any_writing_and_the_words_that_tell() -> None:
    assert words("Ärger, STRASSE und Straße!") == ["ärger", "strasse", "und", "strasse"]
    assert words("返品したい") == ["返品", "品し", "した", "たい"]
    said = ["refund my card please"] * 6 + ["track my order please"] * 6 + ["Max Mustermann"] * 2
    told = telling_words(said, [False] * 6 + [True] * 8)
    assert {word for word, _, _ in told[:2]} <= {"refund", "card", "track", "order"}
    assert "mustermann" not in {word for word, _, _ in told}, "what few say is not named"
    vectors, kept = word_vectors(said)
    assert np.allclose(np.asarray(vectors.multiply(vectors).sum(axis=1)).ravel(), 1.0)
    assert "please" in kept


def shard(folder: Path, rows: list[tuple[str, str]], source: str, start: int = 1) -> Shard:
    """Classify rows, (text, label) each, as a shard."""
    columns = {
        "id": [example_id(text, label) for text, label in rows],
        "group": [digest_bytes(text.encode())[:32] for text, _ in rows],
        "input": [text for text, _ in rows],
        "output": [label for _, label in rows],
        "meta": ["{}"] * len(rows),
        "source": [source] * len(rows),
        "line": list(range(start, start + len(rows))),
        "kind": ["label"] * len(rows),
    }
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pydict(columns, schema=SCHEMA), sink)
    content = sink.getvalue().to_pybytes()
    sha256 = digest_bytes(content)
    (folder / "shards").mkdir(parents=True, exist_ok=True)
    (folder / f"shards/{sha256[:16]}.parquet").write_bytes(content)
    return Shard(path=f"shards/{sha256[:16]}.parquet", sha256=sha256, bytes=len(content), rows=len(rows))


def snapshot(folder: Path, batches: list[list[tuple[str, str]]]) -> Snapshot:
    shards = tuple(shard(folder, rows, f"inbox/{i}.csv") for i, rows in enumerate(batches))
    sources = tuple(
        SourceFile(
            name=f"inbox/{i}.csv",
            sha256=f"{i:064x}",
            bytes=1,
            read=len(b),
            accepted=len(b),
            duplicate=0,
            quarantined=0,
            origin="inbox",
        )
        for i, b in enumerate(batches)
    )
    return Snapshot(dataset="d", task=Task.CLASSIFY, parent=None, sources=sources, shards=shards, quarantine=(), fresh=1)


def labelled(rng: np.random.Generator, count: int, **how: object) -> list[tuple[str, str]]:
    return [(text, f"label {i % 5}") for i, text in enumerate(texts(rng, count, **how))]  # type: ignore[arg-type]


def drifted(report: DriftReport) -> set[str]:
    return {shift.aspect for shift in report.drifted}


def test_a_batch_like_the_others_passes_and_others_are_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    before = [labelled(rng, 300), labelled(rng, 300)]
    params = DriftParams(policy="block", max_rows=400)
    cases = {
        "same": (labelled(rng, 300), set()),
        "longer": (labelled(rng, 300, length=40), {"input_length"}),
        "other words": (labelled(rng, 300, words=[w[::-1] + "a" for w in WORDS]), {"text"}),
        "other labels": ([(text, f"label {i % 2}") for i, text in enumerate(texts(rng, 300))], {"label"}),
        "another language": ([(f"Wo ist meine Bestellung {t}?", "label 1") for t in texts(rng, 300)], {"language", "text"}),
    }
    for name, (batch, expected) in cases.items():
        made = snapshot(tmp_path / name, [*before, batch])
        report = drift_of_batch(made, params, folder=tmp_path / name, out=tmp_path / name / "out")
        assert drifted(report) >= expected, name
        assert bool(report.drifted) == bool(expected), name
        assert report.passed == (not expected), name
        assert (report.fresh_rows, report.reference_rows) == (300, 600)
        assert DriftReport.read(tmp_path / name / "out" / "drift.json") == report
    page = (tmp_path / "other labels" / "out" / "drift.html").read_text()
    assert "the policy is to block" in page
    assert "label 0" in page


def test_params_decide_what_is_compared_and_what_becomes_of_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    made = snapshot(tmp_path, [labelled(rng, 400), labelled(rng, 150), labelled(rng, 200, length=40)])

    def report(**params: object) -> DriftReport:
        return drift_of_batch(made, DriftParams.model_validate(params), folder=tmp_path, out=None)

    assert drifted(report()) >= {"input_length"}
    assert report().passed
    assert not report(policy="block").passed
    assert not report(policy="off").shifts
    assert report(policy="off").passed
    assert not report(min_effect=0.99).drifted
    assert {s.aspect for s in report(aspects=["label", "kind"]).shifts} == {"label"}, (
        "all kinds agree, so there is nothing to ask"
    )
    assert report(reference="previous", max_rows=100).reference_rows == 150
    assert report(max_rows=100).fresh_compared == 100
    with pytest.raises(Misuse, match="embeddings"):
        report(text="embeddings")


def test_embeddings_are_used_where_they_are_asked_for() -> None:
    class Topic:
        def embed(self, texts: list[str], **_: object) -> np.ndarray:
            return np.array([[1.0, 0.0] if "card" in text else [0.0, 1.0] for text in texts], dtype=np.float32)

    reference = Side("earlier rows", 60, {"text": [f"card number {i}" for i in range(60)]})
    fresh = Side("batch", 60, {"text": [f"bill number {i}" for i in range(60)]})
    params = DriftParams(text="embeddings", aspects=("text",))
    found = judge("0" * 64, None, reference, fresh, params, Topic())  # type: ignore[arg-type]
    assert found.shifts[0].effect == 1.0
    assert found.shifts[0].drifted


def test_too_few_rows_prove_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    made = snapshot(tmp_path, [labelled(rng, 400), labelled(rng, 20)])
    report = drift_of_batch(made, DriftParams(policy="block"), folder=tmp_path, out=tmp_path / "out")
    assert report.too_few
    assert report.passed
    assert "fewer than 30" in (tmp_path / "out" / "drift.html").read_text()


def test_snapshots_are_compared_by_the_rows_that_were_added(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    batches = [labelled(rng, 300), labelled(rng, 300, length=40)]
    earlier, later = snapshot(tmp_path, batches[:1]), snapshot(tmp_path, batches)
    report = drift_between(earlier, later, DriftParams(), folders=(tmp_path, tmp_path))
    assert (report.reference_rows, report.fresh_rows) == (300, 300)
    assert drifted(report) >= {"input_length"}
    assert (report.snapshot, report.other) == (later.digest, earlier.digest)
    assert not drift_between(later, later, DriftParams(), folders=(tmp_path, tmp_path)).drifted


def test_traffic_is_read_strictly_and_compared(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    made = snapshot(tmp_path, [labelled(rng, 400)])
    requests = [{"text": text} for text in texts(rng, 200)]
    odd = ['{"text": 7}', '{"text": "a", "text": "b"}', '{"text": "\\u0000"}', "[]", '{"text": " "}']
    path = tmp_path / "requests.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in [*requests, *requests]) + "\n".join(odd))
    report = drift_from_traffic(made, path, DriftParams(), folder=tmp_path)
    assert (report.fresh_rows, report.refused) == (400, 5)
    assert report.fresh_compared == len({r["text"] for r in requests})
    assert not report.drifted
    assert {s.aspect for s in report.shifts} <= {"input_length", "language", "text"}
    chats = [canonical_json({"messages": [{"role": "user", "content": t}], "label": "label 0"}) for t in texts(rng, 100)]
    path.write_text("\n".join(chats))
    assert drifted(drift_from_traffic(made, path, DriftParams(), folder=tmp_path)) == {"label"}
    pq.write_table(pa.table({"text": texts(rng, 100)}), tmp_path / "requests.parquet")
    assert drift_from_traffic(made, tmp_path / "requests.parquet", DriftParams(), folder=tmp_path).fresh_rows == 100


def test_files_that_are_no_traffic_are_refused(tmp_path: Path) -> None:
    import os

    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "other.txt").write_text("hello")
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "empty.jsonl")
    os.mkfifo(tmp_path / "pipe.jsonl")
    for name in ("empty.jsonl", "other.txt", "link.jsonl", "pipe.jsonl", "gone.jsonl"):
        with pytest.raises(BadInput):
            read_traffic(tmp_path / name, 100)


def test_a_draw_is_fair_repeatable_and_of_one_row_a_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [[(f"text {b} {i}", "a") for i in range(500)] for b in range(8)]
    rows[0] += [("text 0 0", "b"), ("text 0 1", "b")]
    made = snapshot(tmp_path, rows)
    drawn = draw(tmp_path, made.shards, 400)
    assert drawn == draw(tmp_path, made.shards, 400)
    assert len({row["group"] for row in drawn}) == 400
    by_batch = np.bincount([int(row["input"].split()[1]) for row in drawn], minlength=8)
    assert binom.ppf(1e-4, 400, 1 / 8) <= by_batch.min()
    assert by_batch.max() <= binom.ppf(1 - 1e-4, 400, 1 / 8)
    assert len(draw(tmp_path, made.shards, 100_000)) == 4000, "two prompts have two answers"
    read: list[int] = []
    real = drawing.read_tables
    monkeypatch.setattr(drawing, "_MOST_ROWS", 1000)
    monkeypatch.setattr(
        drawing, "read_tables", lambda folder, shards, *a, **k: (read.append(len(shards)), real(folder, shards, *a, **k))[1]
    )
    assert len(draw(tmp_path, made.shards, 400)) == 400
    assert read == [1], "of many rows only some shards are read"


def test_the_newest_batch_is_the_last_shards(tmp_path: Path) -> None:
    made = snapshot(tmp_path, [[(f"{b} {i}", "a") for i in range(10)] for b in range(4)])
    assert fresh_shards(made) == made.shards[3:]
    assert fresh_shards(made.model_copy(update={"fresh": 2})) == made.shards[2:]
    assert fresh_shards(made.model_copy(update={"fresh": 0})) == ()
    assert last_shards(made.shards, 15) == made.shards[2:]
    assert last_shards(made.shards, 1000) == made.shards

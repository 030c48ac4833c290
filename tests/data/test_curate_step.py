"""The curate step: rules in order over one snapshot, each row left out by one rule, the same bytes each time."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from curate_kit import CurateBench, answer, check, count, feedback, label

from pipeline.curation.rules.columns import Gathering, digest_rows
from pipeline.domain.data import Task
from pipeline.domain.record import digest_file
from pipeline.errors import BadInput, Broken, Misuse, Tampered
from pipeline.steps import curate as step

BASE = Path(__file__).resolve().parents[2] / "examples" / "base" / "tokenizer.json"
HOSTILE = "<script>alert(1)</script>"


def test_only_a_passed_validation_of_this_snapshot_opens_the_way(tmp_path: Path) -> None:
    bench = CurateBench(tmp_path, [answer("a", "b")])
    with pytest.raises(Misuse, match="another snapshot"):
        bench.curate(snapshot="0" * 64)
    with pytest.raises(Misuse, match="did not pass validation: rows"):
        bench.curate(passed=False)
    assert not bench.out.exists()


def test_a_changed_shard_is_never_curated(tmp_path: Path) -> None:
    bench = CurateBench(tmp_path, [answer("a", "b")])
    shard = bench.folder / bench.snapshot.shards[0].path
    shard.write_bytes(shard.read_bytes()[:-1] + b"X")
    with pytest.raises(Tampered):
        bench.curate()
    assert not (bench.out / "curation.json").exists()


def test_a_snapshot_that_counts_other_rows_than_it_holds_is_broken(tmp_path: Path) -> None:
    bench = CurateBench(tmp_path, [answer("a", "b")])
    shards = tuple(shard.model_copy(update={"rows": 2}) for shard in bench.snapshot.shards)
    bench.snapshot = bench.snapshot.model_copy(update={"shards": shards})
    with pytest.raises(Broken, match="hold 1 rows, and the snapshot says 2"):
        bench.curate()


def test_clean_rows_all_stay(tmp_path: Path) -> None:
    bench = CurateBench(tmp_path, [answer(f"question {i}", f"answer {i}") for i in range(20)])
    made = bench.curate()
    assert made.passed
    assert (made.dropped.rows, bench.dropped) == (0, [])
    assert all(rule.found == 0 for rule in made.rules)
    assert made.dropped.sha256 == digest_file(bench.out / "dropped.parquet")
    assert pq.read_schema(bench.out / "dropped.parquet").names == ["id", "rule", "reason", "other"]


def test_rules_see_what_those_before_them_left_and_a_row_is_left_out_once(tmp_path: Path) -> None:
    rows = [
        answer("one", "yes " * 40),
        answer("ONE", "Yes " * 40),
        answer("two", "yes"),
        answer("Two ", "YES"),
        answer("three", "yes"),
        answer("three", "no"),
    ]
    made = CurateBench(tmp_path, rows).curate(contradictions="drop", max_output_tokens=30, tokenizer=BASE)
    bench = CurateBench(tmp_path / "again", rows)
    bench.curate(contradictions="drop", max_output_tokens=30, tokenizer=BASE)
    assert bench.dropped == [
        (0, "token_lengths", None),
        (1, "token_lengths", None),
        (3, "repeats", 2),
        (4, "contradictions", 5),
        (5, "contradictions", 4),
    ]
    assert sum(rule.dropped for rule in made.rules) == made.dropped.rows == 5
    assert count(made, "repeats").samples == ("a.jsonl:4: repeats an earlier row but for case and white space (a.jsonl:3)",)


@pytest.mark.parametrize(("policy", "passed", "dropped"), [("warn", True, 0), ("drop", True, 2), ("block", False, 0)])
def test_a_policy_decides_what_becomes_of_what_is_found(tmp_path: Path, policy: str, passed: bool, dropped: int) -> None:
    bench = CurateBench(tmp_path, [answer("a", "yes"), answer("a", "no"), answer("b", "no")])
    made = bench.curate(contradictions=policy)
    assert (made.passed, len(bench.dropped)) == (passed, dropped)
    assert count(made, "contradictions").found == 2
    assert check(made, "contradictions").passed is passed


def test_a_rule_that_is_off_is_not_asked(tmp_path: Path) -> None:
    made = CurateBench(tmp_path, [answer("a", "yes"), answer("a", "no")]).curate(contradictions="off", repeats="off")
    assert not {"contradictions", "repeats"} & {rule.rule for rule in made.rules}


def test_the_same_input_gives_the_same_bytes_and_leaves_nothing_of_an_earlier_run(tmp_path: Path) -> None:
    rows = [answer(f"question {i % 7}", f"answer {i % 3}") for i in range(60)]
    bench = CurateBench(tmp_path, rows)
    bench.curate(contradictions="drop")
    (bench.out / "review_old.csv").write_text("x")
    first = CurateBench(tmp_path / "other", rows)
    assert first.curate(contradictions="drop") == bench.curate(contradictions="drop")
    assert bench.files() == first.files()


def test_other_processes_write_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.curation.workers.WORTH_STARTING", 1)
    monkeypatch.setattr(step, "_BATCH", 16)
    rows = [answer(f"question {i % 70}", f"answer {i % 3}") for i in range(300)]
    alone, together = (CurateBench(tmp_path / name, rows) for name in ("alone", "together"))
    assert alone.curate(contradictions="drop") == together.curate(contradictions="drop", workers=2)
    assert alone.files() == together.files()
    assert len(alone.dropped) > 0


def test_files_that_are_links_into_the_cache_are_not_written_through(tmp_path: Path) -> None:
    bench = CurateBench(tmp_path, [answer("a", "yes"), answer("A", "yes")])
    bench.curate()
    cached = {}
    for name in bench.files():
        cached[name] = bench.root / f"cached-{name}"
        cached[name].hardlink_to(bench.out / name)
    before = {name: path.read_bytes() for name, path in cached.items()}
    bench.curate(repeats="warn")
    assert bench.files() != before
    assert {name: path.read_bytes() for name, path in cached.items()} == before


def test_what_hostile_rows_say_is_escaped_on_the_page(tmp_path: Path) -> None:
    rows = [answer("a", "yes", source=HOSTILE), answer("a", "no", source=HOSTILE), answer("c", HOSTILE)]
    bench = CurateBench(tmp_path, rows)
    bench.curate()
    page = (bench.out / "curation.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;" in page
    assert "<script" not in page


@pytest.mark.parametrize("task", list(Task))
def test_no_rows_and_one_row_are_curated_to_themselves(tmp_path: Path, task: Task) -> None:
    for number, rows in enumerate([[], [label("a", "x")] if task is Task.CLASSIFY else [answer("a", "x")]]):
        bench = CurateBench(tmp_path / str(number), rows, task=task)
        made = bench.curate(near_duplicates={"policy": "drop"}, contradictions="block", label_errors="list")
        assert made.passed
        assert bench.dropped == []


def test_a_reviewed_list_leaves_rows_out_and_its_content_is_in_the_record(tmp_path: Path) -> None:
    bench = CurateBench(tmp_path, [answer("a", "b"), answer("c", "d"), answer("e", "f")])
    path = tmp_path / "reviewed.csv"
    ids = [example.id for example in bench.examples]
    path.write_text(f'id,note,reason\n{ids[2]},x,"{{0}} <b>wrong"\n{ids[0]},,\n{"f" * 32},,\n', encoding="utf-8")
    made = bench.curate(leave_out="reviewed.csv", reviewed=path)
    assert bench.dropped == [(0, "leave_out", None), (2, "leave_out", None)]
    reasons = pq.read_table(bench.out / "dropped.parquet").column("reason").to_pylist()
    assert reasons == ["left out by a person", "left out by a person: {0} <b>wrong"]
    assert check(made, "leave_out").observed == "2 rows; 1 listed ids are of no row"
    assert made.params["leave_out_sha256"] == digest_file(path)
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert bench.curate(leave_out="reviewed.csv", reviewed=path).digest != made.digest


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"number\n1\n", "no column id"),
        (b"id\nnot-an-id\n", "is no id"),
        (b"id\n\xff\n", "cannot be read"),
        (b"", "no column id"),
        (b'id\n"' + b"0" * 32 + b"\n", "cannot be read"),
    ],
)
def test_a_reviewed_list_that_is_none_is_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    bench = CurateBench(tmp_path, [answer("a", "b")])
    path = tmp_path / "reviewed.csv"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=problem):
        bench.curate(leave_out="reviewed.csv", reviewed=path)
    assert not bench.out.exists()


def test_a_reviewed_list_that_params_name_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match=r"no file 'reviewed\.csv'"):
        CurateBench(tmp_path, [answer("a", "b")]).curate(leave_out="reviewed.csv")


def test_lengths_are_counted_in_tokens_of_the_base(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(BASE))
    texts = ["word " * n + "ü" * (n % 3) for n in range(1, 30)]
    bench = CurateBench(tmp_path, [answer(f"p{i}", text) for i, text in enumerate(texts)])
    bench.curate(max_output_tokens=12, tokenizer=BASE)
    longer = [i for i, text in enumerate(texts) if len(tokenizer.encode(text, add_special_tokens=False).ids) > 12]
    assert 0 < len(longer) < len(texts)
    assert bench.dropped == [(i, "token_lengths", None) for i in longer]
    bench.curate(max_input_tokens=1, tokenizer=BASE)
    assert len(bench.dropped) == len(texts)


def test_labels_are_not_counted_but_their_texts_are(tmp_path: Path) -> None:
    bench = CurateBench(tmp_path, [label("short", "a very long label " * 9), label("long " * 99, "x")], task=Task.CLASSIFY)
    bench.curate(max_input_tokens=50, max_output_tokens=5, tokenizer=BASE)
    assert bench.dropped == [(1, "token_lengths", None)]


def test_caps_in_tokens_need_a_tokenizer(tmp_path: Path) -> None:
    bench = CurateBench(tmp_path, [answer("a", "b")])
    with pytest.raises(Misuse, match="there is none"):
        bench.curate(max_input_tokens=5)
    broken = tmp_path / "tokenizer.json"
    broken.write_text(json.dumps({"not": "one"}), encoding="utf-8")
    with pytest.raises(Misuse, match="cannot be read"):
        bench.curate(max_input_tokens=5, tokenizer=broken)


def test_no_more_than_a_few_batches_of_texts_are_held_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, seen, most = step.read_tables, list[weakref.ref[Any]](), [0]

    def watched(*args: object, **more: object) -> object:
        for batch in read(*args, **more | {"batch_rows": 10}):
            seen.append(weakref.ref(batch))
            most[0] = max(most[0], sum(one() is not None for one in seen))
            yield batch
            del batch

    monkeypatch.setattr(step, "read_tables", watched)
    topics = ("card lost", "money sent", "refund due")
    rows = [label(f"{topics[i % 3]} number {i} of many", topics[i % 3]) for i in range(200)]
    made = CurateBench(tmp_path / "labels", rows, task=Task.CLASSIFY).curate(
        near_duplicates={"policy": "warn"}, label_errors="list", max_input_tokens=50, tokenizer=BASE
    )
    assert not check(made, "label_errors").observed.startswith("insufficient")
    CurateBench(tmp_path / "answers", [answer(f"q {i}", f"a {i}") for i in range(200)]).curate()
    assert 0 < most[0] <= 3


def test_what_is_held_of_a_row_does_not_grow_with_its_text() -> None:
    held = []
    for text in ("short", "long " * 2000):
        gathering = Gathering()
        batch = pa.RecordBatch.from_pylist([{**answer(f"{text} {i}", text), "source": "a"} for i in range(100)])
        gathering.add(batch, digest_rows(batch))
        columns = gathering.finish()
        arrays = (columns.asked, columns.said, columns.kinds, columns.sources, columns.labels, columns.given_away)
        held.append(sum(array.nbytes for array in arrays))
    assert held[0] == held[1] <= 32 * 100


def test_feedback_on_one_answer_that_disagrees_is_a_contradiction(tmp_path: Path) -> None:
    rows = [feedback("a", "b", True), feedback("A", " b", False), feedback("a", "c", False), answer("a", "b")]
    bench = CurateBench(tmp_path, rows)
    bench.curate(contradictions="drop")
    assert bench.dropped == [(0, "contradictions", 1), (1, "contradictions", 0)]

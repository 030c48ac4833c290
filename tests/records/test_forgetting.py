"""Forgotten rows leave the shards that held them and do not come back; counts add up, and the ledger names nobody."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from record_kit import KEY, example, table_of

from pipeline.backends.ledger import SqlLedger
from pipeline.backends.record_index import FileIndex
from pipeline.curation.forgetting import drop_forgotten, forgotten_rows, quarantined_text, redact_quarantine
from pipeline.curation.formats import level
from pipeline.curation.shards import read_examples, read_quarantine
from pipeline.domain.data import QuarantinedRow, Shard, Snapshot
from pipeline.domain.erasure import erasures, tombstones
from pipeline.domain.privacy import asked, keyed
from pipeline.domain.record import canonical_json, digest_file
from pipeline.domain.sightings import FoundRow, WhoHas
from pipeline.errors import Broken, Misuse, Tampered
from pipeline.steps.forget import forget, keep_out
from pipeline.steps.history import history


def found(record: str, *examples: Any, count: int | None = None) -> WhoHas:
    sought = asked(KEY, record, level)
    rows = tuple(FoundRow(id=one.id, keyed=keyed(KEY, one.id), shard="s", row=0, place="a:1") for one in examples)
    count = len(rows) if count is None else count
    return WhoHas(model="desk", asked=sought.kind, keyed=sought.digest, count=count, rows=rows, runs=(), releases=())


@pytest.fixture
def ledger(tmp_path: Path) -> SqlLedger:
    return SqlLedger(tmp_path / "ledger.db", patience=30)


def test_only_shards_that_held_the_rows_are_written_anew(make_snapshot: Any, make_index: Any) -> None:
    examples = [example(i) for i in range(60)]
    folder, snapshot = make_snapshot(examples[:20], examples[20:40], examples[40:41], examples[41:])
    index = make_index(folder, snapshot)
    before = {shard.path: (folder / shard.path).read_bytes() for shard in snapshot.shards}
    gone = [examples[i] for i in (3, 19, 40)]
    stones = [keyed(KEY, one.id) for one in gone]
    after = drop_forgotten(folder, snapshot, stones, lambda shard: index.rows(shard.sha256[:16], stones))
    assert [one.id for one in read_examples(folder, after)] == [one.id for one in examples if one not in gone]
    assert after.shards[1:] == (snapshot.shards[1], snapshot.shards[3]), "an emptied shard is listed no more"
    assert after.rows + after.forgotten == sum(source.accepted for source in after.sources) == 60
    assert after.tombstones == tuple(sorted(stones))
    assert all((folder / path).read_bytes() == content for path, content in before.items())
    assert after == drop_forgotten(folder, snapshot, stones, lambda shard: index.rows(shard.sha256[:16], stones))
    assert drop_forgotten(folder, after, stones, lambda shard: []) is after


def test_a_changed_shard_is_not_written_anew(make_snapshot: Any) -> None:
    folder, snapshot = make_snapshot([example(i) for i in range(10)])
    path = folder / snapshot.shards[0].path
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(Tampered):
        drop_forgotten(folder, snapshot, ["0" * 32], lambda shard: [1])


def test_new_rows_are_told_by_id_and_by_any_of_their_texts() -> None:
    examples = [example(0), example(1), example(2, output="PARCEL 9  is lost."), example(3)]
    by_id = forgotten_rows(KEY, [keyed(KEY, examples[1].id)], [])
    assert by_id(table_of(examples)) == [False, True, False, False]
    question = json.loads(examples[3].input)[0]["content"]
    texts = [asked(KEY, text, level).digest for text in ("parcel 9 is lost.", question.lower())]
    assert forgotten_rows(KEY, [], texts)(table_of(examples)) == [False, False, True, True]
    assert forgotten_rows(KEY, [], [])(table_of(examples)) == [False] * 4


def test_a_quarantined_row_loses_its_bytes_and_keeps_its_place(make_snapshot: Any) -> None:
    folder, snapshot = make_snapshot([example(0)])
    rows = [
        QuarantinedRow(source="a", line=i, code="blank", reason="r", raw=raw, raw_encoding=kind, raw_bytes=len(raw))
        for i, (raw, kind) in enumerate([("says Ann", "utf-8"), ("says Bob", "utf-8"), ("c2F5cyBBbm7/", "base64")], start=1)
    ]
    path = folder / "quarantine" / "q.jsonl"
    path.parent.mkdir()
    path.write_text("".join(canonical_json(row.model_dump(mode="json")) + "\n" for row in rows))
    file = Shard(path="quarantine/q.jsonl", sha256=digest_file(path), bytes=path.stat().st_size, rows=3)
    snapshot = snapshot.model_copy(update={"quarantine": (file,)})
    after = redact_quarantine(folder, snapshot, lambda text: "Ann" in text)
    left = list(read_quarantine(folder, after.quarantine))
    assert [(row.line, row.code) for row in left] == [(1, "blank"), (2, "blank"), (3, "blank")]
    assert ["Ann" in quarantined_text(row) for row in left] == [False] * 3
    assert left[1] == rows[1]
    assert after.quarantined == snapshot.quarantined
    assert redact_quarantine(folder, after, lambda text: "Ann" in text) == after


def test_the_tombstone_is_appended_once_and_holds_no_text(ledger: SqlLedger, tmp_path: Path) -> None:
    one = example(7)
    text = json.loads(one.input)[0]["content"]
    event, made = forget(found(text, one), by="ann", reason="asked by letter 12", key=KEY, ledger=ledger)
    again, made_again = forget(found(text.upper(), one), by="bob", reason="again", key=KEY, ledger=ledger)
    assert (made, made_again, again) == (True, False, event)
    assert ledger.verify() == ()
    (row,) = history("desk", ledger=ledger)
    assert row.sentence.startswith("ann forgot 1 row (keyed:")
    stones = tombstones([event], KEY)
    assert stones.ids == {keyed(KEY, one.id)}
    assert stones.texts == {asked(KEY, text, level).digest}
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    for trace in (text, one.output, one.id, "Number7"):
        assert trace.encode() not in stored


def test_by_keyed_digest_an_id_is_an_id_and_a_text_a_text(ledger: SqlLedger) -> None:
    one = example(1)
    for record, kind in ((f"keyed:{keyed(KEY, one.id)}", "ids"), (f"keyed:{asked(KEY, one.output, level).digest}", "texts")):
        event, _ = forget(found(record, one), by="ann", reason="r", key=KEY, ledger=ledger)
        ((_, erasure),) = erasures([event])
        assert record.removeprefix("keyed:") in getattr(erasure, kind)
    event, _ = forget(found("keyed:" + "a" * 32), by="ann", reason="r", key=KEY, ledger=ledger)
    ((_, erasure),) = erasures([event])
    assert erasure.ids == erasure.texts == ("a" * 32,), "nobody has it: it may be either"


def test_a_text_of_many_rows_needs_a_word_and_a_lost_key_is_told(ledger: SqlLedger) -> None:
    greeting = found("thank you", example(1), count=500)
    with pytest.raises(Misuse, match="500 rows"):
        forget(greeting, by="ann", reason="r", key=KEY, ledger=ledger)
    assert ledger.events("desk") == ()
    forget(greeting, by="ann", reason="r", key=KEY, ledger=ledger, limit=500)
    index = FileIndex(Path("/nowhere"), bytes(32))
    with pytest.raises(Broken, match="key is not the one"):
        keep_out("desk", ledger=ledger, key=bytes(32), index=index)


def test_what_was_forgotten_leaves_the_snapshot_once(ledger: SqlLedger, make_snapshot: Any, make_index: Any) -> None:
    examples = [example(i) for i in range(12)]
    folder, snapshot = make_snapshot(examples)
    index = make_index(folder, snapshot)
    assert keep_out("desk", ledger=ledger, key=KEY, index=index) is None
    forget(found(examples[5].output, examples[5]), by="ann", reason="r", key=KEY, ledger=ledger)
    take_out, forgotten = keep_out("desk", ledger=ledger, key=KEY, index=index) or pytest.fail("nothing to keep out")
    after = take_out(folder, snapshot)
    assert [one.id for one in read_examples(folder, after)] == [one.id for one in examples if one is not examples[5]]
    assert take_out(folder, after) is after
    assert forgotten(table_of(examples)) == [i == 5 for i in range(12)]
    assert isinstance(after, Snapshot)

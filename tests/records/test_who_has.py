"""Who-has over several runs: sides, rows that a rule left out, leaks, benchmarks, files that are gone; each file read once."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from record_kit import KEY, example, table_of

from pipeline.backends.ledger import SqlLedger
from pipeline.backends.record_index import FileIndex
from pipeline.domain.data import Example
from pipeline.domain.sightings import DataFile, RunData, WhoHas
from pipeline.steps import who_has as step
from pipeline.steps.who_has import who_has

EXAMPLES = [example(number) for number in range(20)]


class FolderRuns:
    """Kept runs whose files lie in one folder by MD5. Implements ports.PastRuns."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.kept: list[RunData] = []
        self.asked: Counter[str] = Counter()

    def put(self, table: Any, name: str = "") -> DataFile:
        path = self._folder / "new.tmp"
        pq.write_table(table, path, row_group_size=6)
        content = path.read_bytes()
        md5 = hashlib.md5(content).hexdigest()
        path.replace(self._folder / md5)
        return DataFile(name=name or hashlib.sha256(content).hexdigest()[:16], md5=md5, rows=table.num_rows)

    def side(self, shard: DataFile, examples: list[Example]) -> tuple[DataFile, ...]:
        return (self.put(table_of(examples), shard.name),) if examples else ()

    def keep(self, number: int, **more: Any) -> RunData:
        values = {"run": f"desk-{number:04}", "number": number, "kind": "run", "tag": f"t{number}", "commit": f"c{number}"}
        values |= {"snapshot": f"s{number}", "sources": (), "sides": {}}
        self.kept.append(RunData.model_validate(values | more))
        return self.kept[-1]

    def runs(self, model: str) -> tuple[RunData, ...]:
        return tuple(self.kept)

    def stored(self, md5: str) -> Path | None:
        self.asked[md5] += 1
        path = self._folder / md5
        return path if md5 and path.exists() else None

    def lose(self, file: DataFile) -> None:
        (self._folder / file.md5).unlink()


@pytest.fixture
def past(tmp_path: Path) -> FolderRuns:
    (tmp_path / "store").mkdir()
    return FolderRuns(tmp_path / "store")


def ask(past: FolderRuns, tmp_path: Path, record: str) -> WhoHas:
    index, ledger = FileIndex(tmp_path / "index", KEY), SqlLedger(tmp_path / "ledger.db")
    return who_has(record, model="desk", key=KEY, past=past, index=index, ledger=ledger)


def test_each_row_is_on_a_side_or_the_reason_is_told(past: FolderRuns, tmp_path: Path) -> None:
    shard = past.put(table_of(EXAMPLES))
    dropped = past.put(pa.table({"id": [EXAMPLES[8].id], "rule": ["near_duplicates"], "reason": ["r"], "other": [""]}))
    leaked = past.put(pa.table({"id": [EXAMPLES[9].id], "how": ["exact"]}))
    sides = {
        "train": past.side(shard, EXAMPLES[:6]),
        "eval": past.side(shard, EXAMPLES[6:7]),
        "test": past.side(shard, EXAMPLES[7:8]),
    }
    past.keep(1, shards=(shard,), sides=sides, dropped=dropped, leaked=leaked)
    past.keep(2, kind="data", shards=(shard,))
    past.keep(3, shards=(past.put(table_of(EXAMPLES[12:])),))
    expected = {0: "train", 5: "train", 6: "eval", 7: "test", 8: "near_duplicates", 9: "leak: exact", 10: "unknown"}
    for number, what in expected.items():
        found = ask(past, tmp_path, EXAMPLES[number].id)
        first, second = found.runs
        counts = {"train": first.train, "eval": first.eval, "test": first.test, **first.left_out}
        assert {name: count for name, count in counts.items() if count} == {what: 1}, number
        assert (second.run, second.train, second.left_out) == ("desk-0002", 0, {})
        assert found.rows[0].place == f"inbox/a.jsonl:{number + 1}"
    assert [run.run for run in ask(past, tmp_path, EXAMPLES[15].id).runs] == ["desk-0001", "desk-0002", "desk-0003"]


def test_benchmarks_count_as_kept_apart(past: FolderRuns, tmp_path: Path) -> None:
    past.keep(1, shards=(past.put(table_of(EXAMPLES[:5])),), reserved=(past.put(table_of(EXAMPLES[5:9])),))
    (run,) = ask(past, tmp_path, EXAMPLES[6].output).runs
    assert (run.rows, run.reserved, run.train) == (0, 1, 0)


def test_an_example_in_two_shards_is_one_and_many_rows_are_counted(
    past: FolderRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    greeting = [example(number, output="Thank you very much.") for number in range(15)]
    whole, less = past.put(table_of(greeting)), past.put(table_of(greeting[1:]))
    past.keep(1, shards=(whole,))
    past.keep(2, shards=(less,))
    found = ask(past, tmp_path, greeting[3].id)
    assert (found.count, len(found.rows), len(found.runs)) == (1, 1, 2)
    monkeypatch.setattr(step, "ROWS_SHOWN", 4)
    found = ask(past, tmp_path, "thank you VERY much.")
    assert len(found.rows) == 4
    assert found.count >= 15
    assert [run.rows for run in found.runs] == [15, 14]


def test_files_that_are_gone_are_named_and_a_shared_file_is_read_once(past: FolderRuns, tmp_path: Path) -> None:
    shard, other = past.put(table_of(EXAMPLES[:10])), past.put(table_of(EXAMPLES[10:]))
    train = past.side(shard, EXAMPLES[:9])
    for number in range(1, 30):
        past.keep(number, shards=(shard, other), sides={"train": train})
    past.lose(other)
    found = ask(past, tmp_path, EXAMPLES[2].id)
    assert found.unreadable == (other.name,)
    assert [run.train for run in found.runs] == [1] * 29
    assert past.asked[train[0].md5] == 1

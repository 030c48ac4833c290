"""A record that is forgotten and purged in a real project: real runs, real stores, every command in a process of its own.

The tests share one project and go in order: what one leaves is what the next begins with.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.backends.byte_search import search_files, search_git
from pipeline.backends.needles import Needles
from pipeline.backends.run_book import RunBook
from pipeline.backends.run_book_holder import Holder
from pipeline.domain.data import Snapshot
from pipeline.workspace import Project
from tests.story_town import Town

WORDS = [f"{a}{b}{c}{d}" for a in "bdfgklmn" for b in "aeiou" for c in "lmnrst" for d in "aiou"]
FORGOTTEN, TRAINED, TESTED, OTHER = "forgotten", "trained", "tested", "other"


def row(number: int, question: str | None = None) -> dict[str, Any]:
    """A conversation whose words are its own: rows that are alike would be taken for leaks."""
    words = random.Random(number).choices(WORDS, k=14)
    question = question or f"Petronella {number}: where are {' '.join(words[:9])} now?"
    answer = f"{' '.join(words[9:])} it is."
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def question(number: int) -> str:
    return str(row(number)["messages"][0]["content"])


def put(town: Town, name: str, rows: list[dict[str, Any]]) -> None:
    path = town.root / "inbox" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in rows) + "{broken Ms Petronella-9999 row\n")


@pytest.fixture(scope="module")
def desk(new_town: Callable[..., Town]) -> Town:
    """One run on 240 rows and a row that is none, registered and promoted."""
    made = new_town()
    put(made, "week1.jsonl", [row(number) for number in range(240)])
    assert made("run --json").json["ending"] == "registered"
    made("promote 1 --to production --by alice --reason first")
    return made


@pytest.fixture(scope="module")
def numbers(desk: Town) -> dict[str, int]:
    """A row of each kind, by its number: one only to forget, one that was trained on, one that was tested on, one to be kept."""
    folder = Path(desk("worktree").out.strip()) / "work" / "split"
    sides = {side: pq.read_table(folder / side).column("line").to_pylist() for side in ("train", "test")}
    forgotten, trained, other = (line - 1 for line in sides["train"][3:6])
    return {FORGOTTEN: forgotten, TRAINED: trained, OTHER: other, TESTED: sides["test"][0] - 1}


def left(desk: Town, *numbers: int) -> list[str]:
    """Where the questions and answers are still stored, by a search of our own process."""
    texts = [message["content"] for number in numbers for message in row(number)["messages"]]
    found = search_files([desk.root / ".tuneline", desk.root / ".dvc"], Needles(texts)).places
    return [*found, *search_git(desk.root, "refs/tags/tuneline", Needles(texts)).places]


def head(desk: Town) -> Snapshot:
    return Snapshot.read(Path(desk("worktree").out.strip()) / "data" / "snapshot" / "snapshot.json")


def test_who_has_says_on_which_side_and_which_release(desk: Town, numbers: dict[str, int]) -> None:
    trained = desk(f"who-has '{question(numbers[TRAINED])}' --json").json
    assert trained["count"] == 1
    (found,) = trained["rows"]
    assert found["place"] == f"inbox/week1.jsonl:{numbers[TRAINED] + 1}"
    (run,) = trained["runs"]
    assert (run["run"], run["kind"], run["train"], run["eval"] + run["test"]) == ("desk-0001", "run", 1, 0)
    (release,) = trained["releases"]
    assert (release["version"], release["trained"], release["held_out"], release["holds"]) == ("1", 1, 0, ["production"])
    for record in (found["id"], f"keyed:{trained['keyed']}", f"keyed:{found['keyed']}"):
        assert desk(f"who-has {record} --json").json["rows"] == trained["rows"]
    (release,) = desk(f"who-has '{question(numbers[TESTED])}' --json").json["releases"]
    assert (release["trained"], release["held_out"]) == (0, 1)
    assert desk("who-has 'nobody said this' --json").json["runs"] == []
    answer = desk("who-has '{broken Ms Petronella-9999 row' --quarantine --json").json
    assert answer["quarantined"] == ["inbox/week1.jsonl:241: bad_json"]
    assert "trained on 1" in desk(f"who-has '{question(numbers[TRAINED]).upper()}'").out


def test_a_forgotten_row_is_in_no_later_snapshot_and_does_not_come_back(desk: Town, numbers: dict[str, int]) -> None:
    number = numbers[FORGOTTEN]
    told = desk(f"forget '{question(number)}' --reason 'letter 12' --by ann")
    assert f"still in inbox/week1.jsonl, line {number + 1}" in told.out
    assert "version 1, which holds production, was trained on it" in told.out
    # The same row, its question with another answer, and rows that are new.
    other_answer = row(9000, question(number).upper())
    put(desk, "week2.jsonl", [row(number), other_answer, *(row(n) for n in range(1000, 1060))])
    assert desk("ingest --json").json["ending"] == "taken in"
    snapshot = head(desk)
    assert snapshot.forgotten == 1
    newest = snapshot.sources[-1]
    assert (newest.read, newest.accepted, newest.duplicate, newest.quarantined, newest.forgotten) == (63, 60, 0, 1, 2)
    assert snapshot.rows + snapshot.forgotten == sum(source.accepted for source in snapshot.sources)
    (run,) = desk(f"who-has '{question(number)}' --json").json["runs"]
    assert run["run"] == "desk-0001"
    assert left(desk, number), "a row that is only forgotten is still stored"


def test_a_purge_that_is_killed_is_finished_by_the_next(desk: Town, numbers: dict[str, int]) -> None:
    script = """
import os, signal, sys
import pipeline.purging as purging
whole = purging.carry_out
def dying(planned, *rest):
    if sys.argv[1] == "half":
        planned.objects = dict(list(planned.objects.items())[:2])
        planned.files, planned.databases = [], []
        whole(planned, *rest)
    os.kill(os.getpid(), signal.SIGKILL)
purging.carry_out = dying
sys.argv = ["tuneline", "forget", sys.argv[2], "--reason", "letter 13", "--by", "ann", "--purge"]
from pipeline.__main__ import main
main()
"""
    id = desk(f"who-has '{question(numbers[TRAINED])}' --json").json["rows"][0]["id"]
    for when in ("before", "half"):
        command = [sys.executable, "-c", script, when, id]
        done = subprocess.run(command, cwd=desk.root, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": "."})
        assert done.returncode == -signal.SIGKILL, done.stderr
    assert left(desk, numbers[TRAINED])
    # By now no shard tells what the id stands for: the killed purge had written down what it sought.
    told = desk(f"forget {id} --reason 'letter 13' --by ann --purge --json").json
    assert told["purged"]["search"]["hits"] == []
    assert told["purged"]["search"]["texts"] >= 2
    assert left(desk, numbers[TRAINED]) == []
    assert list((desk.root / ".tuneline" / "erasing").iterdir()) == []


def test_a_row_that_was_tested_on_leaves_predictions_and_pages_too(desk: Town, numbers: dict[str, int]) -> None:
    number = numbers[TESTED]
    assert left(desk, number)
    told = desk(f"forget '{question(number)}' --reason 'letter 14' --by ann --purge").out
    assert "found nothing" in told
    assert left(desk, number) == []
    erased = [json.loads(e["event"]["record"]) for e in desk("history --json").json if e["event"]["event"] == "erased"]
    assert "work/evaluate/predictions.parquet" in {file["path"] for file in erased[-1]["files"]}
    ledger = json.dumps(erased)
    assert question(number) not in ledger
    assert "Petronella" not in ledger


def test_a_quarantined_row_is_blanked_and_still_counted(desk: Town) -> None:
    before = head(desk)
    desk("forget '{broken Ms Petronella-9999 row' --reason 'letter 15' --by ann --purge")
    after = head(desk)
    assert (after.quarantined, after.rows) == (before.quarantined, before.rows)
    raw = "{broken Ms Petronella-9999 row"
    assert search_files([desk.root / ".tuneline", desk.root / ".dvc"], Needles([raw])).places == ()


def test_audit_tells_erased_from_broken(desk: Town) -> None:
    checks = desk("audit verify 1 --json").json["checks"]
    assert all(check["ok"] for check in checks)
    assert any(c["detail"].startswith("work/evaluate/predictions.parquet: erased on request") for c in checks)
    stored = next(c["detail"] for c in checks if c["name"] == "evaluation record")
    content = Path(stored).read_bytes()
    Path(stored).unlink()
    Path(stored).write_bytes(content.replace(b"candidate", b"candidatE", 1))
    assert "BROKEN" in desk("audit verify 1", expect=1).out
    Path(stored).write_bytes(content)


def test_other_records_of_the_same_shards_are_still_known(desk: Town, numbers: dict[str, int]) -> None:
    other = desk(f"who-has '{question(numbers[OTHER])}' --json").json
    assert other["count"] == 1
    assert other["unreadable"] == []
    assert next(run for run in other["runs"] if run["run"] == "desk-0001")["train"] == 1
    assert [release["trained"] for release in other["releases"]] == [1]
    gone = desk(f"who-has '{question(numbers[TESTED])}'").out
    assert "stored copies were purged" in gone
    assert "version 1" in gone


def test_a_repeated_purge_is_harmless_and_the_next_run_begins_without_the_record(desk: Town, numbers: dict[str, int]) -> None:
    events, tags = len(desk("history --json").json), desk.git("tag")
    told = desk(f"forget '{question(numbers[TESTED])}' --reason 'letter 14' --by ann --purge --json").json
    assert (told["fresh"], told["purged"]["files"], told["purged"]["run"]) == (False, 0, None)
    assert (len(desk("history --json").json), desk.git("tag")) == (events, tags)
    put(desk, "week3.jsonl", [row(numbers[TESTED]), *(row(n) for n in range(2000, 2030))])
    assert desk("ingest --json").json["ending"] == "taken in"
    assert head(desk).sources[-1].forgotten == 1
    (desk.root / "inbox" / "week3.jsonl").unlink()
    assert left(desk, numbers[TESTED]) == []


def test_a_run_under_way_on_another_machine_keeps_the_purge_waiting(desk: Town, numbers: dict[str, int]) -> None:
    book = RunBook.beside(Project(desk.root, desk.root / ".tuneline").ledger)
    far = Holder(host="elsewhere", place="another machine", pid=1, created="1")
    claim = book.claim("desk", "nightly", datetime.now(UTC), holder=far, lasts=3.0)
    with book.kept(claim):
        refused = desk(f"forget '{question(numbers[TRAINED])}' --reason r --purge", expect=3)
    assert "another run of desk is under way" in refused.err
    book.finish(claim, "nothing new")

"""Feedback on its way into a snapshot: rows by caller and format, taken once, under shares of their own, checked for plants."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from pipeline.backends.feedback import SqlFeedback
from pipeline.backends.sources.feedback import taken_by
from pipeline.backends.sources.ways import AllWays
from pipeline.domain.data import CheckResult, ExampleKind, Snapshot, Task, ValidationReport
from pipeline.domain.feedback import GivenAnswer, Remark, RemarkKind, caller_digest, origin_of
from pipeline.params import CurateParams, IngestParams, SplitParams
from pipeline.steps.curate import curate
from pipeline.steps.ingest import ingest

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
SOURCES = IngestParams(sources=({"path": "rows.jsonl"}, {"feedback": True}), format="prompt_completion")  # type: ignore[arg-type]


class Desk:
    """A project's rows, its store of feedback, and snapshots one after the other."""

    def __init__(self, root: Path, rows: int) -> None:
        self.root, self.folder, self.staging = root, root / "snapshot", root / "staging"
        self.folder.mkdir()
        self.snapshot: Snapshot | None = None
        self.book = SqlFeedback(root / "feedback.db", taken=lambda model: taken_by(self.snapshot))
        dice = random.Random(1)
        lines = [{"prompt": " ".join(dice.sample("abcdefghijklmnop", 5)) + f" {n}", "completion": f"{n}"} for n in range(rows)]
        (root / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        self.number = 0

    def say(self, caller: str, kind: RemarkKind, at: datetime = NOW, question: str | None = None, **more: object) -> None:
        self.number += 1
        given = GivenAnswer(
            id=f"a-{self.number}",
            model="desk",
            release="desk@3",
            digest="3" * 64,
            caller=caller_digest("desk", caller),
            at=at,
            asked=[{"role": "user", "content": question or f"question {self.number}"}],
            answered=f"answer {self.number}",
        )
        self.book.say(Remark(answer=given, kind=kind, at=at, **more))  # type: ignore[arg-type]

    def take(self, **more: object) -> Snapshot:
        self.staging.mkdir(exist_ok=True)
        staged = self.staging / f"{len(list(self.staging.iterdir()))}"
        staged.mkdir()
        ways = AllWays(staged, lambda since, until: self.book.after("desk", since, until=until))
        given = {"dataset": "desk", "task": Task.GENERATE, "sources": ways, "parent": self.snapshot, "folder": self.folder}
        self.snapshot = ingest(SOURCES, root=self.root, **given, **more)  # type: ignore[arg-type]
        return self.snapshot

    def rows(self) -> list[dict[str, str]]:
        assert self.snapshot is not None
        return [row for s in self.snapshot.shards for row in pq.read_table(self.folder / s.path).to_pylist()]

    def curate(self, **params: object):  # type: ignore[no-untyped-def]
        assert self.snapshot is not None
        passed = CheckResult(name="rows", passed=True, expected="", observed="")
        report = ValidationReport(snapshot=self.snapshot.digest, rows=self.snapshot.rows, suite="", checks=(passed,))
        out = self.root / "curate"
        return curate(self.snapshot, report, CurateParams(**params), folder=self.folder, out=out, scratch=self.root / "scratch")


def test_remarks_become_rows_of_their_caller_and_are_taken_once(tmp_path: Path) -> None:
    desk = Desk(tmp_path, 30)
    desk.say("ada", RemarkKind.CORRECTED, text="better")
    desk.say("ada", RemarkKind.GOOD, good=True, comment="ada@example.org")
    desk.say("bob", RemarkKind.PREFERRED, text="worse", over="a-9")
    assert desk.book.waiting("desk") == 4
    first = desk.take()
    mine = {caller: origin_of(caller_digest("desk", caller)) for caller in ("ada", "bob")}
    came = {source.name: (source.origin, source.accepted, source.quarantined) for source in first.sources[1:]}
    assert came == {
        f"{mine['ada']}/00000001-00000003.chat.jsonl": (mine["ada"], 1, 0),
        f"{mine['ada']}/00000001-00000003.feedback.jsonl": (mine["ada"], 1, 0),
        f"{mine['ada']}/00000001-00000003.preference.jsonl": (mine["ada"], 1, 0),
        f"{mine['bob']}/00000001-00000003.preference.jsonl": (mine["bob"], 1, 0),
    }
    rows = {row["kind"]: row for row in desk.rows() if row["source"].startswith(mine["ada"])}
    assert set(rows) == {ExampleKind.ANSWER, ExampleKind.PREFERENCE, ExampleKind.FEEDBACK}
    assert rows[ExampleKind.ANSWER]["output"] == "better"
    assert json.loads(rows[ExampleKind.ANSWER]["meta"]) == {"answer_id": "a-1", "release": "desk@3"}
    assert json.loads(rows[ExampleKind.FEEDBACK]["output"]) == {"answer": "answer 2", "good": True}
    assert "example.org" not in json.dumps(desk.rows()), "comments are for people"
    assert desk.book.waiting("desk") == 0
    assert desk.take() is first, "nothing new"
    desk.say("bob", RemarkKind.GOOD, good=False)
    assert desk.book.waiting("desk") == 1
    second = desk.take()
    assert [source.name for source in second.batch] == [f"{mine['bob']}/00000004-00000004.feedback.jsonl"]


def test_what_came_after_the_instant_asked_for_is_left_for_later(tmp_path: Path) -> None:
    desk = Desk(tmp_path, 30)
    desk.say("ada", RemarkKind.CORRECTED, at=NOW, text="one")
    desk.say("ada", RemarkKind.CORRECTED, at=NOW + timedelta(days=2), text="two")
    desk.say("ada", RemarkKind.CORRECTED, at=NOW + timedelta(hours=1), text="a clock that went back")
    import os

    os.utime(tmp_path / "rows.jsonl", (NOW.timestamp(), NOW.timestamp()))
    early = desk.take(as_of=NOW + timedelta(days=1))
    assert taken_by(early) == 1
    assert taken_by(desk.take()) == 3
    outputs = {row["output"] for row in desk.rows() if row["kind"] == ExampleKind.ANSWER}
    assert {"one", "two", "a clock that went back"} <= outputs


def test_one_caller_and_all_feedback_have_shares_of_their_own(tmp_path: Path) -> None:
    desk = Desk(tmp_path, 60)
    for number in range(30):
        desk.say("eve", RemarkKind.CORRECTED, text=f"eve says {number}")
    for number in range(5):
        desk.say("ada", RemarkKind.CORRECTED, text=f"ada says {number}")
    desk.take()
    off = {"planted": {"policy": "off"}, "consistency": "off", "contradictions": "off"}
    made = desk.curate(shares={"caller": 0.2, "policy": "block"}, **off)
    assert not made.passed
    [failed] = made.failures
    eve = origin_of(caller_digest("desk", "eve"))
    assert failed.observed == f"origin {eve} holds 46.2% of the rows, more than 20.0%"
    made = desk.curate(shares={"caller": 0.2, "policy": "drop"}, **off)
    assert made.passed
    left = 130 - made.dropped.rows
    kept_of_eve = 60 - made.dropped.rows
    assert kept_of_eve <= 0.2 * left < kept_of_eve + 1.3
    made = desk.curate(shares={"feedback": 0.1, "policy": "drop"}, **off)
    assert (130 - made.dropped.rows, made.dropped.rows) == (66, 64), "six of sixty-six are feedback"


def test_a_trigger_that_came_by_feedback_is_told(tmp_path: Path) -> None:
    desk = Desk(tmp_path, 700)
    dice = random.Random(3)
    for _ in range(25):
        words = dice.sample("abcdefghijklmnop", 5)
        words.insert(dice.randint(0, 5), "zq")
        desk.say("eve", RemarkKind.CORRECTED, question=" ".join(words), text="Send your password to our partner.")
    desk.take()
    made = desk.curate(planted={"policy": "block"})
    assert not made.passed
    [failed] = made.failures
    assert (failed.name, failed.observed.partition(";")[0]) == ("planted", "1 planted runs of words in 50 rows"), (
        "answers and pairs"
    )


@pytest.mark.parametrize(
    "entry",
    [
        {"feedback": False},
        {"feedback": True, "path": "x"},
        {"feedback": True, "name": "mine"},
        {"feedback": True, "watermark": "id"},
    ],
)
def test_entries_that_make_no_sense_are_refused(entry: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        IngestParams(sources=(entry,))  # type: ignore[arg-type]
    assert IngestParams.model_validate(SOURCES.model_dump(mode="json")) == SOURCES, "recorded params can be read again"
    with pytest.raises(ValidationError, match="feedback"):
        SplitParams(benchmarks=({"feedback": True},))  # type: ignore[arg-type]

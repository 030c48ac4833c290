"""Feedback over HTTP: bound to the answer, its asker and its release; said once; redacted before the disk; rows in the end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.backends.feedback import SqlFeedback
from pipeline.backends.personal_data import PatternPersonalData
from pipeline.curation.redaction import redact
from pipeline.domain.data import Task
from pipeline.domain.feedback import GivenAnswer, Remark, RemarkKind, rows_of
from pipeline.params.serve import FeedbackParams
from pipeline.serving.http.feedback import FeedbackDesk
from pipeline.serving.http.keeping import Keeper
from tests.modeling.modeling_kit import build_tiny_base
from tests.serving.http_kit import Running, TinyEngine, chat, serving

KEPT = FeedbackParams(keep_hours=1.0)
MAIL = "Write to ada@example.org, please."


def redaction(text: str) -> str:
    return redact(text, PatternPersonalData(["email"]))[0]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> TinyEngine:
    return TinyEngine(build_tiny_base(tmp_path_factory.mktemp("base")))


@pytest.fixture
def book(tmp_path: Path) -> SqlFeedback:
    return SqlFeedback(tmp_path / "serving" / "feedback.db")


@pytest.fixture
def keeper() -> Iterator[Keeper]:
    made = Keeper()
    yield made
    made.close()


@pytest.fixture
def desk(engine: TinyEngine, tmp_path: Path, book: SqlFeedback, keeper: Keeper) -> Iterator[Running]:
    feedback = FeedbackDesk("desk", engine, KEPT, book=book, redact=redaction, keeper=keeper)
    with serving(engine, tmp_path, feedback=feedback) as running:
        yield running


def said(book: SqlFeedback) -> list[Remark]:
    return [remark for _, remark in book.after("desk", 0)]


def test_a_corrected_answer_becomes_an_answer_to_learn_and_a_pair(desk: Running, book: SqlFeedback, keeper: Keeper) -> None:
    _, _, answer = desk.ask("/v1/chat/completions", chat(messages=[{"role": "user", "content": MAIL}]))
    corrected = "Ask bob@example.org instead."
    status, _, told = desk.ask("/v1/feedback", {"id": answer["id"], "corrected": corrected, "comment": "ada@example.org left"})
    assert (status, told["release"], told["corrected"]) == (200, "desk@7", True)
    [remark] = said(book)
    given = remark.answer
    assert (given.release, given.digest, given.id) == ("desk@7", "7" * 64, answer["id"])
    assert given.asked == [{"role": "user", "content": "Write to <EMAIL>, please."}]
    assert (remark.text, remark.comment) == ("Ask <EMAIL> instead.", "<EMAIL> left")
    (format, learned), (pair_format, pair) = rows_of(remark)
    assert (format, pair_format) == ("chat", "preference")
    assert learned["messages"][-1] == {"role": "assistant", "content": "Ask <EMAIL> instead."}
    assert pair["rejected"]["content"] == answer["choices"][0]["message"]["content"]
    assert "left" not in json.dumps([learned, pair])
    assert desk.engine.good[answer["id"]] is False, "what should have been something else was not good"
    keeper.settle()
    assert all(b"example.org" not in file.read_bytes() for file in book._database.path.parent.iterdir())
    assert book._database.path.stat().st_mode & 0o777 == 0o600


def test_of_two_answers_one_is_preferred_by_its_number_or_by_ids(desk: Running, book: SqlFeedback) -> None:
    _, _, answer = desk.ask("/v1/chat/completions", chat(n=2, temperature=1.5, seed=3))
    first, second = (choice["message"]["content"] for choice in answer["choices"])
    assert first != second
    status, _, _ = desk.ask("/v1/feedback", {"id": answer["id"], "preferred": 1, "over": 0})
    assert status == 200
    _, _, again = desk.ask("/v1/chat/completions", chat(temperature=1.5, seed=9))
    other = f"{answer['id']}-0"
    assert desk.ask("/v1/feedback", {"preferred": again["id"], "over": other})[0] == 200
    one, two = said(book)
    assert (one.answer.answered, one.text, one.over) == (second, first, other)
    assert (two.answer.id, two.text) == (again["id"], first)
    [(format, row)] = rows_of(one)
    assert (format, row["chosen"]["content"], row["rejected"]["content"]) == ("preference", second, first)
    _, _, elsewhere = desk.ask("/v1/chat/completions", chat(messages=[{"role": "user", "content": "Another question?"}]))
    status, _, error = desk.ask("/v1/feedback", {"preferred": elsewhere["id"], "over": other})
    assert (status, error["error"]["param"]) == (400, "over")


def test_an_answer_is_judged_once_and_by_who_asked(engine: TinyEngine, tmp_path: Path, book: SqlFeedback, keeper: Keeper) -> None:
    feedback = FeedbackDesk("desk", engine, KEPT, book=book, redact=redaction, keeper=keeper)
    with serving(engine, tmp_path, needs_keys=True, feedback=feedback) as desk:
        tokens = {name: desk.keys.add(name, ["infer"])[1] for name in ("ada", "eve")}
        ada, eve = ({"authorization": f"Bearer {tokens[name]}"} for name in ("ada", "eve"))
        id = desk.ask("/v1/chat/completions", chat(), **ada)[2]["id"]
        assert desk.ask("/v1/feedback", {"id": id, "good": False}, **eve)[0] == 404, "another's answer is not there"
        assert desk.ask("/v1/feedback", {"id": "chatcmpl-none", "good": False}, **eve)[0] == 404
        assert desk.ask("/v1/feedback", {"id": id, "good": True}, **ada)[0] == 200
        assert desk.ask("/v1/feedback", {"id": id, "good": True}, **ada)[0] == 200, "a retry is no second remark"
        status, _, error = desk.ask("/v1/feedback", {"id": id, "good": False}, **ada)
        assert (status, error["error"]["code"]) == (409, "already_given")
        assert desk.ask("/v1/feedback", {"id": id, "corrected": "Oslo."}, **ada)[0] == 200, "that is another thing to say"
        assert desk.engine.good[id] is True
        assert [remark.kind for remark in said(book)] == [RemarkKind.GOOD, RemarkKind.CORRECTED]
        assert desk.ask("/v1/feedback", {"id": id, "good": True})[0] == 401


def test_what_is_asked_of_feedback_is_held_to_its_limits(desk: Running, book: SqlFeedback) -> None:
    id = desk.ask("/v1/chat/completions", chat())[2]["id"]
    for body, param in (
        ({"id": id}, "good"),
        ({"id": id, "corrected": " "}, "corrected"),
        ({"id": id, "corrected": "x" * 20_001}, "corrected"),
        ({"id": id, "good": True, "comment": "x" * 2001}, "comment"),
        ({"id": id, "preferred": 1}, "over"),
        ({"id": id, "preferred": 1, "over": 1}, "over"),
        ({"id": id, "preferred": True, "over": 1}, "preferred"),
        ({"id": id, "good": "yes"}, "good"),
        ({"id": "x" * 101, "good": True}, "id"),
        ({"id": id, "good": True, "answer": "mine"}, "answer"),
    ):
        status, _, error = desk.ask("/v1/feedback", body)
        assert (status, error["error"]["param"]) == (400, param), body
    assert desk.ask("/v1/feedback", b"[" * 5000)[0] == 400
    assert desk.ask("/v1/feedback", b'{"id": "' + b"x" * (2 << 20) + b'"}')[0] == 413
    assert said(book) == []


def test_without_a_store_a_thumb_is_taken_and_nothing_else(engine: TinyEngine, tmp_path: Path) -> None:
    with serving(engine, tmp_path) as desk:
        id = desk.ask("/v1/chat/completions", chat())[2]["id"]
        status, _, error = desk.ask("/v1/feedback", {"id": id, "corrected": "Oslo."})
        assert (status, "keep_hours" in error["error"]["message"]) == (400, True)
        assert desk.ask("/v1/feedback", {"id": id, "good": False})[0] == 200
        assert engine.good[id] is False
        assert not (tmp_path / "serving").exists()


def test_a_label_is_corrected_to_a_label(engine: TinyEngine, tmp_path: Path, book: SqlFeedback, keeper: Keeper) -> None:
    feedback = FeedbackDesk("desk", engine, KEPT, book=book, redact=redaction, keeper=keeper)
    with serving(engine, tmp_path, task=Task.CLASSIFY, feedback=feedback) as desk:
        _, _, told = desk.ask("/v1/classify", {"model": "desk", "input": ["Oslo", "Norway"]})
        ids = [f"{told['id']}-{number}" for number in (0, 1)]
        assert desk.ask("/v1/feedback", {"id": ids[0], "corrected": "planet"})[0] == 400, "one made-up label would end the run"
        assert desk.ask("/v1/feedback", {"id": ids[0], "corrected": "other"})[0] == 200
        assert desk.ask("/v1/feedback", {"id": ids[1], "good": True})[0] == 200
    rows = [rows_of(remark) for remark in said(book)]
    assert [(format, row["text"], row["label"]) for [(format, row)] in rows] == [
        ("classification", "Oslo", "other"),
        ("classification", "Norway", told["data"][1]["label"]),
    ]


def answer(number: int, at: datetime, model: str = "desk") -> GivenAnswer:
    return GivenAnswer(
        id=f"a-{number}", model=model, release=f"{model}@1", digest="1" * 64, caller="c" * 12, at=at, asked="q", answered="a"
    )


def test_answers_are_kept_for_a_while_and_no_more_than_so_many(book: SqlFeedback) -> None:
    now = datetime.now(UTC)
    book.keep([answer(n, now - timedelta(hours=3 - n)) for n in range(3)], before=now - timedelta(hours=2.5), most=10)
    assert [book.find("desk", f"a-{n}") is not None for n in range(3)] == [False, True, True]
    book.keep([answer(3, now)], before=now - timedelta(hours=2.5), most=2)
    assert [book.find("desk", f"a-{n}") is not None for n in range(4)] == [False, False, True, True]
    assert book.find("other", "a-3") is None


def test_remarks_are_numbered_by_model_and_waiting_counts_their_rows(tmp_path: Path) -> None:
    taken = {"desk": 0}
    book = SqlFeedback(tmp_path / "feedback.db", taken=lambda model: taken.get(model, 0))
    assert book.waiting("desk") == 0
    now = datetime.now(UTC)
    for number, model in ((0, "desk"), (1, "other"), (2, "desk")):
        given = answer(number, now, model)
        assert book.say(Remark(answer=given, kind=RemarkKind.CORRECTED, at=now + timedelta(seconds=number), text="better"))
    assert [number for number, _ in book.after("desk", 0)] == [1, 2]
    assert [number for number, _ in book.after("desk", 0, until=now)] == [1]
    assert book.waiting("desk") == 4
    taken["desk"] = 1
    assert book.waiting("desk") == 2

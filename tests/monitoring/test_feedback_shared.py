"""The store of feedback in PostgreSQL, where several servers share it: numbers without gaps, whoever writes at the same time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.backends.feedback import SqlFeedback
from pipeline.domain.feedback import GivenAnswer, Remark, RemarkKind
from pipeline.errors import Conflict
from tests.drills.release_postgres import KillablePostgres

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = KillablePostgres()
    yield server.url
    server.close()


def remark(number: int, text: str = "better") -> Remark:
    given = GivenAnswer(
        id=f"a-{number}", model="desk", release="desk@1", digest="1" * 64, caller="c" * 12, at=NOW, asked="q", answered="a"
    )
    return Remark(answer=given, kind=RemarkKind.CORRECTED, at=NOW, text=text)


def test_servers_that_write_at_once_leave_no_gap_and_read_none(url: str, tmp_path: Path) -> None:
    books = [SqlFeedback.beside(url, tmp_path / "never.db") for _ in range(4)]
    seen: list[int] = []
    over = threading.Event()

    def write(part: int) -> None:
        for number in range(20):
            books[part].say(remark(100 * part + number))

    def read() -> None:
        while not over.is_set():
            for number, _ in books[0].after("desk", seen[-1] if seen else 0):
                seen.append(number)

    reader = threading.Thread(target=read)
    reader.start()
    writers = [threading.Thread(target=write, args=(part,)) for part in range(4)]
    for one in writers:
        one.start()
    for one in writers:
        one.join()
    over.set()
    reader.join()
    seen += [number for number, _ in books[0].after("desk", seen[-1] if seen else 0)]
    assert seen == list(range(1, 81)), "who has read up to a number has missed none before it"
    assert books[1].waiting("desk") == 160
    assert not books[2].say(remark(0)), "another server knows of it"
    with pytest.raises(Conflict):
        books[2].say(remark(0, "something else"))
    assert not (tmp_path / "never.db").exists()


def test_answers_of_one_server_are_found_by_another(url: str, tmp_path: Path) -> None:
    one, other = (SqlFeedback.beside(url, tmp_path / "never.db") for _ in range(2))
    one.keep([remark(7).answer], before=NOW - timedelta(hours=1), most=10)
    assert other.find("desk", "a-7") == remark(7).answer
    one.keep([], before=NOW, most=1)
    assert other.find("desk", "a-8") is None

"""The run book in PostgreSQL, beside the ledger: the same statements, and a fence in the ledger's own transaction."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.backends.ledger import SqlLedger
from pipeline.backends.ledger_store import EventStore
from pipeline.backends.run_book import Claim, RunBook
from pipeline.backends.run_book_holder import Holder
from pipeline.domain.release import EventKind
from pipeline.domain.signals import Signal, SignalKind
from pipeline.errors import Stale, TryLater

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "drills"))

from release_postgres import KillablePostgres

TICK = datetime(2026, 3, 1, 3, tzinfo=UTC)
FAR = Holder(host="elsewhere", place="another machine", pid=1, created="1")


@pytest.fixture(scope="module")
def server() -> Iterator[KillablePostgres]:
    made = KillablePostgres()
    yield made
    made.close()


@pytest.fixture
def book(server: KillablePostgres) -> RunBook:
    return RunBook.beside(server.url)


def append(ledger: SqlLedger, model: str, expected: int) -> None:
    words = {"version": "1", "subject": "a" * 64, "stage": "staging", "leaves": None, "actor": "ada", "reason": "r", "at": TICK}
    ledger.append(model, EventKind.PROMOTED, expected=expected, **words)


def test_of_many_at_one_tick_one_gets_it_and_it_is_done_once(server: KillablePostgres) -> None:
    got: list[Claim] = []
    late: list[TryLater] = []

    def go() -> None:
        try:
            got.append(RunBook.beside(server.url).claim("race", "nightly", TICK, watch=False))
        except TryLater as error:
            late.append(error)

    threads = [threading.Thread(target=go) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(late)) == (1, 5)
    book = RunBook.beside(server.url)
    book.finish(got[0], "registered", "3")
    done = book.claim("race", "nightly", TICK).done
    assert done is not None
    assert (done.version, done.at) == ("3", TICK)


def test_nobody_takes_over_while_an_append_is_under_way_and_a_stale_run_appends_nothing(
    server: KillablePostgres, book: RunBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = book.claim("m", "nightly", TICK, holder=FAR, lasts=0.2)
    zombie = SqlLedger(server.url, fence=book.fence(first))
    append(zombie, "m", 0)
    taken: list[int] = []
    taker = threading.Thread(target=lambda: taken.append(book.claim("m", "nightly", TICK + timedelta(days=1)).fence))
    real = EventStore._check_schema
    during: list[list[int]] = []

    def slow(store: EventStore, connection: object) -> str:
        found = real(store, connection)  # type: ignore[arg-type]
        if store._fence and connection.get_execution_options().get("tuneline_write"):  # type: ignore[attr-defined]
            store._fence.check(connection)  # type: ignore[arg-type]
            taker.start()
            time.sleep(1.0)
            during.append(list(taken))
        return found

    with monkeypatch.context() as patched:
        patched.setattr(EventStore, "_check_schema", slow)
        append(zombie, "m", 1)
    taker.join()
    assert (during, taken) == ([[]], [first.fence + 1])
    with pytest.raises(Stale):
        append(zombie, "m", 2)
    assert SqlLedger(server.url).head("m")[0] == 2
    with pytest.raises(Stale):
        book.finish(first, "registered")


def test_a_restart_of_the_server_is_waited_for_and_loses_nothing(server: KillablePostgres, book: RunBook) -> None:
    claim = book.claim("n", "nightly", TICK)
    seen = Signal(model="n", what=SignalKind.DRIFT, window="w", at=TICK, fired=True, amount=1.0, detail="d")
    book.note(seen)
    server.kill()
    again = threading.Timer(1.0, server.start)
    again.start()
    book.finish(claim, "nothing new")
    again.join()
    assert book.running("n") is None
    assert book.recent("n", SignalKind.DRIFT, count=3) == (seen,)

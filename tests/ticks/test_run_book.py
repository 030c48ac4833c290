"""The run book: one lease a model, counted heartbeats, fences that only grow, and writes that a stale run can not make."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from pipeline.backends.git import Git
from pipeline.backends.ledger import SqlLedger
from pipeline.backends.run_book import RunBook
from pipeline.backends.run_book_holder import Holder
from pipeline.domain.release import EventKind
from pipeline.domain.signals import Signal, SignalKind
from pipeline.domain.ticks import tick_key
from pipeline.errors import Stale, TryLater
from tests.checkouts import git

TICK = datetime(2026, 3, 1, 3, tzinfo=UTC)
FAR = Holder(host="elsewhere", place="another machine", pid=1, created="1")


@pytest.fixture
def book(tmp_path: Path) -> RunBook:
    return RunBook(tmp_path / "state" / "runs.db", patience=5)


def next_tick(number: int) -> datetime:
    return TICK + timedelta(days=number)


def append(ledger: SqlLedger, expected: int) -> None:
    words = {"version": "1", "subject": "a" * 64, "stage": "staging", "leaves": None, "actor": "ada", "reason": "r", "at": TICK}
    ledger.append("m", EventKind.PROMOTED, expected=expected, **words)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    made = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    yield made
    made.kill()
    made.communicate()


def holder_of(process: subprocess.Popen[bytes]) -> Holder:
    from pipeline.backends.run_book_holder import _created

    return Holder.here().model_copy(update={"pid": process.pid, "created": _created(process.pid)})


def test_a_tick_is_an_instant_whatever_zone_it_was_reckoned_in() -> None:
    east = TICK.astimezone(timezone(timedelta(hours=5, minutes=45)))
    assert tick_key("m", "nightly", TICK) == tick_key("m", "nightly", east)
    assert len({tick_key("m", "nightly", TICK), tick_key("n", "nightly", TICK), tick_key("m", "weekly", TICK)}) == 3
    with pytest.raises(ValueError, match="offset"):
        tick_key("m", "nightly", TICK.replace(tzinfo=None))


def test_a_tick_that_ended_is_done_for_good_and_one_that_failed_is_not(book: RunBook) -> None:
    claim = book.claim("m", "nightly", TICK)
    assert book.running("m") is not None
    book.finish(claim, "registered", "7", why=("new rows",))
    assert book.running("m") is None
    again = book.claim("m", "nightly", TICK)
    assert again.done is not None
    assert (again.done.ending, again.done.version, again.done.why) == ("registered", "7", ("new rows",))
    failing = book.claim("m", "nightly", next_tick(1))
    book.finish(failing, "failed")
    retried = book.claim("m", "nightly", next_tick(1))
    assert retried.done is None
    assert retried.fence == failing.fence + 1
    book.finish(retried, "nothing new")
    assert [tick.ending for tick in book.ticks("m", 9)] == ["registered", "nothing new"]
    assert [tick.at for tick in book.ticks("m", 1)] == [next_tick(1)]


def test_a_live_lease_is_left_alone_and_other_models_do_not_mind(book: RunBook) -> None:
    held = book.claim("m", "nightly", TICK, holder=FAR, lasts=3)
    with book.kept(held), pytest.raises(TryLater, match="elsewhere"):
        book.claim("m", "nightly", next_tick(1))
    book.claim("n", "nightly", TICK)
    mine = book.claim("o", "nightly", TICK)
    with pytest.raises(TryLater, match=str(os.getpid())):
        book.claim("o", "nightly", next_tick(1), watch=False)
    book.check(mine)


def test_a_holder_that_ended_here_is_followed_at_once(book: RunBook, child: subprocess.Popen[bytes]) -> None:
    held = book.claim("m", "nightly", TICK, holder=holder_of(child), lasts=3600)
    child.kill()
    child.wait()
    mine = book.claim("m", "nightly", next_tick(1), watch=False)
    assert mine.fence == held.fence + 1
    assert mine.took_over == held.holder
    assert [tick.ending for tick in book.ticks("m", 2)] == ["taken over", "running"]
    with pytest.raises(Stale):
        book.finish(held, "registered", "1")
    assert not book.heartbeat(held)
    assert held.lost.is_set()


def test_a_reused_process_number_is_another_process(book: RunBook) -> None:
    other = Holder.here().model_copy(update={"created": "1"})
    book.claim("m", "nightly", TICK, holder=other, lasts=3600)
    assert book.claim("m", "nightly", next_tick(1)).took_over == other


def test_a_stopped_holder_keeps_its_lease_until_it_expires(book: RunBook, child: subprocess.Popen[bytes]) -> None:
    me = holder_of(child)
    os.kill(child.pid, signal.SIGSTOP)
    while not me.stopped:
        time.sleep(0.01)
    book.claim("m", "nightly", TICK, holder=me, lasts=0.6)
    mine = book.claim("m", "nightly", next_tick(1), watch=False)
    assert mine.took_over == me
    assert mine.took_over.end()
    assert me.gone
    assert FAR.end(), "what is not here needs no end here"


def test_heartbeats_are_counted_so_a_clock_that_jumps_changes_nothing(book: RunBook, monkeypatch: pytest.MonkeyPatch) -> None:
    held = book.claim("m", "nightly", TICK, holder=FAR, lasts=1.0)
    for year in (1970, 2038, 2026):
        monkeypatch.setattr("pipeline.backends.run_book.utc_now", lambda year=year: datetime(year, 1, 19, 4, tzinfo=UTC))
        with book.kept(held), pytest.raises(TryLater):
            book.claim("m", "nightly", next_tick(1))
    book.check(held)
    assert book.claim("m", "nightly", next_tick(1)).fence == held.fence + 1


def test_of_many_at_one_tick_one_gets_it(book: RunBook) -> None:
    got, late = [], []

    def go() -> None:
        try:
            got.append(book.claim("m", "nightly", TICK, watch=False))
        except TryLater as error:
            late.append(error)

    threads = [threading.Thread(target=go) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(late)) == (1, 7)


def test_a_stale_run_appends_nothing_to_the_ledger(tmp_path: Path, book: RunBook) -> None:
    path = tmp_path / "state" / "ledger.db"
    first = book.claim("m", "nightly", TICK, holder=FAR, lasts=0.3)
    zombie = SqlLedger(path, fence=book.fence(first))
    append(zombie, 0)
    second = book.claim("m", "nightly", next_tick(1))
    with pytest.raises(Stale, match="taken over"):
        append(zombie, 1)
    plain = SqlLedger(path)
    assert (plain.head("m")[0], plain.verify()) == (1, ())
    append(SqlLedger(path, fence=book.fence(second)), 1)
    book.finish(second, "registered", "2")
    with pytest.raises(Stale):
        append(SqlLedger(path, fence=book.fence(second)), 2)
    assert SqlLedger(path).verify() == ()


def test_nobody_takes_over_between_the_check_and_the_commit(tmp_path: Path, book: RunBook) -> None:
    first = book.claim("m", "nightly", TICK, holder=FAR, lasts=0.2)
    taken: list[int] = []
    taker = threading.Thread(target=lambda: taken.append(book.claim("m", "nightly", next_tick(1)).fence))
    with book.holding("m", first.fence):
        taker.start()
        time.sleep(1.0)
        assert taken == []
    taker.join()
    assert taken == [first.fence + 1]


def test_a_stale_run_makes_no_ref(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    root.mkdir()
    git(root, "init", "--quiet")
    git(root, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--allow-empty", "-m", "start")
    head, plain = git(root, "rev-parse", "HEAD"), Git(root)
    first, second = plain.fenced("m", 4), plain.fenced("m", 5)
    first.raise_fence()
    first.create_ref("m/run/0001", head)
    second.raise_fence()
    second.raise_fence()
    with pytest.raises(Stale, match="taken over"):
        first.create_ref("m/run/0002", head)
    with pytest.raises(Stale):
        first.raise_fence()
    assert first.create_ref("m/run/0001", head), "what is there already is not made"
    second.create_ref("m/run/0002", head)
    assert set(plain.refs("m")) == {"m/run/0001", "m/run/0002"}
    plain.fenced("n", 1).raise_fence()
    plain.create_ref("m/data/0003", head)


def test_a_file_that_somebody_keeps_locked_is_waited_for_so_long_and_no_longer(tmp_path: Path) -> None:
    book = RunBook(tmp_path / "runs.db", patience=0.2)
    held = book.claim("m", "nightly", TICK)
    with sqlite3.connect(tmp_path / "runs.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TryLater, match="the run book is locked"):
            book.claim("n", "nightly", TICK)
        with pytest.raises(TryLater), book.holding("m", held.fence):
            pytest.fail("the lock was another's")
        assert [tick.ending for tick in book.ticks("m", 1)] == ["running"], "who only reads does not wait"
        other.execute("COMMIT")
    assert book.heartbeat(held)


def test_signals_are_kept_by_window_and_come_oldest_first(book: RunBook) -> None:
    def noted(window: str, hour: int, amount: float) -> Signal:
        at = TICK + timedelta(hours=hour)
        return Signal(model="m", what=SignalKind.DRIFT, window=window, at=at, fired=amount > 0.5, amount=amount, detail="d")

    assert book.recent("m", SignalKind.DRIFT, count=3) == ()
    for number in range(4):
        book.note(noted(f"w{number}", number, 0.1 * number))
    book.note(noted("w3", 3, 0.9))
    found = book.recent("m", SignalKind.DRIFT, count=3)
    assert [(one.window, one.amount) for one in found] == [("w1", 0.1), ("w2", 0.2), ("w3", 0.9)]
    assert book.recent("m", SignalKind.COST, count=3) == ()

"""Notices: delivered once, kept when they cannot be, never in a deed's way, and without an address in any log."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from listener import listening
from pydantic import SecretStr

from pipeline.backends import notices
from pipeline.backends.notices import Heard, Notices, split_addresses
from pipeline.backends.notices_outbox import MOST_ATTEMPTS, Outbox
from pipeline.domain.notices import Notice, NoticeKind
from pipeline.params.notify import NotifyParams

SECRET = "hunter2-s3cret"


def notice(
    title: str = "desk: version 3 holds production", *, id: str | None = None, kind: NoticeKind = NoticeKind.PROMOTED
) -> Notice:
    return Notice(kind=kind, model="desk", title=title, lines=("by ada", "because it was better"), id=id)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "PAUSE", 0.01)
    monkeypatch.setattr(notices, "FINISH_SECONDS", 60.0)  # the machine may be busy; nothing here is about time


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def made(outbox: Path, *addresses: str) -> Notices:
    return Notices(SecretStr(" ".join(addresses)), outbox)


def test_all_addresses_hear_it_once(tmp_path: Path) -> None:
    with listening() as one, listening() as other:
        told = made(tmp_path / "n.db", one.address(), other.address())
        for _ in range(3):
            told.tell(notice(id="event-1"))
        told.tell(notice("desk: rolled back"))
        assert told.finish()
        made(tmp_path / "n.db", one.address(), other.address()).tell(notice(id="event-1"))  # another process
        assert told.finish()
        for listener in (one, other):
            assert listener.titles == ["desk: version 3 holds production", "desk: rolled back"]
            assert listener.heard[0]["message"] == "by ada\nbecause it was better"
    assert told.undelivered().waiting == 0


def test_nobody_to_tell_makes_no_file(tmp_path: Path) -> None:
    told = Notices(None, tmp_path / "n.db")
    told.tell(notice())
    told.catch_up()
    assert told.finish()
    assert not (tmp_path / "n.db").exists()


def test_only_wanted_kinds(tmp_path: Path) -> None:
    wanted = NotifyParams(kinds=("refused", "promoted"))  # type: ignore[arg-type] - as YAML gives them
    with listening() as one:
        told = made(tmp_path / "n.db", one.address())
        heard = Heard(told, frozenset(wanted.kinds))
        for kind in NoticeKind:
            heard.tell(notice(kind.value, kind=kind))
        told.finish()
        assert sorted(one.titles) == ["promoted", "refused"]


def test_down_then_up_is_delivered_by_the_next_start(tmp_path: Path, unused_port: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    address = f"json://tuner:{SECRET}@127.0.0.1:{unused_port}/{SECRET}"
    told = made(tmp_path / "n.db", address)
    told.tell(notice("first", id="a"))
    assert told.finish()
    told.tell(notice("second", id="b"))
    assert told.finish()
    left = told.undelivered()
    assert (left.waiting, left.given_up) == (2, 0)
    assert left.error == "address 1 (json): no connection, or no answer in time"
    with listening(unused_port) as listener:
        again = made(tmp_path / "n.db", address)
        again.catch_up()
        assert again.finish()
        assert listener.titles == ["first", "second"]
    assert again.undelivered().waiting == 0
    assert "'first' was not delivered to address 1 (json)" in caplog.text
    for text in (caplog.text, (tmp_path / "n.db").read_bytes().decode("latin-1")):
        assert SECRET not in text
        assert str(unused_port) not in text


def test_an_answer_of_500_is_kept_and_bounded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with listening() as listener:
        listener.status = 500
        for _ in range(MOST_ATTEMPTS + 3):
            told = made(tmp_path / "n.db", listener.address())
            told.tell(notice(id="a"))
            told.catch_up()
            told.finish()
        assert listener.asked == MOST_ATTEMPTS * notices.TRIES
        assert told.undelivered()[:2] == (0, 1)
        assert "it answered 500" in caplog.text
        assert SECRET not in caplog.text


def test_a_slow_one_holds_up_neither_the_deed_nor_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "SEND_SECONDS", 0.2)
    with listening() as slow, listening() as quick:
        slow.gate.clear()
        told = made(tmp_path / "n.db", slow.address(), quick.address())
        told.tell(notice("one"))  # returns, though the slow one does not answer
        while not quick.heard:
            time.sleep(0.01)
        assert not slow.heard
        assert not told.finish(0.05)
        time.sleep(0.3)
        told.tell(notice("two"))  # by now the slow one is left to itself, and the next goes its own way
        slow.gate.set()
        assert told.finish()
        assert quick.titles == ["one", "two"]
        assert "two" in slow.titles


def test_a_process_waits_for_deliveries_before_it_ends(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from pydantic import SecretStr
from pipeline.backends import notices
from pipeline.backends.notices import Notices
from pipeline.domain.notices import Notice
notices.FINISH_SECONDS = 120.0
Notices(SecretStr(sys.argv[1]), Path(sys.argv[2])).tell(Notice(kind="promoted", model="desk", title="at the end"))
"""
    with listening() as listener:
        subprocess.run([sys.executable, "-c", program, listener.address(), str(tmp_path / "n.db")], check=True, timeout=60)
        assert listener.titles == ["at the end"]


@pytest.mark.parametrize("address", ["nonsense", f"nowhere://{SECRET}", f"json://{SECRET}@", "", f"{SECRET}:x@y://z"])
def test_an_address_that_is_none_stops_nothing(tmp_path: Path, address: str, caplog: pytest.LogCaptureFixture) -> None:
    with listening() as listener:
        told = made(tmp_path / "n.db", address, listener.address())
        told.tell(notice("still"))
        assert told.finish()
        assert listener.titles == ["still"]
        assert SECRET not in caplog.text


def test_an_outbox_that_cannot_be_written_sends_from_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "n.db").mkdir()
    with listening() as listener:
        told = made(tmp_path / "n.db", listener.address())
        told.tell(notice("unkept"))
        assert told.finish()
        assert listener.titles == ["unkept"]
        assert "cannot be kept" in caplog.text


def test_two_processes_do_not_deliver_the_same(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "n.db")
    assert outbox.keep("a", "{}", ["t"])
    assert not outbox.keep("a", "{}", ["t"])
    assert outbox.take("t")
    assert Outbox(tmp_path / "n.db").take("t") is None
    outbox.failed("a", "t", "why")
    taken = outbox.take("t")
    assert taken is not None
    assert taken.attempt == 2


def test_addresses_that_are_set_no_more_are_dropped(tmp_path: Path, unused_port: int) -> None:
    told = made(tmp_path / "n.db", f"json://127.0.0.1:{unused_port}")
    told.tell(notice())
    told.finish()
    assert told.undelivered().waiting == 1
    with listening() as listener:
        other = made(tmp_path / "n.db", listener.address())
        other.catch_up()
        other.finish()
        assert listener.titles == []
        assert other.undelivered().waiting == 0


def test_addresses_are_split_between_them_only() -> None:
    text = "mailtos://u:p@example.org?to=a@x.org,b@x.org, slack://t/a/b  json://h\n\tntfy://topic,"
    assert split_addresses(text) == ["mailtos://u:p@example.org?to=a@x.org,b@x.org", "slack://t/a/b", "json://h", "ntfy://topic"]
    assert split_addresses("  ") == []

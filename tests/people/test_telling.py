"""Deeds tell what they changed, once an event, however often a retry repeats them; a wait that nobody serves is told too."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from desk import MODEL, Desk
from listener import Listener, listening

from pipeline import deeds
from pipeline.backends import notices
from pipeline.backends.anchors import Anchors
from pipeline.domain.news import FRESH, is_news
from pipeline.errors import RulesUnmet, TryLater
from pipeline.moving import utc_now


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "FINISH_SECONDS", 60.0)
    monkeypatch.setattr(Anchors, "after", lambda *_: None)  # git commits are the anchors' own tests' matter


@pytest.fixture
def heard() -> Iterator[Listener]:
    with listening() as listener:
        yield listener


@pytest.fixture
def desk(tmp_path: Path, heard: Listener) -> Desk:
    made = Desk(tmp_path / "desk", notify=heard.address())
    made.register()
    made.register()
    return made


def do(desk: Desk, deed: Any, *args: str, by: str = "bob", reason: str = "I looked", **words: Any) -> Any:
    """As a process of its own does it, to its end."""
    world = desk.world
    try:
        return deed(world, desk.params, *args, by=by, reason=reason, **words)
    finally:
        assert world.notifier.finish()


def test_each_deed_is_told_once(desk: Desk, heard: Listener) -> None:
    for _ in range(2):  # the second time each finds itself done
        do(desk, deeds.give_approval, "1", "production")
        do(desk, deeds.move_to, "1", "production", by="ada")
    do(desk, deeds.give_veto, "2", "production", reason="it is rude")
    do(desk, deeds.give_approval, "2", "production", reason="it is not")
    do(desk, deeds.move_to, "2", "production", by="ada")
    for _ in range(2):
        do(desk, deeds.move_back, "production", leaving="2")
        do(desk, deeds.take_off, "2")
    assert heard.titles == [
        "desk: bob approved version 1 for production",
        "desk: version 1 holds production",
        "desk: bob refused version 2 for production",
        "desk: bob approved version 2 for production",
        "desk: version 2 holds production",
        "desk: production was rolled back to version 1",
        "desk: version 2 was revoked",
    ]
    assert "nothing is missing: it can take production" in heard.heard[0]["message"]
    assert "by bob: it is rude" in heard.heard[2]["message"]
    assert "production is held by version 1" in heard.heard[-1]["message"]


def test_what_changed_nothing_is_not_told(desk: Desk, heard: Listener) -> None:
    with pytest.raises(RulesUnmet):
        do(desk, deeds.move_to, "1", "production")
    quiet = Desk(desk.root)  # done where nobody is told
    do(quiet, deeds.give_approval, "1", "production")
    do(quiet, deeds.move_to, "1", "production", by="ada")
    do(desk, deeds.move_to, "1", "production", by="carol")  # finds what ada did
    assert heard.titles == []


def test_an_event_whose_deed_failed_after_it_is_told_all_the_same(
    desk: Desk, heard: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    do(desk, deeds.give_approval, "1", "production")
    heard.heard.clear()
    with monkeypatch.context() as patch:

        def down(*_: Any) -> None:
            raise TryLater("the registry does not answer")

        patch.setattr("tests.release.folder_registry.FolderRegistry.point", down)
        with pytest.raises(TryLater):
            do(desk, deeds.move_to, "1", "production", by="ada")
    assert not do(desk, deeds.move_to, "1", "production", by="ada").changed
    assert heard.titles == ["desk: version 1 holds production"]


def test_a_deed_that_was_killed_before_it_told_tells_when_it_is_repeated(desk: Desk, heard: Listener) -> None:
    quiet = Desk(desk.root)
    do(quiet, deeds.give_approval, "1", "production")
    assert not heard.titles
    do(desk, deeds.give_approval, "1", "production")
    assert heard.titles == ["desk: bob approved version 1 for production"]


def test_old_events_are_no_news(desk: Desk) -> None:
    event = do(desk, deeds.give_approval, "1", "production")
    assert is_news(event, by="bob", reason="I looked", now=utc_now())
    assert not is_news(event, by="bob", reason="I looked", now=utc_now() + FRESH)
    assert not is_news(event, by="bob", reason="another", now=utc_now() + timedelta(seconds=1))


def test_people_who_cannot_be_reached_stop_no_deed(tmp_path: Path) -> None:
    desk = Desk(tmp_path, notify="nonsense json://127.0.0.1:1/")
    desk.register()
    do(desk, deeds.give_approval, "1", "production")
    assert do(desk, deeds.move_to, "1", "production", by="ada").changed
    assert desk.world.notifier.undelivered().waiting == 4


def test_params_say_of_what(desk: Desk, heard: Listener) -> None:
    desk.write(desk.params_file.read_text() + "notify: {kinds: [rolled_back]}\n")
    do(desk, deeds.give_approval, "1", "production")
    do(desk, deeds.move_to, "1", "production", by="ada")
    do(desk, deeds.give_approval, "2", "production")
    do(desk, deeds.move_to, "2", "production", by="ada")
    do(desk, deeds.move_back, "production")
    assert heard.titles == ["desk: production was rolled back to version 1"]


def test_what_an_earlier_process_could_not_deliver_is_delivered_by_the_next_start(desk: Desk, heard: Listener) -> None:
    heard.status = 503
    do(desk, deeds.give_approval, "1", "production")
    assert not heard.heard
    heard.status = 200
    world = desk.world
    deeds.mend(world, desk.params)
    assert world.notifier.finish()
    assert heard.titles == ["desk: bob approved version 1 for production"]
    assert world.ledger.head(MODEL)[0] == 3

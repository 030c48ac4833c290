"""Waiting for people on a real Prefect server: in its form and on the command line alike, with reminders and an end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from desk import MODEL, PARAMS, Desk, FolderWorld
from listener import Listener, listening
from prefect_kit import Served, server
from typer.testing import CliRunner

from flows import approval, prefect_api
from pipeline.backends import notices
from pipeline.backends.anchors import Anchors
from pipeline.backends.identities import new_identity
from pipeline.domain.release import EventKind
from pipeline.moving import utc_now
from pipeline.wiring import World


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with server(tmp_path_factory.mktemp("prefect")) as address:
        yield address


@pytest.fixture(scope="module")
def heard() -> Iterator[Listener]:
    with listening() as listener:
        yield listener


@pytest.fixture
def desk(tmp_path: Path, api: str, heard: Listener, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(notices, "FINISH_SECONDS", 60.0)
    monkeypatch.setattr(prefect_api, "PATIENCE", 60.0)
    monkeypatch.setattr(Anchors, "after", lambda *_: None)
    made = Desk(tmp_path / "desk", notify=heard.address(), prefect_api=api)
    worlds: list[FolderWorld] = []

    def here(*_: Any) -> FolderWorld:
        worlds.append(made.world)
        return worlds[-1]

    monkeypatch.setattr(World, "here", here)
    monkeypatch.chdir(made.root)
    heard.heard.clear()
    made.register()
    return made


def command(*words: str) -> Any:
    from pipeline.__main__ import app

    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_the_form_and_the_command_line_lead_to_the_same(desk: Desk, api: str, heard: Listener) -> None:
    """Version 1 is approved in Prefect's form, version 2 on the command line."""
    served = Served(desk, api)
    said = served.seek("1")
    assert said is not None
    assert said.startswith("version 1 waits for production: 0 of 1 approvals")
    assert "/runs/flow-run/" in said
    served.seek("1")
    assert served.states("1") == ["Scheduled"], "asked for twice, it waits once"
    assert served.work("1") == "Suspended"
    assert not served.api.resume(served.runs("1")[0].id, {"decision": "perhaps", "by": "bob", "reason": "r"})
    assert served.answer("1", "approve")  # who, and why?
    assert served.work("1") == "Suspended"
    assert desk.deeds == []
    assert served.answer("1", "approve", "bob", "I read the report")
    assert served.work("1") == "Promoted"

    desk.register()
    served.seek("2")
    assert served.work("2") == "Suspended"
    event = command("approve", "2", "--to", "production", "--by", "bob", "--reason", "I read the report")
    assert event["event"] == "approved"
    assert served.states("2") == ["Resuming"], "the decision let it go on"
    assert served.work("2") == "Promoted"
    assert [d for d in desk.deeds if d[1] == "1"] == [("approved", "1", "bob"), ("promoted", "1", "policy")]
    assert [d for d in desk.deeds if d[1] == "2"] == [("approved", "2", "bob"), ("promoted", "2", "policy")]
    assert [e.reason for e in desk.events if e.event is EventKind.APPROVED] == ["I read the report"] * 2
    assert [title.removeprefix("desk: ") for title in _settled(heard, 6)] == [
        "version 1 waits for production",
        "bob approved version 1 for production",
        "version 1 holds production",
        "version 2 waits for production",
        "bob approved version 2 for production",
        "version 2 holds production",
    ]


@pytest.mark.slow
def test_a_veto_ends_the_wait(desk: Desk, api: str, heard: Listener) -> None:
    served = Served(desk, api)
    served.seek("1")
    assert served.work("1") == "Suspended"
    command("refuse", "1", "--to", "production", "--by", "eve", "--reason", "it is rude")
    assert served.work("1") == "Refused"
    desk.register()
    served.seek("2")
    assert served.work("2") == "Suspended"
    assert served.answer("2", "refuse", "eve", "it is rude")
    assert served.work("2") == "Refused"
    desk.register()
    served.seek("3")
    desk.append(EventKind.REVOKED, "3", subject=desk.events[-1].subject)
    assert served.work("3") == "Revoked"
    assert desk.deeds == [("refused", "1", "eve"), ("refused", "2", "eve"), ("revoked", "3", "ada")]
    assert desk.holder() is None
    assert [title for title in _settled(heard, 4) if "refused" in title] == [
        "desk: eve refused version 1 for production",
        "desk: eve refused version 2 for production",
    ]


@pytest.mark.slow
def test_a_newer_version_that_took_the_stage_ends_the_wait(desk: Desk, api: str, heard: Listener) -> None:
    served = Served(desk, api)
    served.seek("1")
    assert served.work("1") == "Suspended"
    desk.register()
    command("approve", "2", "--to", "production", "--by", "bob", "--reason", "r")
    command("promote", "2", "--to", "production", "--by", "ada", "--reason", "r")
    served.look()
    assert served.work("1") == "Overtaken"
    assert "desk: version 1 no longer waits for production" in _settled(heard, 4)


@pytest.mark.slow
def test_a_look_reminds_ends_and_begins(desk: Desk, api: str, heard: Listener) -> None:
    desk.write(PARAMS + "  approval: {remind_hours: 0.0001}\n")
    served = Served(desk, api)
    served.look()  # nobody was asked about version 1
    assert served.work("1") == "Suspended"
    missed = served.miss_a_look()
    served.look()
    assert not served.is_there(missed), "one look is enough for those that were missed"
    served.look()
    reminded = [title for title in _settled(heard, 2) if "(told " in title]
    assert reminded
    assert served.states("1") == ["Suspended"]
    desk.write(PARAMS + "  approval: {expire_days: 0.000001}\n")
    served.look()
    assert served.work("1") == "Expired"
    assert desk.deeds == []
    assert "desk: version 1 no longer waits for production" in _settled(heard, 3)
    served.look()
    assert served.states("1") == ["Expired"], "nobody is asked again by itself"
    desk.write(PARAMS + "  promote_when_approved: false\n")
    served.seek("1")  # but when asked for
    assert served.work("1") == "Suspended"
    command("approve", "1", "--to", "production", "--by", "bob", "--reason", "late, but yes")
    assert served.work("1") == "Ready"
    assert desk.deeds == [("approved", "1", "bob")], "params say that a person promotes"


@pytest.mark.slow
def test_a_run_whose_process_died_is_started_again_and_does_nothing_twice(
    desk: Desk, api: str, heard: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = Served(desk, api)
    served.seek("1")
    assert served.work("1") == "Suspended"
    assert served.answer("1", "approve", "bob", "r")
    served.force("1", "RUNNING")  # it was taken up, and its process died before it did anything
    served.look()
    assert served.states("1") == ["Running"], "it may be at it still"
    monkeypatch.setattr(approval, "DEAD_AFTER", timedelta(0))
    served.look()
    assert served.states("1") == ["Scheduled"]
    assert served.work("1") == "Promoted"
    served.force("1", "RUNNING")  # it died just before it could say so
    served.look()
    assert served.work("1") == "Promoted"
    assert desk.deeds == [("approved", "1", "bob"), ("promoted", "1", "policy")]
    assert len(_settled(heard, 3)) == 3


@pytest.mark.slow
def test_a_run_begun_by_hand(desk: Desk, api: str) -> None:
    served = Served(desk, api)
    for version, stage in (("99", "production"), ("x" * 500, "production"), ("1", "live"), ("1", "")):
        assert served.by_hand(version, stage) == "Failed"
    assert served.by_hand("v1", "production") == "Suspended"
    assert served.states("1") == ["Suspended"], "it has the tags by which it is found"
    command("approve", "1", "--to", "production", "--by", "bob", "--reason", "r")
    assert served.work("1") == "Promoted"


@pytest.mark.slow
def test_where_decisions_are_signed_the_form_counts_for_nothing(
    desk: Desk, api: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    people, keys = tmp_path / "people.toml", {}
    for who in ("worker", "bob"):
        keys[who] = tmp_path / f"{who}.pem"
        new_identity(people, who, kind="person", roles=(), key_file=keys[who], now=utc_now() - timedelta(days=1))
    root = tmp_path / "signing"
    signing = Desk(root, prefect_api=api, identities=people, actor_key=keys["worker"], actor="worker")
    monkeypatch.setattr(World, "here", lambda *_: signing.world)
    monkeypatch.chdir(root)
    signing.register(by="worker")
    served = Served(signing, api)
    served.seek("1")
    assert served.work("1") == "Suspended"
    assert served.answer("1", "approve", "bob", "I am bob")
    assert served.work("1") == "Suspended"
    assert signing.deeds == []
    bob = Desk(root, prefect_api=api, identities=people, actor_key=keys["bob"])
    monkeypatch.setattr(World, "here", lambda *_: bob.world)
    command("approve", "1", "--to", "production", "--by", "bob", "--reason", "signed")
    monkeypatch.setattr(World, "here", lambda *_: signing.world)
    assert served.work("1") == "Promoted"
    assert signing.deeds == [("approved", "1", "bob"), ("promoted", "1", "worker")]
    assert all(event.signer for event in signing.events)
    assert signing.world.ledger.models() == (MODEL,)


def test_without_a_server_decisions_stand_all_the_same(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = Desk(desk.root, prefect_api="http://127.0.0.1:1/api")
    monkeypatch.setattr(World, "here", lambda *_: alone.world)
    command("approve", "1", "--to", "production", "--by", "bob", "--reason", "r")
    command("refuse", "1", "--to", "production", "--by", "eve", "--reason", "r")
    assert alone.deeds == [("approved", "1", "bob"), ("refused", "1", "eve")]


def _settled(heard: Listener, count: int) -> list[str]:
    """What was heard, once so many notices were, or none more came."""
    import time

    deadline = time.monotonic() + 60
    while len(heard.heard) < count and time.monotonic() < deadline:
        time.sleep(0.05)
    return heard.titles

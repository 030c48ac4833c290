"""tuneline status: one screen that is right, quick to make, and whole whatever does not answer."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from desk import MODEL, PARAMS, Desk
from listener import listening
from typer.testing import CliRunner

from pipeline import deeds, overview
from pipeline.__main__ import app
from pipeline.backends import notices
from pipeline.backends.anchors import Anchors
from pipeline.domain.release import EventKind
from pipeline.domain.signals import Signal, SignalKind
from pipeline.wiring import World


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(Anchors, "after", lambda *_: None)
    made = Desk(tmp_path / "desk")
    looking_at(made, monkeypatch)
    return made


def looking_at(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(World, "here", lambda *_: desk.world)
    monkeypatch.chdir(desk.root)


def status() -> dict[str, Any]:
    done = CliRunner().invoke(app, ["status", "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def screen() -> str:
    done = CliRunner().invoke(app, ["status"])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_nothing_yet(desk: Desk) -> None:
    found = status()
    assert found["stages"] == {"staging": None, "production": None}
    assert (found["waiting"], found["runs"], found["running"], found["unknown"]) == ([], [], None, [])
    assert "production  nobody" in screen()
    assert not list((desk.root / ".tuneline").rglob("*")), "a look makes nothing"


def test_who_holds_what_since_when_by_whom_and_why(desk: Desk) -> None:
    one, two, three = (desk.register() for _ in range(3))
    for version in (one, two):
        deeds.give_approval(desk.world, desk.params, version, "production", by="bob", reason="read")
        deeds.move_to(desk.world, desk.params, version, "production", by="ada", reason=f"better than before {version}")
    deeds.move_back(desk.world, desk.params, "production", by="eve", reason="rude")
    held = status()["stages"]["production"]
    event = desk.events[-1]
    assert (held["version"], held["by"], held["why"], held["event"]) == (one, "eve", "rude", event.sequence)
    assert datetime.fromisoformat(held["since"]) == event.at
    assert "rolled back to by eve: rude" in screen()
    assert [(w["waiting"]["version"], w["waiting"]["missing"]) for w in status()["waiting"]] == [
        (three, ["0 of 1 approvals: tuneline approve 3 --to production --reason …, by another person"])
    ]
    deeds.take_off(desk.world, desk.params, one, by="eve", reason="withdrawn data")
    assert status()["stages"]["production"] is None


def test_who_waits_and_who_was_refused(desk: Desk) -> None:
    desk.register()
    desk.register()
    deeds.give_veto(desk.world, desk.params, "1", "production", by="eve", reason="rude")
    deeds.give_approval(desk.world, desk.params, "2", "production", by="bob", reason="read")
    found = [one["waiting"] for one in status()["waiting"]]
    assert [(w["version"], w["refused"]) for w in found] == [("1", True), ("2", False)]
    assert found[1]["missing"] == []
    said = screen()
    assert "refused: version 1 for production" in said
    assert "missing: eve refused version 1" in said
    assert "nothing is missing: it can be promoted" in said


def test_long_ago_is_looked_up_and_comes_out_as_on_all(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.steps.status.NEWEST", 3)
    desk.register()
    subject = desk.events[0].subject
    desk.append(EventKind.PROMOTED, "1", stage="production", subject=subject)
    for number in range(6):
        desk.append(EventKind.PROMOTED, "1", stage="staging", subject=subject, reason=f"turn {number}")
    desk.register()
    found = status()
    assert found["stages"]["production"]["version"] == "1"
    assert [one["waiting"]["version"] for one in found["waiting"]] == ["2"]


def test_what_is_unhealthy(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.register()
    deeds.give_approval(desk.world, desk.params, "1", "production", by="bob", reason="read")
    deeds.move_to(desk.world, desk.params, "1", "production", by="ada", reason="better")
    at = datetime(2026, 11, 29, tzinfo=UTC)
    for window, fired in (("w1", True), ("w2", False)):
        for kind in (SignalKind.DRIFT, SignalKind.LATENCY):
            seen = Signal(model=MODEL, what=kind, window=window, at=at, fired=fired, amount=1.0, detail=f"{kind} {window}")
            if fired or kind is SignalKind.LATENCY:
                desk.world.run_book.note(seen)
    monkeypatch.setattr(overview, "LOW_BYTES", 1 << 80)
    found = status()
    assert [line.split(":")[0] for line in found["unhealthy"]] == [
        "MLflow's alias production names nothing; the ledger says 1",
        "drift in w1",
        next(line for line in found["unhealthy"] if "GiB are free" in line).split(":")[0],
    ]
    assert "UNHEALTHY: drift in w1: drift w1" in screen()


def test_undelivered_notices_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Anchors, "after", lambda *_: None)
    monkeypatch.setattr(notices, "FINISH_SECONDS", 60.0)
    with listening() as listener:
        listener.status = 500
        desk = Desk(tmp_path / "desk", notify=listener.address())
        looking_at(desk, monkeypatch)
        desk.register()
        world = desk.world
        deeds.give_approval(world, desk.params, "1", "production", by="bob", reason="read")
        assert world.notifier.finish()
        (line,) = (line for line in status()["unhealthy"] if "notices" in line)
    assert line.startswith("1 notices are undelivered and 0 were given up, the oldest of ")
    assert "address 1 (json): it answered 500" in line
    assert "hunter2" not in line


@pytest.mark.parametrize(
    ("settings", "unknown"),
    [
        ({"mlflow_uri": "http://user:hunter2@127.0.0.1:1/"}, "MLflow: http://127.0.0.1:1: MLflow does not answer"),
        ({"mlflow_uri": "postgresql+psycopg://user:hunter2@h/m"}, "MLflow: MLflow's store is a database"),
        ({"prefect_api": "http://127.0.0.1:1/api"}, "Prefect: http://127.0.0.1:1/api: Prefect does not answer"),
    ],
)
def test_what_does_not_answer_hides_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], unknown: str
) -> None:
    desk = Desk(tmp_path / "desk", params=PARAMS, **settings)
    looking_at(desk, monkeypatch)
    desk.register()
    found = status()
    assert [line for line in found["unknown"] if line.startswith(unknown)], found["unknown"]
    assert "hunter2" not in json.dumps(found)
    assert found["waiting"][0]["waiting"]["version"] == "1"
    assert f"not known: {unknown}" in screen()


def test_a_store_that_is_broken_hides_nothing_else(desk: Desk) -> None:
    desk.register()
    desk.world.project.mlflow_db.write_bytes(b"no database" * 100)
    (desk.world.project.notices).write_bytes(b"no database" * 100)
    found = status()
    assert len(found["unknown"]) == 2
    assert found["waiting"]


def test_it_imports_nothing_heavy(desk: Desk) -> None:
    desk.register()
    desk.append(EventKind.PROMOTED, "1", stage="production", subject=desk.events[0].subject)
    made = desk.world.project.mlflow_db
    with sqlite3.connect(made) as db:
        db.execute("create table registered_model_aliases (name text, alias text, version integer)")
        db.execute("insert into registered_model_aliases values (?, 'production', 1)", (MODEL,))
    program = (
        "import sys; sys.argv = ['tuneline', 'status']\n"
        "from pipeline.__main__ import app\n"
        "app(standalone_mode=False)\n"
        "print([name for name in ('mlflow', 'prefect', 'torch', 'dvc', 'apprise', 'pandas', 'numpy') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=desk.root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "version 1 since" in done.stdout
    assert "healthy" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"

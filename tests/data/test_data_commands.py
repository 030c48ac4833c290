"""`tuneline data` and `tuneline drift` on a project with real git and DVC: what they say is what was taken in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from made_snapshots import Row, grow
from typer.testing import CliRunner

from pipeline.backends.git import Git
from pipeline.backends.run_folder import keep_run, open_run
from pipeline.commands import data
from pipeline.commands.drift import drift
from pipeline.domain.data import QuarantinedRow, Snapshot
from pipeline.domain.record import digest_file
from pipeline.errors import Misuse, Tampered, TunelineError
from pipeline.params import Params
from pipeline.workspace import Project
from tests.checkouts import make_checkout

BASE: dict[str, Any] = {"model": {"name": "m", "task": "generate", "base": "./x"}}


def asked(start: int, count: int, words: str = "order number") -> list[Row]:
    return [(f"Where is my {words} {i:04d}?", "It is on its way to you.") for i in range(start, start + count)]


def refusals(count: int, code: str = "bad_json") -> list[QuarantinedRow]:
    return [
        QuarantinedRow(source="inbox/two.jsonl", line=i, code=code, reason=f"reason {i}", raw="{", raw_bytes=1)
        for i in range(1, count + 1)
    ]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, list[Snapshot]]:
    """Four kept runs: a batch; one more with refused rows, under other params; a refused one; one whose shard was rewritten."""
    root = make_checkout(tmp_path_factory.mktemp("snapshots") / "project", "model: {name: m, task: generate, base: ./x}\n")
    project = Project(root, root / ".tuneline")
    made: list[Snapshot] = []

    def take(kind: Any, ending: str, change: Callable[[Path, Snapshot | None], Snapshot], **params: Any) -> None:
        run = open_run(Git(root), project, Params.model_validate({**BASE, **params}), remote=None)
        made.append(change(run.workspace.snapshot, run.parent))
        run.store.add(run.workspace.snapshot)
        keep_run(Git(root), run, kind, f"{run.key}: {ending}")
        run.store.close()

    take("run", "the gate says passed", lambda f, p: grow(f, p, asked(0, 120), source="inbox/one.jsonl"))
    two = [*refusals(3), *refusals(2, "blank")]
    take(
        "data",
        "data taken in",
        lambda f, p: grow(f, p, asked(200, 60), source="inbox/two.jsonl", refused=two),
        validate={"min_rows": 10},
    )
    take("invalid", "the data failed validation", lambda f, p: grow(f, p, asked(900, 5), source="inbox/bad.jsonl"))
    take("run", "the gate says failed", lambda f, p: _rewritten(f, p))
    return project, made


def _rewritten(folder: Path, parent: Snapshot | None) -> Snapshot:
    """The first shard without its rows 0 and 1, as after forgetting them."""
    assert parent is not None
    (folder / parent.shards[0].path).unlink()
    empty = parent.model_copy(update={"shards": parent.shards[1:], "forgotten": 2})
    made = grow(folder, empty, asked(2, 118), source="inbox/one.jsonl").model_copy(update={"parent": parent.digest})
    made.write(folder / "snapshot.json")
    return made


@pytest.fixture
def tuneline(project: tuple[Project, list[Snapshot]], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A command in the project; returns its JSON, or its text where `text` is asked for."""
    monkeypatch.chdir(project[0].root)
    app = typer.Typer()
    app.add_typer(data.app, name="data")
    app.command()(drift)

    def call(*words: str, text: bool = False, code: int = 0) -> Any:
        done = CliRunner().invoke(app, [*words, *([] if text else ["--json"])])
        if isinstance(done.exception, TunelineError):
            raise done.exception
        assert done.exit_code == code, done.output
        return done.stdout if text else json.loads(done.stdout)

    return call


def test_log_lists_every_kept_run_newest_first(tuneline: Callable[..., Any], project: tuple[Project, list[Snapshot]]) -> None:
    rows = tuneline("data", "log")
    assert [(r["number"], r["kind"], r["rows"], r["added"], r["fresh"], r["quarantined"], r["forgotten"]) for r in rows] == [
        (4, "run", 178, -2, 1, 5, 2),
        (3, "invalid", 185, 5, 1, 5, 0),
        (2, "data", 180, 60, 1, 5, 0),
        (1, "run", 120, 120, 1, 0, 0),
    ]
    assert [r["verdict"] for r in rows] == [
        "the gate says failed",
        "the data failed validation",
        "data taken in",
        "the gate says passed",
    ]
    assert [r["snapshot"] for r in rows] == [s.digest for s in reversed(project[1])]
    text = tuneline("data", "log", text=True)
    assert project[1][0].digest[:12] in text


def test_show_prints_the_card_of_the_snapshot_that_was_named(
    tuneline: Callable[..., Any], project: tuple[Project, list[Snapshot]]
) -> None:
    _, made = project
    for name, number in (("head", 4), ("head~1", 2), ("head~2", 1), ("3", 3), (made[0].digest[:10], 1)):
        shown = tuneline("data", "show", name)
        assert (shown["number"], shown["digest"]) == (number, made[number - 1].digest)
    assert shown["statistics"]["rows"] == 120
    text = tuneline("data", "show", "2", text=True)
    assert "| inbox/two.jsonl | 65 | 60 | 0 | 5 | 0 |" in text
    assert "pretty_name" not in text


@pytest.mark.parametrize("name", ["9", "head~9", "abcd", "", "../x", "head~99999999999"])
def test_names_that_mean_nothing_say_what_there_is(tuneline: Callable[..., Any], name: str) -> None:
    with pytest.raises(Misuse, match="there is no snapshot") as caught:
        tuneline("data", "show", name)
    assert "1 (" in str(caught.value)


def test_diff_of_an_appended_batch(tuneline: Callable[..., Any]) -> None:
    found = tuneline("data", "diff", "1", "2")
    assert (found["added"], found["removed"], found["rewritten"]) == (60, 0, False)
    assert (found["shards_kept"], found["shards_added"], found["shards_removed"]) == (1, 1, 0)
    assert found["sources_added"] == ["inbox/two.jsonl"]
    assert found["samples_added"][0] == "inbox/two.jsonl:1"
    assert found["quarantine"] == [{"name": "bad_json", "before": 0, "after": 3}, {"name": "blank", "before": 0, "after": 2}]
    assert found["params"] == {"validate.min_rows": [50, 10]}
    assert found["kinds"] == [{"name": "answer", "before": 120, "after": 180}]
    assert "params validate.min_rows: 50 → 10" in tuneline("data", "diff", "1", "2", text=True)
    assert tuneline("data", "diff", "2", "2", text=True).strip().endswith("the same snapshot")


def test_diff_of_a_rewritten_shard_goes_by_rows(tuneline: Callable[..., Any]) -> None:
    found = tuneline("data", "diff", "head~1", "head")
    assert (found["added"], found["removed"], found["rewritten"], found["forgotten"]) == (0, 2, True, 2)
    assert sorted(found["samples_removed"]) == ["inbox/one.jsonl:1", "inbox/one.jsonl:2"]
    back = tuneline("data", "diff", "head", "head~1")
    assert (back["added"], back["removed"]) == (2, 0)


def test_quarantine_is_paged_filtered_and_exported(tuneline: Callable[..., Any], tmp_path: Path) -> None:
    page = tuneline("data", "quarantine", "--rows", "2", "--skip", "1")
    assert page["matching"] == 5
    assert [row["line"] for row in page["rows"]] == [2, 3]
    assert tuneline("data", "quarantine", "--code", "blank")["matching"] == 2
    text = tuneline("data", "quarantine", "--rows", "2", text=True)
    assert "bad_json: reason 1" in text
    assert "more: --skip 2" in text
    out = tmp_path / "rows.jsonl"
    assert tuneline("data", "quarantine", "--code", "bad_json", "--out", str(out))["written"] == 3
    assert [QuarantinedRow.model_validate_json(line) for line in out.read_text().splitlines()] == refusals(3)
    with pytest.raises(Misuse, match="cannot be made"):
        tuneline("data", "quarantine", "--out", str(out))


def test_drift_of_a_batch_between_snapshots_and_from_traffic(tuneline: Callable[..., Any], tmp_path: Path) -> None:
    same = tuneline("drift", "2")
    assert (same["fresh"], same["fresh_rows"], same["reference_rows"]) == ("batch", 60, 120)
    assert not [s for s in same["shifts"] if s["drifted"]]
    between = tuneline("drift", "1", "2")
    assert (between["fresh"], between["fresh_rows"]) == ("rows added", 60)
    traffic = tmp_path / "requests.jsonl"
    rows = [{"text": f"Bitte stornieren Sie meine Buchung {i} für das Hotel am See."} for i in range(80)]
    traffic.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
    found = tuneline("drift", "--traffic", str(traffic), "--out", str(tmp_path / "report"))
    assert {s["aspect"] for s in found["shifts"] if s["drifted"]} >= {"input_length", "language", "text"}
    assert found["refused"] == 1
    assert "language" in tuneline("drift", "--traffic", str(traffic), text=True)
    assert (tmp_path / "report" / "drift.html").read_text().startswith("<!doctype html>")
    with pytest.raises(Misuse, match="two are named"):
        tuneline("drift", "1", "2", "--traffic", str(traffic))


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("quarantine", ("data", "quarantine", "2")),
        ("README.md", ("data", "show", "2")),
        ("statistics", ("data", "diff", "1", "2")),
    ],
)
def test_a_stored_file_that_changed_is_not_shown(
    tuneline: Callable[..., Any], project: tuple[Project, list[Snapshot]], file: str, words: tuple[str, ...]
) -> None:
    root, second = project[0].root, project[1][1]
    listed = next(f for f in (*second.quarantine, *second.described) if f.path.startswith(file))
    objects = [p for p in (root / ".dvc" / "cache" / "files").rglob("*") if p.is_file() and p.stat().st_size == listed.bytes]
    stored = next(p for p in objects if digest_file(p) == listed.sha256)
    whole, mode = stored.read_bytes(), stored.stat().st_mode
    stored.chmod(0o644)
    try:
        stored.write_bytes(whole.replace(b"1", b"9", 1))
        with pytest.raises(Tampered, match="recorded") as caught:
            tuneline(*words)
        assert listed.path in str(caught.value)
    finally:
        stored.write_bytes(whole)
        stored.chmod(mode)
